"""Gate: weights by hand, the static fit as its case without information, planted features, and what is refused."""

import pytest
import torch
from torch.nn.functional import nll_loss

from pluria.pool import Gate, fit_gate, fit_linear, mean_probability


def two_halves(n=600, seed=0):
    """Two members, each right where a feature says so; rows [2, n, 3], targets and features [n, 2]."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (n,), generator=generator)
    first = torch.rand(n, generator=generator) < 0.5
    known = 3 * torch.nn.functional.one_hot(y, 3).double()
    noise = torch.randn(2, n, 3, generator=generator).double()
    rows = noise + torch.stack([known * first[:, None], known * ~first[:, None]])
    features = torch.stack([100 * first.double() + 7, torch.randn(n, generator=generator).double()], dim=-1)
    return rows.log_softmax(-1), y, features


def test_hand_worked_weights_and_answer():
    gate = Gate(((1.0, -1.0),), (0.5, 0.0), (2.0,), (4.0,), classes=2)
    rows = torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]]]).double().log()
    # (6 - 2) / 4 = 1, so the logits are 1.5 and -1.
    weights = torch.tensor([1.5, -1.0]).double().softmax(0)
    features = torch.tensor([[6.0]])
    torch.testing.assert_close(gate.weights(rows, features)[:, 0], weights)
    torch.testing.assert_close(gate(rows, features).exp()[0, 0], weights[0] * 0.9 + weights[1] * 0.2)


def test_features_that_say_which_member_is_right_are_used():
    rows, y, features = two_halves()
    fresh, targets, told = two_halves(seed=1)
    gate = fit_gate(rows, y, features=features)
    weights = gate.weights(fresh, told)
    assert bool((weights[0][told[:, 0] > 50] > 0.9).all())
    assert bool((weights[1][told[:, 0] < 50] > 0.9).all())
    static = nll_loss(fit_linear(rows, y)(fresh), targets)
    assert nll_loss(gate(fresh, told), targets) < static - 0.2
    # Without features the members' own sureness says much of it.
    assert nll_loss(fit_gate(rows, y)(fresh), targets) < static - 0.03


def test_features_that_say_nothing_leave_the_static_weights():
    rows, y, _ = two_halves()
    rows[0] = rows[0] * 0.3
    gate = fit_gate(rows, y, features=torch.full((600, 1), 3.0), ridge=0.0)
    assert gate.weights(rows, torch.full((600, 1), 3.0))[:, 0].tolist() == pytest.approx(
        fit_linear(rows, y).weights, abs=1e-6
    )


def test_the_ridge_goes_to_equal_weights():
    rows, y, features = two_halves()
    torch.testing.assert_close(fit_gate(rows, y, features=features, ridge=1e9)(rows, features), mean_probability(rows))


def test_the_slope_is_zero_at_the_fit():
    rows, y, features = two_halves(200)
    gate = fit_gate(rows, y, features=features, ridge=2.0)
    leaves = [torch.tensor(one).double().requires_grad_() for one in (gate.matrix, gate.bias)]
    inputs = (features - torch.tensor(gate.centre)) / torch.tensor(gate.scale)
    shares = (inputs @ leaves[0] + leaves[1]).softmax(-1)
    pooled = torch.einsum("nk,knc->nc", shares, rows.exp()).log()
    (nll_loss(pooled, y) + 2.0 / 400 * sum(leaf.square().sum() for leaf in leaves)).backward()
    assert max(float(leaf.grad.abs().max()) for leaf in leaves) < 1e-7


def test_dense_features_go_with_their_places():
    rows, y, features = two_halves()
    gate = fit_gate(rows.view(2, 100, 6, 3), y.view(100, 6), features=features.view(100, 6, 2))
    assert gate == fit_gate(rows, y, features=features)
    assert gate(rows.view(2, 100, 6, 3), features.view(100, 6, 2)).shape == (100, 6, 3)


def test_a_row_of_nan_stays_its_own():
    rows, y, _ = two_halves()
    gate, clean = fit_gate(rows, y), rows.clone()
    rows[1, 4] = torch.nan
    pooled = gate(rows)
    assert bool(pooled[4].isnan().all())
    assert torch.equal(pooled[5:], gate(clean)[5:])


def test_what_does_not_fit_is_refused():
    rows, y, features = two_halves(40)
    gate = fit_gate(rows, y, features=features)
    for call, said in (
        (lambda: gate(rows), "fitted on features"),
        (lambda: fit_gate(rows, y)(rows, features), "own outputs"),
        (lambda: gate(rows, features[:, :1]), r"\[N, 2\]"),
        (lambda: gate(rows, features[:9]), r"\[N, 2\]"),
        (lambda: gate(rows[:1], features), "fitted on 2 members"),
        (lambda: gate(rows[..., :2], features), "fitted on 3 classes"),
        (lambda: fit_gate(rows, y, features=features * torch.nan), "finite"),
        (lambda: fit_gate(rows, y, ridge=-1.0), "ridge"),
        (lambda: Gate(((1.0,),), (0.0, 0.0), (0.0,), (1.0,), classes=2), "matrix"),
        (lambda: Gate(((1.0,),), (0.0,), (0.0,), (0.0,), classes=2), "scales above zero"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
