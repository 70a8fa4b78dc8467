"""Named tensors and short texts in one safetensors file: written here, read by the library.

    8 bytes: length of the header | header: JSON, padded by spaces to 8 bytes | tensors: widest elements first, by name

The library writes texts in a random order and files that only their owner can read, so equal content would give
different bytes and the umask would not count. Tensors are written one at a time, without a copy on the CPU.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pluria.core.errors import PluriaError
from pluria.store.atomic import replacing

DTYPES: dict[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What a file can hold, and what the format calls it."""

LONGEST = 100_000_000
"""The library reads no header longer than this."""


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    """Write a safetensors file whose metadata are `texts`; the same content always gives the same bytes.

    Every name gets its own copy, tied or not. Raises TypeError for a dtype that the format does not know.
    """
    write_made(path, tensors, tensors.__getitem__, texts)


def write_made(
    path: str | os.PathLike[str], outline: Mapping[str, Tensor], make: Callable[[str], Tensor], texts: Mapping[str, str]
) -> None:
    """Write a safetensors file whose tensors `make` gives one at a time; `outline` has their dtypes and shapes."""
    order = _order(outline)
    head = header([(name, outline[name]) for name in order], texts)
    with replacing(path) as file:
        file.write(head)
        for name in order:
            file.write(raw(make(name)))


def size_of(outline: Mapping[str, Tensor], texts: Mapping[str, str]) -> int:
    """Bytes of such a file."""
    head = header([(name, outline[name]) for name in _order(outline)], texts)
    return len(head) + sum(tensor.numel() * tensor.element_size() for tensor in outline.values())


def _order(outline: Mapping[str, Tensor]) -> list[str]:
    return sorted(outline, key=lambda name: (-outline[name].element_size(), name))


@contextmanager
def opened(path: str | os.PathLike[str], error: type[PluriaError]) -> Iterator[Any]:
    """The library's handle on a safetensors file; a file that is not whole or no safetensors raises `error`."""
    with open(path, "rb"):
        pass  # a missing file and a folder raise their own OSError here
    try:
        with safe_open(path, framework="pt") as handle:
            yield handle
    except SafetensorError as problem:
        raise error(f"{path}: {_reason(path, str(problem))}") from None


def read_tensor(handle: Any, name: str, *, mapped: bool = False) -> Tensor:
    """One tensor in memory of its own, so that it outlives the file; `mapped`, a view of the file, read where used."""
    value: Tensor = handle.get_tensor(name)
    return value if mapped else value.clone()


def digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """blake2b of 32 bytes, in hex, of a text and of each tensor's name, dtype, shape and bytes, in order of names."""
    state = hashlib.blake2b(text.encode(), digest_size=32)
    for name in sorted(tensors):
        state.update(f"\n{name} {dtype_name(name, tensors[name])} {list(tensors[name].shape)}\n".encode())
        state.update(raw(tensors[name]))
    return state.hexdigest()


def fingerprint(tensor: Tensor) -> bytes:
    """blake2b of 32 bytes of a tensor's elements: equal where they are equal bit for bit."""
    return hashlib.blake2b(raw(tensor), digest_size=32).digest()


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a tensor's elements in row-major order, without a copy where they lie so on the CPU."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().data


def dtype_name(name: str, tensor: Tensor) -> str:
    """What the format calls a tensor's dtype. Raises TypeError for dtypes and layouts that it does not know."""
    if tensor.dtype not in DTYPES or tensor.layout is not torch.strided:
        raise TypeError(
            f"tensor {name!r} is {tensor.dtype} ({tensor.layout}), which safetensors files do not hold; "
            f"convert it to one of {', '.join(str(dtype).removeprefix('torch.') for dtype in DTYPES)}"
        )
    return DTYPES[tensor.dtype]


def header(tensors: Sequence[tuple[str, Tensor]], texts: Mapping[str, str]) -> bytes:
    """The bytes before the tensors: the header, padded, and its length; shapes and dtypes are all that is looked at."""
    entries: dict[str, Any] = {"__metadata__": dict(texts)}
    start = 0
    for name, tensor in tensors:
        stop = start + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": dtype_name(name, tensor), "shape": list(tensor.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    if len(text) > LONGEST:
        raise ValueError(f"the header would take {len(text)} bytes and no reader takes more than {LONGEST}")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _reason(path: str | os.PathLike[str], problem: str) -> str:
    """Why the library could not read a file, in words that help."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        header = file.read(length) if 0 < length <= min(LONGEST, size) else b""
    if size == 0:
        return "the file is empty. Write it again, or take another copy"
    if start.startswith((b"PK\x03\x04", b"\x80\x02\x8a")):
        return "this is a torch file, not a safetensors file. If it is a checkpoint, give it to `read_checkpoint`"
    wanted = _wanted(header)
    if wanted is None:
        return f"this is not a safetensors file, or one cut off within its header ({problem}). Take another copy"
    if wanted != size:
        what = "cut off" if size < wanted else "longer than it should be"
        return f"the file is {what}: its header speaks of {wanted} bytes, and it has {size}. Take another copy"
    return f"the header is malformed ({problem}). Take another copy"


def _wanted(header: bytes) -> int | None:
    """How long a file with this header should be; None where the header cannot be read."""
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        return 8 + len(header) + max(ends, default=0)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
