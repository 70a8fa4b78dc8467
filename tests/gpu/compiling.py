"""Compile the kernels for GPUs that are not there, and print what the machine code holds, as JSON.

    python compiling.py 90 80

The first GPU gets more variants than the others. The interpreter runs kernels as Python, so it takes what a compiler
would refuse. This is the compiler, as far as an assembled binary.
"""

import json
import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pluria.numbers import tiled
from pluria.predict.kernels import tiled as product
from pluria.predict.kernels.product import Tiles

TILES = Tiles()
POINTERS = {"target": "*i16", "source": "*i16", "y": "*i16", "x": "*i16", "bias": "*fp32", "planes": "*u8"}
LONG = {"count", "size", "groups", "outer", "channels", "inner"}


def kinds(function: Any, constants: dict[str, Any], weight: str) -> dict[str, str]:
    """The signature: a type for each argument."""
    found = {}
    for name in function.arg_names:
        known = {**POINTERS, "weight": weight, "span": "fp32"}
        if name in constants:
            found[name] = "constexpr"
        elif name in ("scale", "zero"):
            found[name] = "*fp32"
        elif name in ("groups_of", "masks"):
            found[name] = "*i32"
        else:
            found[name] = known.get(name, "i64" if function is tiled.round_block and name in LONG else "i32")
    return found


def compiled(function: Any, constants: dict[str, Any], capability: int, weight: str = "*i16") -> dict[str, Any]:
    """What the assembly for one GPU holds."""
    signature = kinds(function, constants, weight)
    at = {(function.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(function, signature, at)
    made = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"enable_fp_fusion": False, "num_warps": TILES.warps}
    )
    text = made.asm["ptx"]
    counted = {word: text.count(word) for word in ("div.rn.f32", "div.full", "div.approx", ".ftz", "fma.rn", "mma")}
    return {**counted, "bytes": len(made.asm["cubin"]), "shared": made.metadata.shared}


def main() -> None:
    """One line of JSON: each variant of each kernel to what it holds."""
    found = {}
    for number, capability in enumerate(map(int, sys.argv[1:])):
        for runs, small in ((True, 0), (True, 64), (False, 0))[2 * number :]:
            constants = {"ALONE": False, "RUNS": runs, "SMALL": small, "READ": True, "WRITE": True, "BLOCK": 1024}
            found[f"round {capability} {runs} {small}"] = compiled(tiled.round_block, constants, capability)
        for stored, shared in ((True, True), (False, True), (True, False))[2 * number :]:
            sizes = {"M": 8, "ROWS": TILES.rows, "OUTS": TILES.outputs, "INS": TILES.inputs}
            flags = {"STORED": stored, "SHARED": shared, "BIAS": True, "COMMON": True, "ALIGNED": True}
            reads = {"READ_X": True, "READ_WEIGHT": True, "READ_BIAS": False, "DOT": product.tl.bfloat16}
            name = f"multiply {capability} {'stored' if stored else 'drawn'} {'shared' if shared else 'each'}"
            weight = "*u8" if stored else "*i16"
            found[name] = compiled(product.multiply, {**flags, **reads, **sizes}, capability, weight)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
