"""Temperature scaling: the true temperature is recovered and the optimum is one."""

import math

import pytest
import torch

from pluria.pool import Temperature, fit_temperature


def drawn_at(temperature, n=20_000, c=5, seed=0):
    """Logits and targets drawn from softmax(logits / temperature)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, c, generator=generator, dtype=torch.float64) * 3
    y = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]
    return logits.log_softmax(-1), y


def nll_at(log_probs, y, temperature):
    return torch.nn.functional.cross_entropy(log_probs / temperature, y).item()


def test_hand_worked_fit():
    # Every row says 4:1 and three of four are right: softmax(log 4 / T) = 3/4 at T = log 4 / log 3.
    rows = torch.tensor([[0.8, 0.2]] * 4, dtype=torch.float64).log()
    assert fit_temperature(rows, torch.tensor([0, 0, 0, 1])).value == pytest.approx(
        math.log(4) / math.log(3), rel=1e-12
    )


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_the_true_temperature_is_recovered(temperature):
    fitted = fit_temperature(*drawn_at(temperature))
    assert fitted.value == pytest.approx(temperature, rel=0.05)
    assert not fitted.clamped


@pytest.mark.parametrize("temperature", [0.05, 0.7, 4.0, 60.0])
def test_the_gradient_is_zero_at_the_optimum_and_neighbours_are_worse(temperature):
    log_probs, y = drawn_at(temperature, n=2000)
    fitted = fit_temperature(log_probs, y).value
    variable = torch.tensor(math.log(fitted), dtype=torch.float64, requires_grad=True)
    torch.nn.functional.cross_entropy(log_probs / variable.exp(), y).backward()
    assert abs(variable.grad.item()) < 1e-10
    best = nll_at(log_probs, y, fitted)
    assert best < min(nll_at(log_probs, y, fitted * factor) for factor in (0.9, 0.99, 1.01, 1.1))


def test_it_is_deterministic_and_normalisation_changes_nothing():
    log_probs, y = drawn_at(2.0, n=500)
    fitted = fit_temperature(log_probs, y)
    assert fitted == fit_temperature(log_probs.clone(), y.clone())
    assert fit_temperature(log_probs + 7.0, y).value == pytest.approx(fitted.value, rel=1e-9)


def test_dense_rows_and_ignored_targets():
    log_probs, y = drawn_at(1.5, n=600)
    wanted = fit_temperature(log_probs[:400], y[:400]).value
    y = y.clone()
    y[400:] = -100
    assert fit_temperature(log_probs.reshape(20, 30, 5), y.reshape(20, 30)).value == pytest.approx(wanted, rel=1e-12)
    y[400:] = 255
    assert fit_temperature(log_probs, y, ignore_index=255).value == pytest.approx(wanted, rel=1e-12)


def test_a_fit_that_runs_away_says_so():
    rows = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    assert fit_temperature(rows, torch.tensor([0, 1])) == Temperature(1e-3, clamped=True)
    assert fit_temperature(rows, torch.tensor([1, 0])) == Temperature(1e3, clamped=True)
    assert fit_temperature(torch.zeros(3, 4), torch.tensor([0, 1, 2])) == Temperature(1.0)


def test_a_class_of_probability_zero_is_no_trouble():
    log_probs, y = drawn_at(2.0, n=500)
    wider = torch.cat([log_probs, torch.full((500, 1), -torch.inf)], dim=1)
    assert fit_temperature(wider, y).value == pytest.approx(fit_temperature(log_probs, y).value, rel=1e-12)


def test_scaling_gives_normalised_log_probabilities_in_shape_and_dtype():
    rows = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    scaled = Temperature(3.0)(rows)
    assert (scaled.shape, scaled.dtype) == (rows.shape, rows.dtype)
    torch.testing.assert_close(scaled, (rows / 3.0).log_softmax(-1))
    logs = rows.double().log_softmax(-1)
    torch.testing.assert_close(Temperature(1.0)(logs), logs, rtol=1e-12, atol=1e-12)


def test_bad_input_is_refused():
    rows, y = torch.zeros(3, 4), torch.tensor([0, 1, 2])
    for bad in (torch.nan, torch.inf):
        broken = rows.clone()
        broken[1, 2] = bad
        with pytest.raises(ValueError, match="NaN or"):
            fit_temperature(broken, y)
    with pytest.raises(ValueError, match="no row"):
        fit_temperature(rows, torch.full((3,), -100))
    with pytest.raises(ValueError, match="no row"):
        fit_temperature(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match=r"0\.\.3"):
        fit_temperature(rows, torch.tensor([0, 1, 4]))
    with pytest.raises(ValueError, match="integer type"):
        fit_temperature(rows, y.float())
    with pytest.raises(ValueError, match="y must be"):
        fit_temperature(rows, y[:2])
    impossible = rows.clone()
    impossible[0, 0] = -torch.inf
    with pytest.raises(ValueError, match="probability zero"):
        fit_temperature(impossible, y)
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="positive and finite"):
            Temperature(value)
