"""`pluria serve` as a program: it opens files as `pluria predict` does, and it ends well."""

from __future__ import annotations

import io
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import pluria
from pluria.cli import main
from pluria.cli.serve import _pooling
from pluria.core.ensemble import Ensemble
from pluria.core.errors import DataError
from pluria.pool import Cascade, Chain, LogLinear, Temperature, mean_logit, mean_probability
from pluria.pool.kinds import to_dict
from pluria.serve.panel import Pooling
from pluria.store.file import Loaded
from pluria.zoo import Dataset, network
from serve.running import Running, wait_for

PROGRAM = [sys.executable, "-c", "from pluria.cli import main; main()"]
MLP = {"model": "mlp", "arguments": {"inputs": 4, "classes": 3}}


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The exit code of a command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["pluria", *map(str, words)])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture
def tiny(tmp_path: Path) -> Any:
    """Writes a file of a small network that says these things about itself."""
    ensemble = pluria.low_precision(network("mlp", inputs=4, classes=3), format="int4", members=2)

    def write(**about: object) -> Path:
        pluria.save(tmp_path / "tiny.pluria", ensemble, about={"network": MLP, **about})
        return tmp_path / "tiny.pluria"

    return write


def started(file: Path, *options: str) -> tuple[subprocess.Popen[str], Running]:
    process = subprocess.Popen(
        [*PROGRAM, "serve", str(file), "--port", "0", *options], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("serving at http://127.0.0.1:")
    return process, Running(int(line.split(":")[2].split("/")[0]))


def test_a_signal_ends_it_and_all_that_was_accepted_is_answered(
    saved: Path, rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "rows.npz", x=rows.inputs[:30].numpy(), y=rows.targets[:30].numpy())
    with ThreadPoolExecutor(20) as pool:
        starting = [pool.submit(started, saved, "--wait", "2000", "--quiet") for _ in range(2)]
        out = tmp_path / "outputs.safetensors"
        assert command(monkeypatch, "predict", saved, "--data", tmp_path / "rows.npz", "--out", out, "-q") == 0
        held = load_file(out)
        wanted = pluria.mean_probability(held["outputs"], held["weights"]).double().exp()
        for start, sent in zip(starting, (signal.SIGTERM, signal.SIGINT), strict=True):
            process, service = start.result()
            stream = io.BytesIO()
            np.save(stream, rows.inputs[:30].numpy())
            replies = [pool.submit(service.ask, "/predict", stream.getvalue(), kind="application/x-npy")]
            replies += [pool.submit(service.ask, "/predict", b"{}") for _ in range(2)]
            wait_for(lambda service=service: service.ask("/ready").json["queue"] == 1)  # type: ignore[misc]
            process.send_signal(sent)
            with process:  # which closes what it printed
                assert process.wait(60) == 0
            assert [reply.result().code for reply in replies] == [200, 400, 400]
            answers = replies[0].result().json["answers"]
            assert torch.equal(torch.tensor([a["probabilities"] for a in answers], dtype=torch.float64), wanted)
            assert answers[0]["label"].startswith("digit ")
            with pytest.raises(ConnectionRefusedError):
                service.ask("/health")


def test_what_would_be_served(
    tiny: Any, saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "serve", saved, "--dry-run") == 0
    assert capsys.readouterr().out.endswith("inputs 1x8x8, 10 classes\n")
    assert command(monkeypatch, "serve", tiny(), "--dry-run") == 0
    assert capsys.readouterr().out.startswith("would serve 2 members of")
    assert command(monkeypatch, "serve", tiny(), "--shape", "1x2x2", "--dry-run") == 0
    assert "inputs 1x2x2, 3 classes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--shape", "5"), "does not take inputs of shape [2, 5]"),
        (("--shape", "2y2"), "such as 1x28x28; got '2y2'"),
        (("--batch", "0"), "batch is positive"),
        (("--dtype", "float8"), "float32 or bfloat16"),
        (("--device", "abacus"), "unknown device"),
        (("--name", "other"), "'ensemble'"),
        (("--scale", "-1"), "must be positive"),
    ],
)
def test_options_that_do_not_fit(
    tiny: Any, options: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "serve", tiny(), *options) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"pool": "median"}, "the file's pool is 'median'"),
        ({"pool": ["vote"]}, "the file's pool is ['vote']"),
        ({"pool": {"unknown": {}}}, "'unknown' is no kind of pool"),
        ({"pool": {"linear": {"weights": [0.5, 0.25, 0.25], "groups": None}}}, "of 2 members"),
        ({"classes": ["a", "b"]}, "the file names 2"),
        ({"inputs": {"mean": [0.0, 0.0], "std": [1.0]}}, "1 or 4"),
        ({"network": {"model": "math:sqrt"}}, "--trust"),
        ({"network": {}}, "does not say which network"),
    ],
)
def test_files_that_do_not_fit(
    tiny: Any, about: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "serve", tiny(**about)) == 2
    assert words in capsys.readouterr().err


def test_a_port_that_is_taken(tiny: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert command(monkeypatch, "serve", tiny(), "--port", taken.getsockname()[1], "--quiet") == 2
    assert "Address already in use" in capsys.readouterr().err


def test_without_its_packages_it_says_what_to_install(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert command(monkeypatch, "serve", tiny()) == 2
    assert "pip install 'pluria[serve]'" in capsys.readouterr().err


def test_the_pool_of_a_file(members: Ensemble) -> None:
    def pooling(pool: Any) -> Pooling:
        return _pooling(Loaded({"ensemble": members}, {} if pool is None else {"pool": pool}))

    outputs = torch.randn(6, 3, 10, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(6, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(pooling(None)(outputs, weights), mean_probability(outputs, weights))
    assert torch.equal(pooling("mean_logit")(outputs, weights), mean_logit(outputs, weights))
    scaled = pooling(to_dict(Chain(("mean_logit", Temperature(2.0)))))
    assert torch.allclose(scaled(outputs, weights), (mean_logit(outputs, weights) / 2).log_softmax(-1), atol=1e-6)
    fitted = LogLinear((0.5, 0.4, 0.3, 0.2, 0.1, 0.1))
    own = pooling(to_dict(fitted))
    assert torch.equal(own(outputs, weights), fitted(outputs))
    assert [one.running for one in (pooling(None), scaled, own)] == [True, True, False]
    cascade = Cascade(((0, 1), (2, 3, 4, 5)), ((0.5, None),), 10, (1,) * 6)
    asking = pooling(to_dict(Chain((cascade, Temperature(2.0)))))
    assert (asking.rule, asking.running) == (cascade, True)
    # Weights say who was asked: the mean of those, however sure they are.
    assert torch.equal(asking(outputs, weights), Chain(("mean_logit", Temperature(2.0)))(outputs, weights))
    with pytest.raises(DataError, match="mean_bernoulli"):
        pooling("mean_bernoulli")
