"""A small language model in the llama2.c format (version 0) as a Hugging Face folder, with its tokenizer.

    python experiments/language/convert.py data/stories260k --out out/stories260k

The checkpoint: seven int32 (width, hidden width, layers, heads, key-value heads, words, context; words below zero: a
head of its own), then float32: embedding | norms of attention | query | key | value | output | norms of the MLP |
gate | down | up | last norm | cosines | sines | head, each for all layers at once. The tokenizer: int32 longest token,
then for each token a float32 score, an int32 length and its bytes.
"""

from __future__ import annotations

import argparse
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, processors

Array = NDArray[np.float32]
NAMES = ("width", "hidden", "layers", "heads", "key_values", "words", "context")


@dataclass(frozen=True)
class Checkpoint:
    """Sizes and arrays of a file."""

    sizes: dict[str, int]
    arrays: dict[str, Array]


def read(path: Path) -> Checkpoint:
    """All of a checkpoint; ValueError where its length is not what its sizes say."""
    raw = path.read_bytes()
    sizes = dict(zip(NAMES, struct.unpack("7i", raw[:28]), strict=True))
    own, sizes["words"] = sizes["words"] < 0, abs(sizes["words"])
    d, h, n, v = sizes["width"], sizes["hidden"], sizes["layers"], sizes["words"]
    part = d // sizes["heads"]
    narrow = part * sizes["key_values"]
    shapes: dict[str, tuple[int, ...]] = {
        "embedding": (v, d),
        "attention_norm": (n, d),
        "query": (n, d, d),
        "key": (n, narrow, d),
        "value": (n, narrow, d),
        "output": (n, d, d),
        "mlp_norm": (n, d),
        "gate": (n, h, d),
        "down": (n, d, h),
        "up": (n, h, d),
        "norm": (d,),
        "cosines": (sizes["context"], part // 2),
        "sines": (sizes["context"], part // 2),
        **({"head": (v, d)} if own else {}),
    }
    counts = [int(np.prod(shape)) for shape in shapes.values()]
    if len(raw) != 28 + 4 * sum(counts):
        raise ValueError(
            f"{path}: {sum(counts)} numbers are expected after the sizes {sizes}; {len(raw)} bytes are there"
        )
    flat, arrays, at = np.frombuffer(raw[28:], dtype="<f4"), {}, 0
    for (name, shape), count in zip(shapes.items(), counts, strict=True):
        arrays[name], at = flat[at : at + count].reshape(shape), at + count
    return Checkpoint(sizes, arrays)


def network(found: Checkpoint) -> transformers.LlamaForCausalLM:
    """The same network as transformers has it."""
    s, arrays = found.sizes, found.arrays
    config = transformers.LlamaConfig(
        vocab_size=s["words"],
        hidden_size=s["width"],
        intermediate_size=s["hidden"],
        num_hidden_layers=s["layers"],
        num_attention_heads=s["heads"],
        num_key_value_heads=s["key_values"],
        max_position_embeddings=s["context"],
        rms_norm_eps=1e-5,
        tie_word_embeddings="head" not in arrays,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    state = {"model.embed_tokens.weight": arrays["embedding"], "model.norm.weight": arrays["norm"]}
    state["lm_head.weight"] = arrays.get("head", arrays["embedding"])
    for i in range(s["layers"]):
        layer = {
            "input_layernorm": arrays["attention_norm"][i],
            "self_attn.q_proj": _halves(arrays["query"][i], s["heads"]),
            "self_attn.k_proj": _halves(arrays["key"][i], s["key_values"]),
            "self_attn.v_proj": arrays["value"][i],
            "self_attn.o_proj": arrays["output"][i],
            "post_attention_layernorm": arrays["mlp_norm"][i],
            "mlp.gate_proj": arrays["gate"][i],
            "mlp.down_proj": arrays["down"][i],
            "mlp.up_proj": arrays["up"][i],
        }
        state |= {f"model.layers.{i}.{name}.weight": value for name, value in layer.items()}
    model.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    return model


def _halves(weight: Array, heads: int) -> Array:
    """Rows of each head as transformers turns them: first and second halves in place of neighbours."""
    rows, width = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def read_tokens(path: Path, words: int) -> tuple[list[bytes], list[float]]:
    """The tokens of a tokenizer and their scores."""
    raw, at, tokens, scores = path.read_bytes(), 4, [], []
    for _ in range(words):
        score, length = struct.unpack_from("<fi", raw, at)
        tokens.append(raw[at + 8 : at + 8 + length])
        scores.append(score)
        at += 8 + length
    return tokens, scores


def tokenizer(tokens: list[bytes], scores: list[float]) -> Any:
    """The same tokenizer as transformers has it: pairs of pieces are merged, the best score first; unknown letters
    are spelled in bytes; a space stands before every text and the first token is <s>."""
    pieces = [token.decode().strip("\n") if i in (1, 2) else token.decode() for i, token in enumerate(tokens)]
    known = {piece: i for i, piece in enumerate(pieces)}
    merges = [
        (left, right)
        for i in sorted(range(259, len(pieces)), key=lambda i: (-scores[i], i))
        for cut in range(1, len(pieces[i]))
        if (left := pieces[i][:cut]) in known and (right := pieces[i][cut:]) in known
    ]
    made = Tokenizer(models.BPE(vocab=known, merges=merges, unk_token="<unk>", byte_fallback=True))
    made.normalizer = normalizers.Prepend(" ")
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False, **special)


def convert(folder: Path, out: Path) -> None:
    """Write the Hugging Face folder of `folder`, which holds stories260K.bin and tok512.bin."""
    found = read(folder / "stories260K.bin")
    network(found).save_pretrained(out)
    tokenizer(*read_tokens(folder / "tok512.bin", found.sizes["words"])).save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/stories260k"))
    given = parser.parse_args()
    convert(given.folder, given.out)
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
