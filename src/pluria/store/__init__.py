"""store: ensembles to files and back, checkpoints in, members out."""

from pluria.store.checkpoint import Checkpoint, read_checkpoint
from pluria.store.export import export_member, export_members, packed
from pluria.store.file import Loaded, file_size, load, load_all, save
from pluria.store.folder import export_folder
from pluria.store.peft import read_peft, write_peft

__all__ = [
    "Checkpoint",
    "Loaded",
    "export_folder",
    "export_member",
    "export_members",
    "file_size",
    "load",
    "load_all",
    "packed",
    "read_checkpoint",
    "read_peft",
    "save",
    "write_peft",
]
