"""The loop of every leafwise merge: pieces, threads, rounding, and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pluria
from pluria.core.ensemble import Ensemble, stack
from pluria.core.errors import CheckpointError
from pluria.core.params import Params
from pluria.merge import Pass, Piece, Rule, breadcrumbs, dare, leafwise, linear, pieces, sce, task_arithmetic, ties
from pluria.merge.pieces import Leaf, longest
from pluria.numbers import compiled, kernel, members
from pluria.numbers.narrow import narrowed


def params(seed: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = {"big": (400, 1000), "row": (1, 3000), "small": (7,), "scalar": (), "none": (0, 4)}
    return {name: (torch.randn(shape, generator=draw) * scale).to(dtype) for name, shape in shapes.items()}


def by_length(scope: Any = "tensor", pieces: Any = "block") -> Rule:
    """Members by their share of the squared length: a float statistic, whose sum depends on its order."""

    def squares(piece: Piece, _: Any) -> Tensor:
        return piece.values.square().sum(1)

    def mix(piece: Piece, share: Tensor) -> Tensor:
        return (piece.values * share.to(piece.values.dtype)[:, None]).sum(0)

    return Rule(mix, (Pass(squares, lambda total, _: total / total.sum()),), scope=scope, pieces=pieces)


def equal(one: Params, other: Params) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("scope", ["tensor", "model"])
@pytest.mark.parametrize("pieces", ["block", "row", "tensor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_and_chunks_change_no_bit(
    scope: str, pieces: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pluria.merge.pieces.BLOCK", 1000)
    ensemble = stack([params(seed, dtype) for seed in range(3)])
    made = leafwise(ensemble, by_length(scope, pieces))
    assert equal(made, leafwise(ensemble, by_length(scope, pieces), threads=3, chunk=7))
    assert equal(made, leafwise(ensemble, by_length(scope, pieces), threads=2, chunk=1))
    assert not equal(made, leafwise(ensemble, linear()))


@pytest.mark.parametrize(("room", "reads"), [(2**26, 1), (0, 4)])
def test_a_tensor_that_fits_is_read_once_for_all_passes(room: int, reads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three passes and the merge itself, of two tensors one after the other; else each reads anew, to the same bits."""
    several = [params(seed, torch.bfloat16) for seed in range(4)]
    several = [one | {"more": one["big"][3:] * 2} for one in several]
    rule = ties(density=0.3, spec="mergekit")
    wanted = leafwise(stack(several[1:]), rule, base=several[0])
    places: list[tuple[str, int]] = []
    fill = pieces._fill

    def counted(source: pieces.Source, span: pieces.Span, row: Tensor) -> None:
        places.append((span.leaf.name, span.start))
        fill(source, span, row)

    monkeypatch.setattr(pieces, "_fill", counted)
    monkeypatch.setattr(pieces, "HELD", room)
    assert equal(leafwise(stack(several[1:]), rule, base=several[0], threads=2), wanted)
    for name in ("big", "more"):
        starts = Counter(start for each, start in places if each == name)
        assert len(starts) > 2
        assert set(starts.values()) == {4 * reads}
    assert Counter(name for name, _ in places)["small"] > 4


def test_the_whole_model_is_measured_in_one_arithmetic() -> None:
    """Of 16 bits in part: as of the same numbers in float64, rounded once."""
    several = [params(seed, torch.bfloat16) for seed in range(3)]
    several = [each | {"row": each["row"].float() * 1.01} for each in several]
    wide = [{name: value.double() for name, value in each.items()} for each in several]
    made = leafwise(stack(several[1:]), ties(density=0.3), base=several[0])
    wanted = leafwise(stack(wide[1:]), ties(density=0.3), base=wide[0])
    assert equal(made, {name: narrowed(value, made[name].dtype) for name, value in wanted.items()})


RULES = {
    "linear": linear(),
    "paper": ties(density=0.3),
    **{spec: ties(density=0.3, spec=spec, scale=0.7) for spec in ("mergekit", "peft", "sd-mecha")},  # type: ignore[arg-type]
    "each": ties(density=[0.1, 0.5, 1.0], spec="mergekit"),
    "task": task_arithmetic(scale=[0.3, -0.2, 0.0]),
    "dare": dare(key=3, elect=True),
    "breadcrumbs": breadcrumbs(),
    "sce": sce(select=0.4),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("dtype", "second"), [(torch.float16, 1.0), (torch.bfloat16, 1.0), (torch.bfloat16, 0.0)])
