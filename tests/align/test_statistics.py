"""Statistics of several domains put together are those of all their inputs; other weights are refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from align.networks import made
from pluria.align import pooled_statistics
from pluria.core.ensemble import stack
from pluria.core.params import params_of


def domain(model: nn.Module, rows: Tensor) -> dict[str, Tensor]:
    held = {"running_mean": rows.mean(0), "running_var": rows.var(0, correction=0)}
    return {**params_of(model), **held, "num_batches_tracked": torch.tensor(len(rows))}


def test_they_are_the_statistics_of_all_inputs() -> None:
    draw = torch.Generator().manual_seed(0)
    parts = [
        3.0 * k + (k + 1) * torch.randn(n, 4, generator=draw, dtype=torch.float64) for k, n in enumerate((5, 9, 30))
    ]
    model = nn.BatchNorm1d(4, dtype=torch.float64)
    merged = pooled_statistics(model, stack([domain(model, rows) for rows in parts]))
    whole = torch.cat(parts)
    assert torch.allclose(merged["running_mean"], whole.mean(0), rtol=1e-12)
    assert torch.allclose(merged["running_var"], whole.var(0, correction=0), rtol=1e-12)
    assert merged["num_batches_tracked"] == 44


def test_counts_may_be_given() -> None:
    model = nn.BatchNorm1d(1)
    two = [
        {**params_of(model), "running_mean": torch.tensor([mean]), "running_var": torch.tensor([var])}
        for mean, var in ((0.0, 1.0), (4.0, 3.0))
    ]
    merged = pooled_statistics(model, stack(two), counts=[3, 1])
    # mean (3 * 0 + 1 * 4) / 4 = 1; var (3 (1 + 1) + (3 + 9)) / 4 = 4.5
    assert (float(merged["running_mean"]), float(merged["running_var"])) == (1.0, 4.5)


def test_after_weights_were_averaged_the_law_does_not_hold_and_is_refused() -> None:
    model = made("vgg")
    with pytest.raises(ValueError, match=r"members differ in 'conv1.weight'.*refresh"):
        pooled_statistics(model, stack([params_of(model), params_of(made("vgg", 1))]))


def test_mistakes_are_told() -> None:
    model = made("vgg")
    copies = stack([params_of(model), params_of(model)])
    with pytest.raises(ValueError, match=r"counts are 2 positive numbers, one for each member; got \[0\.0, 0\.0\]"):
        pooled_statistics(model, copies)
    with pytest.raises(ValueError, match="has no batch norm"):
        pooled_statistics(made("mlp"), stack([params_of(made("mlp"))]))
