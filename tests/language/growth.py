"""By how many bytes a fresh process grows while it scores a text: python growth.py WORK..., of streamed, held.

Four members, 1,024 tokens, 8,192 words: all their words at once are 134 MB, those of one block of 64 tokens 2 MB.
"""

import sys
import threading
import time
from pathlib import Path

import torch
import transformers

import pluria
from pluria.language import averages, windows
from pluria.predict import predict

STATM = Path("/proc/self/statm")
WORDS, TOKENS, MEMBERS, BLOCK = 8192, 1024, 4, 64


def size() -> int:
    """Bytes the process holds."""
    return int(STATM.read_text().split()[1]) * 4096


def main(what: str) -> int:
    torch.set_num_threads(1)
    config = transformers.LlamaConfig(
        vocab_size=WORDS,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=TOKENS,
    )
    model = transformers.LlamaForCausalLM(config)
    members = pluria.low_precision(model, members=MEMBERS)
    tokens = torch.randint(WORDS, (TOKENS,), generator=torch.Generator().manual_seed(0))
    slid = windows(tokens, context=TOKENS)
    for _ in averages(model, members, [(slid.tokens[:, :80], slid.targets[:, :80])], block=BLOCK):
        pass
    peak, before, done = [0], size(), threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], size())
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    if what == "held":
        held = [block.outputs for block in predict(model, members, [{"input_ids": slid.tokens}])]
        assert len(held) == MEMBERS
    else:
        count = sum(
            len(found.targets) for _, found in averages(model, members, [(slid.tokens, slid.targets)], block=BLOCK)
        )
        assert count == TOKENS - 1
    done.set()
    watcher.join()
    return peak[0] - before


if __name__ == "__main__":
    print(*map(main, sys.argv[1:]))
