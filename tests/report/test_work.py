"""Budgets of networks that differ in size."""

from __future__ import annotations

from typing import Any

from pluria.report.work import amounts, memory, several, spent, unit


def _arm(name: str, figures: dict[str, Any]) -> dict[str, Any]:
    return next(arm for arm in figures["arms"] if arm["name"] == name)


def test_one_network_counts_forwards_and_bits(figures: dict[str, Any]) -> None:
    main = _arm(figures["main"], figures)
    assert not several(figures)
    assert spent(main, figures) == [1.0, 2.0, 4.0]
    assert memory(main, "planes", figures) == main["cost"]["bits_planes"] / main["cost"]["parameters"]


def test_members_of_one_network_come_before_those_of_the_next(several: dict[str, Any]) -> None:
    narrow, wide = (_arm(f"full precision of {name}", several)["cost"]["flops"] for name in ("narrow", "wide"))
    together = _arm("INT-4 compensated × 2 of narrow + wide", several)
    assert spent(together, several) == [narrow, 2 * narrow, 2 * narrow + 2 * wide]
    assert spent(together, several)[-1] == together["cost"]["flops"]
    assert memory(together, "file", several) == together["cost"]["bits_file"] / 8


def test_units() -> None:
    assert unit([999.0], "B") == (1.0, "B")
    assert unit([5.0, 1000.0], "B") == (1e3, "kB")
    assert amounts([5e8, 2.5e9], "FLOPs") == ("0.500 → 2.50", "GFLOPs")
