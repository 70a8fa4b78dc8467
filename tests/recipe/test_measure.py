"""Figures of one arm against slow loops of their own, and what they may look at."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pluria.recipe.measure import diagram, diversity, measure, scores, sizes
from pluria.recipe.outputs import Outputs
from pluria.recipe.pools import CHOICE, Pool, best_pool, calibrated

K, N, C = 4, 30, 3


def logits(rows: int = N, seed: int = 0, members: int = K) -> Tensor:
    return 2 * torch.randn(members, rows, C, generator=torch.Generator().manual_seed(seed))


def labels(rows: int = N, seed: int = 1) -> Tensor:
    return torch.randint(C, (rows,), generator=torch.Generator().manual_seed(seed))


CALIBRATION = Outputs.of(logits(seed=2), labels(seed=3))
FIGURES = Outputs.of(logits(), labels())


def probabilities(z: list[float]) -> list[float]:
    top = max(z)
    powers = [math.exp(v - top) for v in z]
    return [p / sum(powers) for p in powers]


def pooled(outputs: Tensor, temperature: float = 1.0, pool: Pool = "mean_probability") -> list[list[float]]:
    """Mean probabilities or logits of the members, then scaled, example by example."""
    found = []
    for n in range(outputs.shape[1]):
        each = [probabilities(outputs[k, n].tolist()) for k in range(len(outputs))]
        mean = [sum(p[c] for p in each) / len(each) for c in range(C)]
        if pool == "mean_logit":
            mean = [math.exp(sum(math.log(p[c]) for p in each) / len(each)) for c in range(C)]
        found.append(probabilities([math.log(p) / temperature for p in mean]))
    return found


def mean_nll(rows: list[list[float]], y: Tensor) -> float:
    return -sum(math.log(row[t]) for row, t in zip(rows, y.tolist(), strict=True)) / len(rows)


def by_hand(rows: list[list[float]], y: Tensor) -> dict[str, float]:
    """NLL, error, Brier score and ECE in 15 bins of equal width."""
    told = [max(range(C), key=row.__getitem__) for row in rows]
    right = [float(a == b) for a, b in zip(told, y.tolist(), strict=True)]
    brier = [sum((p - (c == t)) ** 2 for c, p in enumerate(row)) for row, t in zip(rows, y.tolist(), strict=True)]
    gaps = [0.0] * 15
    for row, hit in zip(rows, right, strict=True):
        gaps[min(int(max(row) * 15), 14)] += hit - max(row)
    return {
        "nll": mean_nll(rows, y),
        "error": 1 - sum(right) / len(rows),
        "brier": sum(brier) / len(rows),
        "ece": sum(map(abs, gaps)) / len(rows),
    }


@pytest.mark.parametrize("pool", CHOICE)
def test_scores_against_loops(pool: Pool) -> None:
    found = measure(CALIBRATION, FIGURES, pool).figures
    for name, wanted in by_hand(pooled(FIGURES.logits), FIGURES.y).items():
        assert found["scores"][name] == pytest.approx(wanted, abs=1e-9), name
    scaled = by_hand(pooled(FIGURES.logits, found["temperature"], pool), FIGURES.y)
    for name, wanted in scaled.items():
        assert found["scaled"][name] == pytest.approx(wanted, abs=1e-9), name


@pytest.mark.parametrize("pool", CHOICE)
def test_the_temperature_is_the_best_for_the_pooled_calibration_rows(pool: Pool) -> None:
    found = measure(CALIBRATION, FIGURES, pool).figures
    factors = (0.99, 1.0, 1.01)
    fitted = {f: mean_nll(pooled(CALIBRATION.logits, f * found["temperature"], pool), CALIBRATION.y) for f in factors}
    assert fitted[1.0] < min(fitted[0.99], fitted[1.01])
    assert found["calibration_nll"] == pytest.approx(mean_nll(pooled(CALIBRATION.logits), CALIBRATION.y), abs=1e-9)
    assert found["calibration_nll_scaled"] == pytest.approx(fitted[1.0], abs=1e-9)


def test_the_pool_is_the_better_one_on_the_calibration_rows() -> None:
    losses = calibrated(CALIBRATION)
    for pool in CHOICE:
        assert losses[pool] == pytest.approx(measure(CALIBRATION, FIGURES, pool).figures["calibration_nll_scaled"])
    assert measure(CALIBRATION, FIGURES).answer.pool == min(losses, key=lambda pool: losses[pool])


def test_the_pool_is_one_for_all_seeds_and_plain_for_single_models() -> None:
    one, other = {"mean_probability": 0.3, "mean_logit": 0.2}, {"mean_probability": 0.3, "mean_logit": 0.45}
    assert best_pool([one]) == "mean_logit"
    assert best_pool([one, other]) == "mean_probability"
    assert best_pool([{"mean_probability": 0.3, "mean_logit": 0.3 * (1 - 1e-12)}]) == "mean_probability"


def test_labels_of_the_figure_rows_fit_nothing() -> None:
    other = Outputs(FIGURES.logits, (FIGURES.y + 1) % C)
    one, two = measure(CALIBRATION, FIGURES).figures, measure(CALIBRATION, other).figures
    for name in ("temperature", "calibration_nll", "calibration_nll_scaled"):
        assert one[name] == two[name]
    assert one["scores"]["nll"] != two["scores"]["nll"]
    assert [p["k"] for p in one["curve"]] == [p["k"] for p in two["curve"]]


def test_calibration_rows_have_no_part_in_the_plain_scores() -> None:
    other = Outputs(CALIBRATION.logits, (CALIBRATION.y + 1) % C)
    one, two = measure(CALIBRATION, FIGURES).figures, measure(other, FIGURES).figures
    assert one["scores"] == two["scores"]
    assert one["diversity"] == two["diversity"]
    assert one["temperature"] != two["temperature"]


def test_diversity_against_loops() -> None:
    found = diversity(FIGURES)
    each = [[probabilities(FIGURES.logits[k, n].tolist()) for k in range(K)] for n in range(N)]
    mean = pooled(FIGURES.logits)
    y = FIGURES.y.tolist()
    member = sum(-math.log(each[n][k][y[n]]) for n in range(N) for k in range(K)) / (N * K)
    assert found["member_nll"] == pytest.approx(member, abs=1e-9)
    geometric = []
    for n in range(N):
        centre = probabilities([sum(math.log(each[n][k][c]) for k in range(K)) / K for c in range(C)])
        geometric.append(-math.log(centre[y[n]]))
    assert found["geometric_nll"] == pytest.approx(sum(geometric) / N, abs=1e-9)
    assert found["ambiguity"] == pytest.approx(found["member_nll"] - found["geometric_nll"], abs=1e-9)

    def entropy(p: list[float]) -> float:
        return -sum(v * math.log(v) for v in p)

    information = sum(entropy(mean[n]) - sum(map(entropy, each[n])) / K for n in range(N)) / N
    assert found["mutual_information"] == pytest.approx(information, abs=1e-9)
    votes = [[max(range(C), key=p.__getitem__) for p in row] for row in each]
    pairs = [sum(a != b for a in row for b in row) / (K * (K - 1)) for row in votes]
    assert found["disagreement"] == pytest.approx(sum(pairs) / N, abs=1e-9)
    wrong = sum(v != t for row, t in zip(votes, y, strict=True) for v in row) / (N * K)
    assert found["member_error"] == pytest.approx(wrong, abs=1e-9)


def test_the_curve_is_each_number_of_members_measured_by_itself() -> None:
    curve = measure(CALIBRATION, FIGURES).figures["curve"]
    assert [point["k"] for point in curve] == [1, 2, 4]
    for point in curve:
        k = point["k"]
        alone = measure(Outputs(CALIBRATION.logits[:k], CALIBRATION.y), Outputs(FIGURES.logits[:k], FIGURES.y)).figures
        assert point["nll"] == pytest.approx(alone["scores"]["nll"], abs=1e-12)
        assert point["nll_scaled"] == pytest.approx(alone["scaled"]["nll"], abs=1e-12)
        assert point["ece"] == pytest.approx(alone["scores"]["ece"], abs=1e-12)
        for name in ("nll", "nll_scaled", "ece", "ece_scaled"):
            assert point[f"{name}_low"] <= point[name] <= point[f"{name}_high"]


@pytest.mark.parametrize(
    ("members", "wanted"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (10, [1, 2, 4, 8, 10])]
)
def test_sizes_of_the_curve(members: int, wanted: list[int]) -> None:
    assert sizes(members) == wanted


def test_the_diagram_counts_every_row_once() -> None:
    found = diagram(FIGURES.pooled(), FIGURES.y)
    assert sum(found["count"]) == N
    assert {len(values) for values in found.values()} == {15}
    right = sum(c * a for c, a in zip(found["count"], found["accuracy"], strict=True))
    assert 1 - right / N == pytest.approx(scores(FIGURES.pooled(), FIGURES.y)["error"])


def test_what_is_not_defined_is_left_out() -> None:
    y = FIGURES.pooled().argmax(-1)
    assert "error_auroc" not in scores(FIGURES.pooled(), y)
    assert "error_auroc" in scores(FIGURES.pooled(), FIGURES.y)


def test_per_example_values_are_those_of_the_means() -> None:
    found = measure(CALIBRATION, FIGURES)
    assert float(found.nll.mean()) == pytest.approx(found.figures["scores"]["nll"], abs=1e-12)
    assert float(found.nll_scaled.mean()) == pytest.approx(found.figures["scaled"]["nll"], abs=1e-12)


def test_weights_count() -> None:
    weights = torch.tensor([1.0, 0.0, 0.0, 0.0])
    alone = measure(Outputs(CALIBRATION.logits[:1], CALIBRATION.y), Outputs(FIGURES.logits[:1], FIGURES.y))
    found = measure(Outputs(CALIBRATION.logits, CALIBRATION.y, weights), Outputs(FIGURES.logits, FIGURES.y, weights))
    assert found.figures["scores"] == pytest.approx(alone.figures["scores"])
    assert found.figures["geometric"] == pytest.approx(alone.figures["geometric"])
    assert found.figures["diversity"]["ambiguity"] == pytest.approx(0, abs=1e-12)


def test_dense_outputs_are_scored_place_by_place() -> None:
    y = torch.full((2, 5, 3), -100)
    y.view(-1)[::2] = labels(15)
    outputs = logits(30).view(K, 2, 5, 3, C)
    flat = Outputs.of(outputs, y)
    assert flat.logits.shape == (K, 15, C)
    kept = Outputs(logits(30)[:, ::2], labels(15))
    assert torch.equal(flat.logits, kept.logits)
    found, wanted = (measure(CALIBRATION, one).figures for one in (flat, kept))
    # Intervals are over pictures here and over places there.
    assert {k: v for k, v in found.items() if k != "curve"} == {k: v for k, v in wanted.items() if k != "curve"}
    for one, other in zip(found["curve"], wanted["curve"], strict=True):
        assert one["nll"] == pytest.approx(other["nll"], abs=1e-12)


def test_a_single_member_has_no_diversity() -> None:
    found = measure(Outputs(CALIBRATION.logits[:1], CALIBRATION.y), Outputs(FIGURES.logits[:1], FIGURES.y)).figures
    assert found["diversity"]["disagreement"] == 0
    assert found["diversity"]["mutual_information"] == pytest.approx(0, abs=1e-12)
    assert [point["k"] for point in found["curve"]] == [1]


def test_confidence_that_finds_every_error_has_auroc_one_and_the_least_aurc():
    log_probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.55, 0.45]]).log()
    found = scores(log_probs, torch.tensor([0, 0, 1, 1]))
    assert found["error"] == 0.25
    assert found["error_auroc"] == 1.0
    assert found["aurc"] < scores(log_probs, torch.tensor([1, 0, 1, 0]))["aurc"]


def test_places_of_one_picture_are_one_example_of_an_interval():
    y = torch.tensor([[0, 1, -100], [1, 1, 0]])
    outputs = Outputs.of(torch.zeros(1, 2, 3, 2), y)
    values = torch.tensor([1.0, 3.0, 5.0, 6.0, 7.0])
    found = outputs.by_example(values)
    assert found.tolist() == [4 * 2 / 5, 18 * 2 / 5]
    assert float(found.mean()) == pytest.approx(float(values.mean()))
    assert Outputs.of(torch.zeros(1, 2, 2), torch.tensor([0, 1])).by_example(values) is values
