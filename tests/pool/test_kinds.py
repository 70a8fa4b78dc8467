"""Fitted pools as plain data: every kind comes back bit for bit, also from a file; what is odd is refused."""

import json

import pytest
import torch

import pluria
from pluria.pool import (
    Cascade,
    Chain,
    Conformal,
    Extremised,
    Linear,
    LogLinear,
    Temperature,
    VarianceScale,
    check_pool,
    fit_fusion,
    fit_gate,
    fit_label_temperatures,
    fit_member_temperatures,
    fit_prediction_sets,
    fit_quantile_weights,
    fit_vector_scaling,
    fitted_for,
    from_dict,
    mean_logit,
    to_dict,
)
from pluria.pool.kinds import KINDS
from pluria.store import load_all, save

K, N, C = 3, 60, 4


def rows():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(K, N, C, generator=generator), torch.randint(C, (N,), generator=generator)


def every():
    """A pool of each kind, an input that it takes, and the members and classes that it wants."""
    x, y = rows()
    levels = torch.tensor([0.1, 0.4, 0.6, 0.9])
    pair = torch.rand(N, 2)
    return {
        "cascade": (Cascade(((2,), (0, 1)), ((1 / 3, None),), C, (1, 2, 0.1), unit="s", reached=(1, 1 / 3)), x, (K, C)),
        "conformal": (Conformal((0.1, 0.9), (0.3,)), x[0, :, :2], (None, 2)),
        "extremised": (Extremised(1.1, (0.1, 0.2, 0.3, 0.4), pool="median_probability"), x, (None, C)),
        "fusion": (fit_fusion(x, y, hidden=2), x, (K, None)),
        "gate": (fit_gate(x, y), x, (K, C)),
        "label_temperatures": (fit_label_temperatures(x[0], (x[1] > 0).long(), each=True), x[0], (None, C)),
        "linear": (Linear((0.1, 0.2, 0.7), ("a", "a", "b")), x, (K, None)),
        "log_linear": (LogLinear((0.1, 1 / 3, 0.7)), x, (K, None)),
        "member_temperatures": (fit_member_temperatures(x, y), x, (K, None)),
        "prediction_sets": (fit_prediction_sets(x[0], y), x[0], (None, C)),
        "quantile_weights": (fit_quantile_weights(x, y.float(), levels, kind="fine", steps=3), x, (K, C)),
        "temperature": (Temperature(1 / 3), x[0], (None, None)),
        "variance_scale": (VarianceScale(1 / 3), pair, (None, 2)),
        "vector_scaling": (fit_vector_scaling(x[0], y), x[0], (None, C)),
    }


def test_there_is_an_example_of_every_kind():
    assert set(every()) == set(KINDS)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_comes_back_bit_for_bit(kind):
    pool, x, sizes = every()[kind]
    data = to_dict(pool)
    assert list(data) == [kind]
    again = from_dict(json.loads(json.dumps(data)))
    assert again == pool
    assert torch.equal(again(x), pool(x))
    assert fitted_for(pool) == sizes


def test_a_pool_comes_back_with_its_ensemble(tmp_path):
    x, y = rows()
    pool = Chain((fit_member_temperatures(x, y), "mean_logit", Temperature(1 / 3), fit_vector_scaling(x[0], y)))
    ensemble = pluria.low_precision({"fc.weight": torch.randn(C, 5)}, format="int4", members=K)
    save(tmp_path / "net.pluria", ensemble, about={"pool": to_dict(pool), "classes": ["a", "b", "c", "d"]})
    again = from_dict(load_all(tmp_path / "net.pluria").about["pool"])
    assert again == pool
    assert torch.equal(again(x), pool(x))
    # Saved once more the file has the same bytes.
    held = load_all(tmp_path / "net.pluria")
    save(tmp_path / "again.pluria", held.ensembles, about={**held.about, "pool": to_dict(again)})
    assert (tmp_path / "again.pluria").read_bytes() == (tmp_path / "net.pluria").read_bytes()


def test_a_chain_hands_weights_to_the_step_that_takes_them():
    x, _ = rows()
    weights = torch.tensor([1.0, 2.0, 0.0])
    assert torch.equal(Chain(("mean_logit",))(x, weights), mean_logit(x, weights))
    assert torch.equal(Chain((Extremised(2.0),))(x, weights), Extremised(2.0)(x, weights))
    inner = Chain((Chain(("mean_logit",)), Temperature(2.0)))
    assert torch.equal(inner(x, weights), Temperature(2.0)(mean_logit(x, weights)))
    assert from_dict(to_dict(inner)) == inner
    repaired = Chain(("mean_quantiles", "sort_quantiles"))(x)
    assert bool((repaired.diff(dim=-1) >= 0).all())


