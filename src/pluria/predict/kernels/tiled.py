"""The Triton code behind `product.py`. Importing this module imports Triton.

    for each group:  for each part of its inputs:  floor [OUTS, INS], bits [M, OUTS, INS], product;  times its scale

One program holds a tile of examples, a tile of outputs and up to eight members. The floor is read once for all of them,
and a byte holds the bits of eight. Where members share their inputs, floor @ x is one product for all of them; where
they do not, floor + bits meets each member's own rows.
"""

import triton
import triton.language as tl

from pluria.numbers.tiled import lower, read, uniforms, unsigned, words, words_at, write


@triton.jit
def place(row, column, width):
    """Where elements of a matrix lie, int64 `[rows, columns]`: a matrix may hold more than 2^31 elements."""
    return row.to(tl.int64)[:, None] * width + column[None, :]


@triton.jit
def stored_tile(floor, planes, zero, element, known, M: tl.constexpr):
    """Lower integers `[OUTS, INS]` and the bits `[M, OUTS, INS]` of the members whose byte `planes` points to."""
    low = tl.load(floor + element, mask=known, other=0).to(tl.float32) - zero[:, None]
    byte = tl.load(planes + element, mask=known, other=0).to(tl.int32)
    return low, (byte[None] >> tl.arange(0, M)[:, None, None]) & 1


