"""What every fit refuses, and what it takes."""

import pytest
import torch

from pluria.pool import fit_extremised, fit_linear, fit_log_linear, greedy
from pluria.pool.rows import fitting_rows, targets_of

FITS = [fit_extremised, fit_linear, fit_log_linear, greedy]


def rows(members=2, n=60, c=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(c, (n,), generator=generator)
    return torch.randn(members, n, c, generator=generator) + torch.nn.functional.one_hot(y, c), y


def weights_of(fitted):
    if isinstance(fitted, torch.Tensor):
        return fitted.tolist()
    return list(getattr(fitted, "weights", None) or getattr(fitted, "exponents", None) or [fitted.factor])


@pytest.mark.parametrize("fit", FITS)
def test_too_few_rows_are_refused(fit):
    x, y = rows(n=19)
    with pytest.raises(ValueError, match="2 members need at least 20 labelled rows to fit on; got 19"):
        fit(x, y)
    x, y = rows(members=12, n=23)
    with pytest.raises(ValueError, match="12 members need at least 24 labelled rows"):
        fit(x, y)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_values_that_are_no_logits_are_refused(fit, bad):
    x, y = rows()
    x[1, 4, 2] = bad
    with pytest.raises(ValueError, match="NaN"):
        fit(x, y)


@pytest.mark.parametrize("fit", FITS)
def test_shapes_and_targets_that_do_not_fit_are_refused(fit):
    x, y = rows()
    with pytest.raises(ValueError, match=r"y must be \[60\]"):
        fit(x, y[:30])
    with pytest.raises(ValueError, match=r"\[K, N, ..., C\]"):
        fit(x[0], y)
    with pytest.raises(ValueError, match=r"0\.\.2"):
        fit(x, y + 1)
    with pytest.raises(ValueError, match="integer type"):
        fit(x, y.float())
    with pytest.raises(ValueError, match="no row with a target"):
        fit(x, torch.full_like(y, -100))
    with pytest.raises(TypeError, match="floating point"):
        fit(x.long(), y)
    x[:, 3] = -torch.inf
    with pytest.raises(ValueError, match="a row without a possible class"):
        fit(x, y)


@pytest.mark.parametrize("fit", FITS)
def test_targets_that_nobody_thinks_possible_are_refused(fit):
    x, y = rows()
    x[:, 3, y[3]] = -torch.inf
    with pytest.raises(ValueError, match="all members hold the target of row 3 impossible"):
        fit(x, y)


@pytest.mark.parametrize("fit", FITS)
def test_ignored_rows_do_not_count(fit):
    x, y = rows()
    wanted = weights_of(fit(x[:, :40], y[:40]))
    y[40:] = 255
    assert weights_of(fit(x, y, ignore_index=255)) == pytest.approx(wanted, rel=1e-9)


def test_rows_are_normalised_and_flat():
    x, y = rows()
    flat, targets = fitting_rows(x.view(2, 20, 3, 3), y.view(20, 3), -100)
    torch.testing.assert_close(flat, x.double().log_softmax(-1))
    assert torch.equal(targets, y)


def test_class_156_in_uint8_is_a_class():
    y = torch.tensor([156, 0, 156], dtype=torch.uint8)
    kept, targets = targets_of(torch.Size([3, 200]), y, -100)
    assert kept.tolist() == [True] * 3
    assert targets.tolist() == [156, 0, 156]