def test_what_a_pool_was_fitted_for_is_checked():
    pool = Chain(("mean_logit", Temperature(2.0)))
    assert fitted_for(pool) == (None, None)
    assert fitted_for(Chain(("mean_logit",))) == (None, None)
    check_pool(pool, 7, 9)
    gate = every()["gate"][0]
    check_pool(Chain((gate, Temperature(2.0))), K, C)
    check_pool(gate, K)
    with pytest.raises(ValueError, match="fitted on 3 members, and here are 4"):
        check_pool(Chain((gate, Temperature(2.0))), 4, C)
    with pytest.raises(ValueError, match="fitted on 4 classes, and here are 10"):
        check_pool(gate, K, 10)


def gate(**changed):
    held = {"matrix": [[0.0, 0.0]] * 4, "bias": [0.0, 0.0], "centre": [0.0] * 4, "scale": [1.0] * 4, "classes": C}
    return {"gate": {**held, "own": True, **changed}}


def mixed(layers):
    held = {"kind": "coarse", "members": 2, "levels": [0.1, 0.9], "loss": 0.0, "start": 0.0}
    return {"quantile_weights": {**held, "layers": layers}}


def test_chains_within_chains_without_end_are_refused():
    deep = {"temperature": {"value": 1.0, "clamped": False}}
    for _ in range(3000):
        deep = {"chain": {"steps": [deep]}}
    with pytest.raises(ValueError, match="beyond all measure"):
        from_dict(deep)


def test_what_is_odd_is_refused(monkeypatch):
    fields = to_dict(LogLinear((0.5, 0.5)))["log_linear"]
    for wrong, said in (
        ({"log_linearr": fields}, "'log_linearr' is no kind"),
        (fields, "one kind with its fields"),
        ({}, "one kind with its fields"),
        ("mean_logit", "one kind with its fields"),
        ({"log_linear": {**fields, "more": 1}}, "has the fields"),
        ({"log_linear": {"exponents": [1.0]}}, "has the fields"),
        ({"log_linear": [1.0]}, "one kind with its fields"),
        ({"log_linear": {**fields, "exponents": ["a"]}}, "is no log_linear pool"),
        ({"log_linear": {**fields, "exponents": 3}}, "is no log_linear pool"),
        ({"log_linear": {**fields, "exponents": [-1.0]}}, "is no log_linear pool"),
        ({"temperature": {"value": "hot", "clamped": False}}, "is no temperature pool"),
        ({"conformal": {"levels": [0.1, 0.9], "shifts": [float("nan")]}}, "shifts are finite"),
        ({"conformal": {"levels": ["a", "b"], "shifts": [1.0]}}, "is no conformal pool"),
        ({"conformal": {"levels": [0.9, 0.1], "shifts": [1.0]}}, "levels must increase"),
        (gate(bias=[0.0, float("nan")]), "a gate's bias must hold finite"),
        (gate(matrix=[[0.0, 0.0]], centre=[0.0], scale=[1.0]), "two rows for each; got 1"),
        (mixed([]), "end in 2 columns"),
        (mixed([[[], [0.0, 0.0, 0.0]]]), r"end in 2 columns, one for each weight; got \[3\]"),
        (mixed([[[[0.0]], [0.0]], [[[0.0, 0.0]] * 2, [0.0, 0.0]]]), "layers follow each other"),
        (mixed([[[], [0.0, float("inf")]]]), "a layer must hold finite"),
        ({"chain": {"steps": []}}, "needs a step"),
        ({"chain": {"steps": ["no_such_pool"]}}, "'no_such_pool' is no step"),
        ({"chain": {"steps": [3]}}, "one kind with its fields"),
        ({"chain": {"steps": "mean"}}, "has the fields"),
    ):
        with pytest.raises(ValueError, match=said):
            from_dict(wrong)
    with pytest.raises(TypeError, match="function is no fitted pool"):
        to_dict(mean_logit)
    with pytest.raises(TypeError, match="int is no fitted pool"):
        fitted_for(3)
    monkeypatch.setattr("pluria.pool.kinds.LARGEST", 2)
    with pytest.raises(ValueError, match="has 3 numbers"):
        to_dict(LogLinear((0.5, 0.5)))
