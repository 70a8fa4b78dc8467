"""Can these be merged: what forbids it, what lies between models, and what merging them gives, in one sentence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from align.networks import shuffled
from pluria.align import infer_groups, permuted
from pluria.check import Between, check
from pluria.check import between as module
from pluria.core.errors import CheckpointError
from pluria.core.params import params_of
from pluria.zoo import network


def params(seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    made = {"a.weight": torch.randn(30, 50, generator=draw), "a.bias": torch.randn(30, generator=draw)}
    return {name: scale * value for name, value in made.items()} | {"n.num_batches_tracked": torch.tensor(3)}


def apart(*models: dict[str, Tensor], **given: dict[str, Tensor]) -> Between:
    found = check(models, **given).between  # type: ignore[arg-type]
    assert found is not None
    return found


def saved(folder: Path, name: str, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, folder / name)
    return folder / name


def test_distances_by_hand() -> None:
    one, other = ({"w": torch.tensor(value)} for value in ([3.0, 4.0], [3.0, 0.0]))
    found = apart(one, other, base={"w": torch.tensor([0.0, 2.0])})
    assert found.distance == ((0, 16 / 34), (16 / 34, 0))
    assert found.length == pytest.approx((13**0.5 / 2, 13**0.5 / 2))  # (3, 2) and (3, -2) beside (0, 2)
    assert found.cosine is not None
    assert found.cosine[0][1] == pytest.approx(5 / 13)
    assert found.conflicts == 0.5


def test_spread_by_hand() -> None:
    one, other = ({"w": torch.tensor(value)} for value in ([1.0, -1.0], [3.0, 1.0]))
    # Each has a deviation of 1, and so has their mean (2, 0).
    assert apart(one, other).spread == pytest.approx(1)
    assert apart(one, {"w": -one["w"]}).spread == 0


def test_unrelated_models_keep_one_over_root_k_of_their_spread() -> None:
    found = apart(*(params(seed) for seed in range(4)))
    assert found.unrelated == 0.5
    assert found.spread == pytest.approx(0.5, abs=0.02)
    assert [row.name for row in found.tensors] == ["a.bias", "a.weight"]
    assert found.tensors[1].distance == pytest.approx(1, abs=0.05)


def test_a_slow_reference_agrees_and_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    several, base = [params(seed) for seed in (1, 2, 3)], params(4)
    whole = apart(*several, base=base)
    monkeypatch.setattr(module, "PIECE", 7)
    pieces = apart(*several, base=base)
    assert dataclasses.asdict(pieces)["conflicts"] == whole.conflicts
    flat = [torch.cat([p["a.weight"].flatten(), p["a.bias"]]).double() for p in (*several, base)]
    tasks = torch.stack(flat[:3]) - flat[3]
    cosine = torch.nn.functional.cosine_similarity(tasks[None], tasks[:, None], -1)
    assert torch.allclose(torch.tensor(pieces.cosine, dtype=torch.float64), cosine)
    assert pieces.length == pytest.approx((tasks.norm(dim=1) / flat[3].norm()).tolist())
    signs = tasks.sign()
    assert pieces.conflicts == pytest.approx(float(((signs > 0).any(0) & (signs < 0).any(0)).double().mean()))
    kept = torch.stack(flat[:3])[:, :1500]
    wanted = kept.mean(0).std(correction=0) / kept.std(1, correction=0).mean()
    assert pieces.spread == pytest.approx(float(wanted))


def test_files_say_what_memory_says(tmp_path: Path) -> None:
    several = [params(seed) for seed in (1, 2)]
    paths = [saved(tmp_path, f"{i}.safetensors", one) for i, one in enumerate(several)]
    torch.save(several[1], tmp_path / "1.pt")
    for second in (paths[1], tmp_path / "1.pt"):
        found = check([paths[0], second])
        assert found.models == (str(paths[0]), str(second))
        assert found.between == apart(*several)


def test_what_forbids_a_merge_is_listed_from_headers(tmp_path: Path) -> None:
    one = params(1)
    lacking = saved(tmp_path, "b.safetensors", {"a.weight": torch.zeros(30, 49), "c": torch.zeros(2)})
    found = check([saved(tmp_path, "a.safetensors", one), lacking])
    said = [line.partition("b.safetensors ")[2].partition(";")[0] for line in found.problems]
    assert set(said[0].removeprefix("lacks ").split(", ")) == {"n.num_batches_tracked", "a.bias"}
    assert said[1:] == ["has besides c", "differs in shape: a.weight (30, 50) and (30, 49)"]
    assert found.between is None
    assert found.advice.startswith("They cannot be merged tensor by tensor")
    assert check([params(1), params(2)], base={"a.weight": torch.zeros(30, 50)}).problems


def test_what_a_merge_has_to_decide_is_noted() -> None:
    one, other = params(1), params(2)
    other["n.num_batches_tracked"] = torch.tensor(4)
    half = {name: value.half() if value.is_floating_point() else value for name, value in other.items()}
    said = " ".join(check([one, half]).notes)
    assert "has other dtypes than model 0: a.weight, a.bias" in said
    assert "integers differ between model 0 and model 1: n.num_batches_tracked" in said
    tied = {"in.weight": torch.randn(4, 3), "x": torch.randn(2)}
    tied["out.weight"] = tied["in.weight"].clone()
    assert check([tied, tied]).notes == ("tied names, merged once: out.weight",)
    loose = {**tied, "out.weight": torch.randn(4, 3)}
    assert "tied in some models and not in others: out.weight" in check([tied, loose]).notes[0]


@pytest.mark.parametrize(
    ("second", "wanted"),
    [
        (params(1), "They are equal, so there is nothing to merge."),
        ({n: v + 0.01 if v.is_floating_point() else v for n, v in params(1).items()}, "They lie close together"),
        (params(2), "They look unrelated"),
        ({n: 0.55 * v + 0.75 * params(2)[n] for n, v in params(1).items()} | {"n.num_batches_tracked": torch.tensor(3)},
         "They are neither close nor unrelated"),
    ],
)  # fmt: skip
def test_advice_without_data(second: dict[str, Tensor], wanted: str) -> None:
    advice = check([params(1), second]).advice
    assert advice.startswith(wanted)
    assert advice.count(". ") == 0


def trained() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """A network that has learned something, and rows that it answers well."""
    torch.manual_seed(0)
    model = network("mlp", inputs=6, classes=3, hidden=[16])
    x = torch.randn(120, 6)
    y = (x @ torch.randn(6, 3)).argmax(1)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    return model.eval(), [(x[:60], y[:60]), (x[60:], y[60:])]


def test_a_permuted_copy_is_told_to_be_aligned() -> None:
    model, batches = trained()
    own, groups = params_of(model), infer_groups(model, batches[0][0][:1])
    found = check([own, permuted(own, groups, shuffled(groups))], network=model, batches=batches, heads=["head.*"])
    measured = found.measured
    assert measured is not None
    assert measured.ends[0] == pytest.approx(measured.ends[1], rel=1e-5)
    assert measured.barriers[0] > 0.1
    assert measured.aligned_barriers == pytest.approx((0,), abs=1e-6)
    assert measured.aligned == pytest.approx(measured.ends[0], rel=1e-5)
    assert measured.gained is not None
    assert measured.gained[0] > 0.1
    assert [name for name, *_ in measured.layers] == ["linear1", "head"]
    assert [choice.what for choice in measured.choices][-1] == "shared trunk, mean probability"
    assert found.advice.startswith("Align them with rebasin, then average them")


def test_a_copy_is_told_to_be_averaged_and_a_stranger_is_not() -> None:
    model, batches = trained()
    own = params_of(model)
    assert check([own, own], network=model, batches=batches).advice.startswith("Average them: the mean has a loss of")
    stranger = params_of(network("mlp", inputs=6, classes=3, hidden=[16], seed=9))
    advice = check([own, stranger], network=model, batches=batches).advice
    assert advice.startswith("Do not average them: the mean has a loss of")
    assert "after aligning; the best single model has" in advice


def test_what_cannot_be_aligned_says_why() -> None:
    model = nn.Linear(6, 3)
    rows = [(torch.randn(8, 6), torch.arange(8) % 3)]
    measured = check([params_of(model), params_of(nn.Linear(6, 3))], network=model, batches=rows).measured
    assert measured is not None
    assert measured.aligned is measured.aligned_barriers is measured.gained is None
    assert str(measured.unaligned).startswith("no axis of this model may be permuted")


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two models or more can be compared; got 1"):
        check([params(1)])
    with pytest.raises(ValueError, match="give both the network and batches"):
        check([params(1), params(2)], network=nn.Linear(2, 2))
    bad = {**params(1), "a.bias": torch.full((30,), torch.inf)}
    with pytest.raises(CheckpointError, match=r"b\.safetensors: NaN or Inf in 'a\.bias'"):
        check([params(2), saved(tmp_path, "b.safetensors", bad)])
    with pytest.raises(CheckpointError, match="a model does not fit the network"):
        check([params(1), params(2)], network=nn.Linear(2, 2), batches=[(torch.zeros(1, 2), torch.zeros(1).long())])