@triton.jit
def drawn_tile(
    base, scale, zero, span, element, first, known, address,
    COMMON: tl.constexpr, ALIGNED: tl.constexpr, READ: tl.constexpr, INS: tl.constexpr,
):  # fmt: skip
    """The same from the base: the words of members lie at their addresses; with COMMON all have the same words.

    `first` are the tile's first elements; where rows and groups start on whole quads (ALIGNED), four share a call.
    """
    k0, k1, tensor, stream, group, mask = address
    low, fraction = lower(read(base + element, known, READ), scale[:, None], zero[:, None], span)
    if not COMMON:
        group = group[:, None, None]
    if ALIGNED:
        quad = (first[:, None] // 4 + tl.arange(0, INS // 4)[None, :]).to(tl.uint32)
        word = words(quad if COMMON else quad[None], k0, k1, tensor, group, stream)
    else:
        word = words_at(element if COMMON else element[None], k0, k1, tensor, group, stream)
    if COMMON:
        word = word[None]
    up = uniforms(word, mask[:, None, None]) < fraction[None]
    return low, up.to(tl.int32)


@triton.jit
def inputs_tile(x, at, known, READ: tl.constexpr, DOT: tl.constexpr):
    """Inputs in the type of the product, zero where the mask is off."""
    if tl.bfloat16 == DOT:
        value = tl.load(x + at, mask=known, other=0).to(tl.bfloat16, bitcast=True)
    else:
        value = read(x + at, known, READ).to(DOT)
    return value


@triton.jit
def group_sum(
    x, weight, byte, s, z, span, row, out, member, first, members, rows, outputs, inputs, size, start, x_member,
    address, STORED: tl.constexpr, SHARED: tl.constexpr, COMMON: tl.constexpr, ALIGNED: tl.constexpr,
    READ_X: tl.constexpr, READ_WEIGHT: tl.constexpr, DOT: tl.constexpr,
    M: tl.constexpr, ROWS: tl.constexpr, OUTS: tl.constexpr, INS: tl.constexpr,
):  # fmt: skip
    """Sums `[ROWS, M, OUTS]` over the inputs start..start+size-1 of integers times inputs, not scaled."""
    floor_sum, bit_sum = tl.zeros((ROWS, OUTS), tl.float32), tl.zeros((ROWS, M * OUTS), tl.float32)
    own_sum = tl.zeros((M, ROWS, OUTS), tl.float32)
    for part in range(0, size, INS):
        j = part + tl.arange(0, INS)
        element, known = place(out, start + j, inputs), (out < outputs)[:, None] & (j < size)[None, :]
        if STORED:
            low, bits = stored_tile(weight, byte, z, element, known, M)
        else:
            at = first + start + part
            low, bits = drawn_tile(
                weight, s, z, span, element, at, known, address, COMMON, ALIGNED, READ_WEIGHT, INS
            )  # fmt: skip
        at, known = place(row, start + j, inputs), (row < rows)[:, None] & (j < size)[None, :]
        if SHARED:
            values = inputs_tile(x, at, known, READ_X, DOT)
            flat = tl.reshape(bits.to(tl.float32).to(DOT), (M * OUTS, INS))
            floor_sum = tl.dot(values, tl.trans(low.to(DOT)), floor_sum, input_precision="ieee")
            bit_sum = tl.dot(values, tl.trans(flat), bit_sum, input_precision="ieee")
        else:
            own = member.to(tl.int64)[:, None, None] * x_member + at[None]
            values = inputs_tile(x, own, (member < members)[:, None, None] & known[None], READ_X, DOT)
            integers = (low[None] + bits.to(tl.float32)).to(DOT)
            own_sum = tl.dot(values, tl.permute(integers, (0, 2, 1)), own_sum, input_precision="ieee")
    shared_sum = tl.reshape(bit_sum, (ROWS, M, OUTS)) + floor_sum[:, None, :]
    return shared_sum if SHARED else tl.permute(own_sum, (1, 0, 2))


@triton.jit(do_not_specialize=["k0", "k1", "tensor", "stream"])
def multiply(
    y, x, bias, weight, planes, scale, zero, span, groups_of, masks, k0, k1, tensor, stream,
    members, rows, outputs, inputs, size, groups, x_member, bias_member,
    STORED: tl.constexpr, SHARED: tl.constexpr, BIAS: tl.constexpr, COMMON: tl.constexpr, ALIGNED: tl.constexpr,
    READ_X: tl.constexpr, READ_WEIGHT: tl.constexpr, READ_BIAS: tl.constexpr, DOT: tl.constexpr,
    M: tl.constexpr, ROWS: tl.constexpr, OUTS: tl.constexpr, INS: tl.constexpr,
):  # fmt: skip
    """One tile of y[m, n, o] = sum_g scale[o, g] sum_{d in g} integer_m[o, d] x[m, n, d] + bias[m, o]."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    out = tl.program_id(1) * OUTS + tl.arange(0, OUTS)
    member = tl.program_id(2) * M + tl.arange(0, M)
    first = out.to(tl.int64) * inputs
    byte = planes + (tl.program_id(2) * M // 8).to(tl.int64) * outputs * inputs
    if STORED:
        address = (0, 0, 0, 0, 0, 0)
    else:
        own = 0 if COMMON else member
        group = unsigned(tl.load(groups_of + own, mask=own < members, other=0))
        mask = unsigned(tl.load(masks + member, mask=member < members, other=0))
        address = (unsigned(k0), unsigned(k1), unsigned(tensor), unsigned(stream), group, mask)
    total = tl.zeros((ROWS, M, OUTS), tl.float32)
    for g in range(groups):
        s = tl.load(scale + out.to(tl.int64) * groups + g, mask=out < outputs, other=1.0)
        z = tl.load(zero + out.to(tl.int64) * groups + g, mask=out < outputs, other=0.0)
        total += s[None, None, :] * group_sum(
            x, weight, byte, s, z, span, row, out, member, first, members, rows, outputs, inputs, size, g * size,
            x_member, address, STORED, SHARED, COMMON, ALIGNED, READ_X, READ_WEIGHT, DOT, M, ROWS, OUTS, INS,
        )  # fmt: skip
    if BIAS:
        at, known = member[:, None] * bias_member + out[None, :], (member < members)[:, None] & (out < outputs)[None, :]
        total += read(bias + at, known, READ_BIAS)[None]
    line = member.to(tl.int64)[None, :] * rows + row[:, None]
    known = (row < rows)[:, None, None] & (member < members)[None, :, None] & (out < outputs)[None, None, :]
    write(y + line[:, :, None] * outputs + out[None, None, :], total, known, READ_X)