def test_compiled_loops_change_no_bit(
    name: str, dtype: torch.dtype, second: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = torch.tensor([3.0, second, 2.0])
    ensemble = stack([params(seed, dtype) for seed in range(3)]).reweight(weights)
    base = params(7, dtype)
    made = leafwise(ensemble, RULES[name], base=base)
    assert compiled.__name__ == members.LOADED
    monkeypatch.setattr(kernel, "available", lambda device: False)
    plain = leafwise(ensemble, RULES[name], base=base)
    assert equal(made, plain)
    assert all(torch.equal(made[each].signbit(), plain[each].signbit()) for each in made)


def test_pieces_cover_a_tensor_once_in_whole_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pluria.merge.pieces.BLOCK", 2500)
    seen: dict[str, list[tuple[int, int, int]]] = {}

    def note(piece: Piece, _: Any) -> Tensor:
        seen.setdefault(piece.name, []).append((piece.number, piece.start, len(piece.values[0])))
        return piece.values[0]

    leafwise(stack([params(0)]), Rule(note, pieces="row"))
    assert seen["big"] == [(i, 2000 * i, 2000) for i in range(200)]
    assert seen["row"] == [(0, 0, 3000)]
    assert seen["scalar"] == [(0, 0, 1)]
    assert "none" not in seen


def test_the_longest_piece() -> None:
    kinds = torch.float32, torch.float32
    leaf = Leaf("w", torch.Size((10, 70)), *kinds, Rule(lambda p, s: p.values[0], pieces="tensor"), torch.ones(1))
    assert longest(leaf) == 700


def test_sixteen_bits_are_rounded_once_from_float32() -> None:
    several = [params(seed, torch.bfloat16) for seed in range(3)]
    made = leafwise(stack(several), linear())
    wide = sum(each["big"].double() for each in several) / 3
    half = torch.finfo(torch.bfloat16).eps * wide.abs() / 2
    # Where members cancel, float32 has an error of its own.
    assert bool(((made["big"].double() - wide).abs() <= half + 1e-6).all())
    assert made["big"].dtype == torch.bfloat16
    assert leafwise(stack(several), linear(), dtype=torch.float32)["big"].dtype == torch.float32


def test_passes_see_what_came_before_and_may_be_left_out() -> None:
    order: list[str] = []

    def step(name: str, needed: bool = True) -> Pass:
        def measure(piece: Piece, earlier: Any) -> Tensor:
            order.append(f"{name}<{earlier}")
            return torch.tensor([piece.number + 1])

        return Pass(measure, lambda total, earlier: f"{name}{int(total.sum())}", lambda found: needed)

    leafwise(
        stack([{"w": torch.ones(3)}]),
        Rule(lambda piece, found: piece.values[0] if found == "c1" else None, (step("a"), step("b", False), step("c"))),  # type: ignore[arg-type,return-value]
    )
    assert order == ["a<None", "c<a1"]


def test_stacked_statistics_have_a_row_for_each_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pluria.merge.pieces.BLOCK", 10)
    rule = Rule(
        lambda piece, rows: piece.values[0] * 0 + rows[piece.number],
        (Pass(lambda piece, _: piece.values[0].max(), lambda rows, _: rows, stacked=True),),
    )
    made = leafwise(stack([{"w": torch.arange(25.0)}]), rule, threads=2, chunk=1)["w"]
    assert made.tolist() == [9.0] * 10 + [19.0] * 10 + [24.0] * 5


def test_every_tensor_may_have_its_own_rule() -> None:
    first, last = (Rule(lambda piece, _, at=at: piece.values[at]) for at in (0, -1))
    made = leafwise(stack([params(0), params(1)]), lambda name: first if name == "big" else last)
    assert equal({"big": made["big"], "row": made["row"]}, {"big": params(0)["big"], "row": params(1)["row"]})


def test_two_rules_of_the_whole_model_are_refused() -> None:
    rules = {name: ties(density=0.2 if name == "big" else 1.0) for name in params(0)}
    with pytest.raises(ValueError, match="is one rule: make it once"):
        leafwise(stack([params(0), params(1)]), rules.__getitem__, base=params(2))


def test_families_of_all_kinds_and_the_inputs_stay_as_they_are() -> None:
    model = nn.Linear(40, 30)
    ensemble = pluria.low_precision(model, format="int3", members=4)
    before = pluria.params_of(model)
    made = leafwise(ensemble, linear())
    wide = torch.stack([member["weight"].double() for member in ensemble]).mean(0)
    assert torch.allclose(made["weight"].double(), wide, rtol=1e-6)
    assert torch.allclose(made["bias"], model.bias.detach())
    assert equal(before, pluria.params_of(model))


def test_tied_names_are_merged_once_and_share_a_tensor() -> None:
    calls: list[str] = []

    def note(piece: Piece, _: Any) -> Tensor:
        calls.append(piece.name)
        return piece.values.sum(0)

    def tied(value: float) -> dict[str, Tensor]:
        own = torch.full((3,), value)
        return {"a": own, "b": own}

    made = leafwise(stack([tied(1.0), tied(2.0)]), Rule(note))
    assert made["a"] is made["b"]
    assert calls == ["a"]


def test_counts_of_batches_are_copied_or_summed_and_other_integers_equal() -> None:
    def counted(count: int, index: int = 0) -> dict[str, Tensor]:
        return {"w": torch.ones(2), "n.num_batches_tracked": torch.tensor(count), "index": torch.tensor([index])}

    several = stack([counted(3), counted(4)])
    assert leafwise(several, linear())["n.num_batches_tracked"] == 3
    assert leafwise(several, linear(), base=counted(9))["n.num_batches_tracked"] == 9
    summed = leafwise(several, linear(), base=counted(9), counters="sum")["n.num_batches_tracked"]
    assert summed == 7
    assert summed.dtype == torch.int64
    with pytest.raises(CheckpointError, match=r"'index' .* differs between member 0 and member 1"):
        leafwise(stack([counted(3), counted(3, 1)]), linear())
    with pytest.raises(ValueError, match="'first' or 'sum'; got 'mean'"):
        leafwise(several, linear(), counters="mean")  # type: ignore[arg-type]


def broken(value: float, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    held = params(1, dtype)
    held["big"][300, 5] = value
    return held


MISTAKES: dict[str, tuple[Ensemble, Rule, dict[str, Any], str]] = {
    "NaN": (stack([params(0), broken(torch.nan)]), linear(), {}, "NaN or Inf in tensor 'big' of member 1"),
    "Inf": (stack([broken(-torch.inf, torch.bfloat16)]), linear(), {}, "NaN or Inf in tensor 'big' of member 0"),
    "base": (
        stack([params(0)]),
        Rule(lambda p, _: p.origin, needs_base=True),
        {"base": broken(torch.nan)},
        "NaN or Inf in tensor 'big' of the base",
    ),
    "no base": (stack([params(0)]), Rule(lambda p, _: p.origin, needs_base=True), {}, "starts from a base"),
    "names": (
        stack([params(0)]),
        linear(),
        {"base": {"big": params(0)["big"]}},
        "member 0 and the base are not of one network: 4 only in member 0 ",
    ),
    "dtypes": (
        stack([params(0)]),
        linear(),
        {"base": params(0, torch.float16)},
        "float16 in the base. Give the `dtype`",
    ),
    "members": (stack([params(0)]), Rule(lambda p, _: p.values[0], members=2), {}, "takes 2 models; got 1"),
    "overflow": (
        stack([params(0)]),
        Rule(lambda p, _: p.values[0] * 1e6),
        {"dtype": torch.float16},
        "does not fit into torch.float16",
    ),
    "shape": (stack([params(0)]), Rule(lambda p, _: p.values), {}, r"a rule gives \[\d+\]; got \[1, "),
}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str, threads: int) -> None:
    ensemble, rule, options, message = MISTAKES[name]
    before = torch.get_num_threads()
    with pytest.raises((CheckpointError, ValueError), match=message):
        leafwise(ensemble, rule, threads=threads, **options)
    assert torch.get_num_threads() == before


def test_large_finite_numbers_are_no_infinities() -> None:
    held = {"w": torch.full((100,), 3e38)}
    assert equal(leafwise(stack([held]), linear()), held)


def test_the_base_of_a_piece() -> None:
    piece = Piece("w", torch.Size((2,)), 0, 0, torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.ones(1))
    assert piece.deltas.tolist() == [[2.0, 3.0]]
    with pytest.raises(ValueError, match="'w': this merge starts from a base"):
        _ = Piece("w", torch.Size((2,)), 0, 0, torch.zeros(1, 2), torch.ones(1)).deltas
