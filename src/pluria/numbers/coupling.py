"""Couplings of the members' uniforms: an address and a mask, u_d = word(group(d)) xor mask(d).

    independent   group d       mask 0                   the uniforms of members are independent
    antithetic    group d // 2  mask 0 or all ones       pairs u, 1 - u
    stratified    group 0       mask bit-reversed d      the first 2^j members: one uniform in each of 2^j strata

An XOR with a constant maps the uniform law on 24 bits to itself, so each member keeps exactly its law.
Error of the mean of K members, in units of s^2: 1/(6K) independent, 1/(6K^2) stratified at K = 2^j.
The stratified coupling is a van der Corput sequence with a random digital shift per weight.
"""

from __future__ import annotations

from typing import Literal, get_args

Coupling = Literal["independent", "antithetic", "stratified"]
COUPLINGS: tuple[Coupling, ...] = get_args(Coupling)
BITS = 24
ONES = 2**BITS - 1


def address(coupling: Coupling, draw: int) -> tuple[int, int]:
    """Group and 24-bit mask of draw number `draw`.

    >>> [address("stratified", d)[1] / 2**24 for d in range(4)]
    [0.0, 0.5, 0.25, 0.75]
    >>> address("antithetic", 5)
    (2, 16777215)
    """
    if not 0 <= draw < 2**BITS:
        raise ValueError(f"draws are numbered 0..2^24-1; got {draw}")
    if coupling == "independent":
        return draw, 0
    if coupling == "antithetic":
        return draw // 2, ONES * (draw % 2)
    if coupling == "stratified":
        return 0, int(f"{draw:024b}"[::-1], 2)
    raise ValueError(f"a coupling is one of {', '.join(COUPLINGS)}; got {coupling!r}")
