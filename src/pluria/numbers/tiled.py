"""The Triton code behind `gpu.py`. Importing this module imports Triton, on the first tensor on a GPU.

Bits are the contract: Philox on 32-bit words, division that rounds correctly, no fused multiply-add (an option of the
launch), 16-bit floats read and written as patterns of bits. Places of elements are int64; inside a tile they are int32.
What is passed as int32 may stand for a 32-bit word: Triton would type it by its value and compile for each type.
"""

import triton
import triton.language as tl


@triton.jit
def unsigned(value):
    """The 32-bit word of an int32."""
    return value.to(tl.uint32, bitcast=True)


@triton.jit
def philox(quad, k0, k1, tensor, group, stream):
    """Four words for each counter (quad, tensor, group, stream), all uint32 and broadcast together."""
    M0: tl.constexpr = 0xD2511F53
    M1: tl.constexpr = 0xCD9E8D57
    W0: tl.constexpr = 0x9E3779B9
    W1: tl.constexpr = 0xBB67AE85
    c0, c1, c2, c3 = quad, tensor, group, stream
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, M0), c0 * M0
        high1, low1 = tl.umulhi(c2, M1), c2 * M1
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + W0, k1 + W1
    return c0, c1, c2, c3


@triton.jit
def words(quad, k0, k1, tensor, group, stream):
    """Words of four times as many elements along the last axis: those of quad q are 4 q to 4 q + 3."""
    c0, c1, c2, c3 = philox(quad, k0, k1, tensor, group, stream)
    return tl.interleave(tl.interleave(c0, c2), tl.interleave(c1, c3))


@triton.jit
def words_at(element, k0, k1, tensor, group, stream):
    """Words of single elements (int64), one Philox call for each: where rows do not start on whole quads."""
    c0, c1, c2, c3 = philox((element // 4).to(tl.uint32), k0, k1, tensor, group, stream)
    turn = element % 4
    return tl.where(turn == 0, c0, tl.where(turn == 1, c1, tl.where(turn == 2, c2, c3)))


@triton.jit
def uniforms(word, mask):
    """24-bit uniforms of words, after the coupling's mask."""
    return ((word >> 8) ^ mask).to(tl.int32).to(tl.float32) * (2.0**-24)


@triton.jit
def lower(value, scale, zero, span):
    """Lower neighbour and distance to it, on the whole numbers -zero..span-zero."""
    v = tl.div_rn(value, scale)
    v = tl.minimum(tl.maximum(v, -zero), span - zero)
    # Not tl.floor, which takes subnormal numbers for zero on a GPU; whole numbers of these grids fit into an int32.
    low = v.to(tl.int32).to(tl.float32)
    low = tl.where(low > v, low - 1.0, low)
    return low, v - low


@triton.jit
def read(pointer, mask, PATTERN: tl.constexpr):
    """float32 values, of bfloat16 patterns or of numbers as they are; zero where the mask is off."""
    if PATTERN:
        value = (tl.load(pointer, mask=mask, other=0).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    else:
        value = tl.load(pointer, mask=mask, other=0.0).to(tl.float32)
    return value


@triton.jit
def write(pointer, value, mask, PATTERN: tl.constexpr):
    """Store float32 values; bfloat16 patterns are the nearest, ties to even."""
    if PATTERN:
        bits = value.to(tl.uint32, bitcast=True)
        nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        nan = (bits & 0x7FFFFFFF) > 0x7F800000
        tl.store(pointer, tl.where(nan, 0x7FC0, nearest).to(tl.int16), mask=mask)
    else:
        tl.store(pointer, value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def scale_place(
    first, offset, size, groups, outer, channels, inner, ALONE: tl.constexpr, RUNS: tl.constexpr, SMALL: tl.constexpr
):
    """Where the scales of the elements first + offset stand.

    ALONE: there is one. RUNS: rows, and groups, lie end to end. SMALL: the size of groups below a block, else 0.
    """
    if ALONE:
        at = offset * 0
    elif RUNS:
        # One division in 64 bits for a whole block; a block meets the end of at most one large group.
        if SMALL > 0:
            at = first // SMALL + ((first % SMALL).to(tl.int32) + offset) // SMALL
        else:
            at = first // size + ((first % size).to(tl.int32) + offset >= size).to(tl.int32)
    else:
        flat = first + offset
        j, flat = flat % inner, flat // inner
        c, flat = flat % channels, flat // channels
        row, column = flat // outer * channels + c, flat % outer * inner + j
        at = row * groups + column // size
    return at


@triton.jit(do_not_specialize=["k0", "k1", "tensor", "group", "stream", "mask"])
def round_block(
    target, source, scale, zero, span, count, size, groups, outer, channels, inner,
    k0, k1, tensor, group, stream, mask,
    ALONE: tl.constexpr, RUNS: tl.constexpr, SMALL: tl.constexpr,
    READ: tl.constexpr, WRITE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Round one block of elements of `source` into `target`, which may be the same memory."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    offset = tl.arange(0, BLOCK)
    inside = first + offset < count
    at = scale_place(first, offset, size, groups, outer, channels, inner, ALONE, RUNS, SMALL)
    s, z = tl.load(scale + at, mask=inside, other=1.0), tl.load(zero + at, mask=inside, other=0.0)
    low, fraction = lower(read(source + first + offset, inside, READ), s, z, span)
    quad = (first // 4 + tl.arange(0, BLOCK // 4)).to(tl.uint32)
    word = words(quad, unsigned(k0), unsigned(k1), unsigned(tensor), unsigned(group), unsigned(stream))
    up = uniforms(word, unsigned(mask)) < fraction
    # Adding the step, even if zero, turns -0.0 into 0.0.
    write(target + first + offset, (low + tl.where(up, 1.0, 0.0)) * s, inside, WRITE)
