"""Fusion: logistic regression as its linear case, a hidden layer where lines do not do, and what is refused."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import nll_loss

from pluria.pool import Fusion, fit_fusion


def parts(n=300, seed=0):
    """Features [2, n, 3] of which each member has a part of what tells 4 classes apart; targets."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(4, (n,), generator=generator)
    bits = torch.stack([y % 2, y // 2]).double()
    features = torch.randn(2, n, 3, generator=generator).double()
    features[..., 0] += 3 * bits
    return features, y


def test_the_linear_head_is_logistic_regression():
    features, y = parts()
    fitted = fit_fusion(features, y, ridge=2.0)
    joined = features.movedim(0, 1).flatten(1)
    scaled = (joined - joined.mean(0)) / joined.std(0, correction=0)
    # A column of ones is the bias, so that both have the same ridge.
    rows = torch.cat([scaled, torch.ones(len(y), 1).double()], dim=1).numpy()
    known = LogisticRegression(C=1 / 2.0, fit_intercept=False, tol=1e-12, max_iter=10_000).fit(rows, y.numpy())
    torch.testing.assert_close(
        fitted(features).exp(), torch.from_numpy(known.predict_proba(rows)), atol=1e-6, rtol=1e-6
    )


def test_joined_members_know_what_none_knows_alone():
    (features, y), (fresh, targets) = parts(), parts(seed=1)
    both = nll_loss(fit_fusion(features, y)(fresh), targets)
    alone = [nll_loss(fit_fusion(features[k : k + 1], y)(fresh[k : k + 1]), targets) for k in range(2)]
    assert both < min(alone) - 0.4


def test_a_hidden_layer_bends():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 400, 1, generator=generator).double()
    y = (features[0, :, 0] * features[1, :, 0] > 0).long()
    assert nll_loss(fit_fusion(features, y)(features), y) > 0.6
    bent = fit_fusion(features, y, hidden=8, seed=3)
    assert nll_loss(bent(features), y) < 0.3
    assert fit_fusion(features, y, hidden=8, seed=3) == bent
    assert fit_fusion(features, y, hidden=8, seed=4) != bent


def test_a_class_without_a_row_is_unlikely_and_possible():
    features, y = parts()
    kept = y != 3
    fitted = fit_fusion(features[:, kept], y[kept], classes=4)
    last = fitted(features[:, kept]).exp()[:, 3]
    assert fitted.classes == 4
    assert bool((last > 0).all())
    assert float(last.mean()) < 0.05


def test_dense_features_and_dtype():
    features, y = parts()
    dense = fit_fusion(features.view(2, 50, 6, 3), y.view(50, 6))
    assert dense == fit_fusion(features, y)
    narrow = dense(features.view(2, 50, 6, 3).float())
    assert (narrow.dtype, narrow.shape) == (torch.float32, (50, 6, 4))


def test_what_does_not_fit_is_refused():
    features, y = parts(40)
    head = fit_fusion(features, y)
    for call, said in (
        (lambda: head(features[:1]), "fitted on 2 members"),
        (lambda: head(features[..., :2]), "3 features of each member"),
        (lambda: fit_fusion(features[0], y), "features"),
        (lambda: fit_fusion(features[:, :9], y[:9]), "20 labelled rows"),
        (lambda: fit_fusion(features * torch.inf, y), "not finite"),
        (lambda: fit_fusion(features, y, classes=2), r"0\.\.1"),
        (lambda: fit_fusion(features, y, hidden=-1), "hidden"),
        (lambda: fit_fusion(features, y[:-1]), "y must be"),
        (lambda: Fusion(2, ((((1.0,),), (0.0,)),), (0.0, 0.0), (1.0, 1.0)), "matrix of 1 rows"),
        (lambda: Fusion(2, (), (), ()), "has layers"),
        (lambda: Fusion(1, ((((float("nan"),),), (0.0,)),), (0.0,), (1.0,)), "finite"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    with pytest.raises(TypeError, match="floating point"):
        fit_fusion(features.long(), y)
