"""Figures in the text format, line by line."""

from __future__ import annotations

from pluria.serve.metrics import Histogram, Metrics


def test_a_histogram_adds_up_from_bound_to_bound() -> None:
    held = Histogram((1, 2.5))
    for value in (0.5, 1, 2, 3):
        held.add(value)
    held.add(2.5, times=2)
    assert held.lines("x") == [
        'x_bucket{le="1"} 2',
        'x_bucket{le="2.5"} 5',
        'x_bucket{le="+Inf"} 6',
        "x_sum 11.5",
        "x_count 6",
    ]


def test_all_figures() -> None:
    metrics = Metrics(lambda: 7)
    metrics.request("/predict", 200, 0.02)
    metrics.request("/predict", 503, 0.001)
    metrics.request("/health", 200, 5.0)
    metrics.batch([8, 8, 3])
    lines = metrics.text().splitlines()
    assert 'pluria_requests_total{path="/predict",code="200"} 1' in lines
    assert 'pluria_requests_total{path="/predict",code="503"} 1' in lines
    assert 'pluria_request_seconds_bucket{le="0.005"} 1' in lines
    assert "pluria_request_seconds_count 2" in lines
    assert "pluria_batch_examples_sum 3" in lines
    assert 'pluria_members_per_example_bucket{le="4"} 1' in lines
    assert "pluria_members_per_example_sum 19" in lines
    assert "pluria_queue_length 7" in lines
    assert metrics.text().endswith("\n")
    kinds = [line.split()[2:] for line in lines if line.startswith("# TYPE")]
    assert ["pluria_batch_examples", "histogram"] in kinds
    assert len(kinds) == 5
