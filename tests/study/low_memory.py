"""What a process of its own takes at most: python low_memory.py make | load | draw | export FOLDER.

Counted is anonymous memory, which the system cannot take back. Pages of files that are mapped are not: they can be
forgotten and read again, so they need no room on a machine that has none.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import pluria
from pluria.core.ensemble import single
from pluria.predict import gather, predict
from pluria.recipe.parts import Network
from pluria.recipe.resolve import load_network
from pluria.store.outline import outline_in
from pluria.store.tensors import write_made

TEXT = [{"input_ids": torch.arange(16).reshape(1, 16)}]
FORMAT = "int4"


def make(folder: Path, hidden: int, inner: int, layers: int, words: int) -> None:
    """A Llama of random numbers in bfloat16, in shards of a layer each."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 512), vocab_size=words, tie_word_embeddings=False, dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    with torch.device("meta"):
        held = LlamaForCausalLM(config).to(torch.bfloat16).state_dict()
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    shards: dict[str, list[str]] = {}
    for name in held:
        shards.setdefault(f"model-{name.split('.')[2] if '.layers.' in name else 'rest'}.safetensors", []).append(name)
    for file, names in shards.items():
        write_made(
            folder / file, {name: held[name] for name in names}, lambda name: _random(held[name]), {"format": "pt"}
        )
    places = {name: file for file, names in shards.items() for name in names}
    total = sum(value.numel() * value.element_size() for value in held.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _random(like: torch.Tensor) -> torch.Tensor:
    value = torch.empty(like.shape, dtype=like.dtype)
    return value.fill_(1) if value.ndim == 1 else value.normal_(0, 0.02)


def load(folder: Path) -> None:
    """The network, as a recipe and the command line load it."""
    load_network(Network(model=str(folder)))


def draw(folder: Path) -> None:
    """Members written into the working copy, and run."""
    model, _ = load_network(Network(model=str(folder)))
    ensemble = pluria.low_precision(model, format=FORMAT, members=2, copy=False)
    outputs, _ = gather(predict(model, ensemble, TEXT))
    assert not torch.equal(outputs[0], outputs[1])


def export(folder: Path) -> None:
    """One member, as a folder like its source."""
    base = single(pluria.read_checkpoint(folder, mapped=True).params)
    ensemble = pluria.low_precision(base, format=FORMAT, members=2)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        pluria.export_folder(ensemble, 1, Path(place) / "member", source=folder)


def anonymous() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))


def peak(work: Callable[[], Any]) -> int:
    """Bytes beyond what the process held before."""
    before, most, done = anonymous(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.002):
            most = max(most, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return max(most, anonymous()) - before


def main(what: str, folder: Path) -> None:
    torch.set_num_threads(1)
    if what == "make":
        return make(folder, 2048, 5632, 22, 32000)
    works = {"load": load, "draw": draw, "export": export}
    with tempfile.TemporaryDirectory() as small:  # what is loaded and compiled at the first call
        make(Path(small) / "net", 64, 64, 1, 32)
        works[what](Path(small) / "net")
    found = peak(lambda: works[what](folder))
    values = [value for part in outline_in(folder).values() for value in part.values()]
    sizes = [value.numel() * value.element_size() for value in values]
    print(json.dumps({"model": sum(sizes), "layer": max(sizes), "peak": found}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
