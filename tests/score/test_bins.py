"""Bins: edges, the closed last bin, ties."""

import pytest
import torch

from pluria.score.bins import check_bins, equal_mass, equal_width


def test_edges_of_equal_widths():
    values = torch.tensor([0.0, 0.2499, 0.25, 0.75, 0.9999, 1.0], dtype=torch.float64)
    assert equal_width(values, 4).tolist() == [0, 0, 1, 3, 3, 3]


@pytest.mark.parametrize(("n", "bins"), [(10, 3), (7, 7), (5, 8), (100, 15)])
def test_equal_masses_follow_the_ranks(n, bins):
    values = torch.rand(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    ranks = values.argsort().argsort().tolist()
    assert equal_mass(values, bins).tolist() == [rank * bins // n for rank in ranks]


def test_equal_values_share_a_bin():
    assert equal_mass(torch.tensor([0.5, 0.5, 0.5, 0.1]), 4).tolist() == [1, 1, 1, 0]


def test_no_bin_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        check_bins(0)
