"""Members over a local Ray cluster of two workers, some of them killed, and addresses where there is none."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from pluria.core.errors import EngineError
from pluria.predict import Ray, cluster, local, summed
from pluria.predict.engine import engine
from pluria.sample import low_precision
from pluria.score import MemberSums, member_sums
from predict import tasks

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'pluria[ray]'")


@pytest.fixture(scope="module")
def two() -> Iterator[Ray]:
    """Two workers on a cluster of this machine, which these tests share."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    yield Ray(2, threads=torch.get_num_threads())
    ray.shutdown()


def test_results_are_those_of_one_process_though_a_worker_is_killed(two: Ray, tmp_path: Path) -> None:
    task = tasks.DieOnce(tmp_path / "mark")
    found = list(two(task, range(6)))
    assert task.mark.exists(), "no worker was killed"
    assert found == list(local(task, range(6)))
    assert ray.is_initialized(), "a connection that was there before is left open"


def test_errors_of_a_worker_are_raised_here(two: Ray) -> None:
    results = Ray(1, threads=3)(tasks.threads_but_three, [1, 3])
    assert next(results) == 3, "each worker has its own number of threads"
    with pytest.raises(ValueError, match="no 3"):
        next(results)


def test_sums_over_members_and_shards_have_the_bits_of_one_process(two: Ray) -> None:
    model = torch.nn.Linear(8, 4)
    shards = [[(torch.randn(n, 8, generator=torch.Generator().manual_seed(n)), None)] for n in (5, 9)]
    made = low_precision(model, format="int3", members=6)
    one, other = (summed(model, made, shards, fold=member_sums, finish=entropies, at_once=2, mapper=mapper)
                  for mapper in (local, two))  # fmt: skip
    assert torch.equal(one, other)


def entropies(sums: MemberSums, targets: None) -> torch.Tensor:
    return sums.entropies.sum()


def test_more_workers_than_processors_are_refused(two: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "START", 6.0)
    with pytest.raises(EngineError, match=r"Ray started [012] of 3 workers within 6 s; its cluster has 2 processors"):
        list(Ray(3)(tasks.square, range(3)))


def test_a_cluster_that_is_gone_is_noticed(two: Ray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cluster, "PULSE", 0.01)
    monkeypatch.setattr(cluster, "START", 300.0)  # a busy machine takes its time
    results = Ray(1)(tasks.DieOnce(tmp_path), range(6))
    next(results)
    # The head is not killed, for Ray then ends this process with it; what is looked at is an address without one.
    results.gi_yieldfrom.gi_frame.f_locals["crew"].address = free()
    with pytest.raises(EngineError, match=r"Ray at 127.0.0.1:\d+ is no longer there \(Connection refused\)"):
        list(results)


def test_an_address_without_ray_is_said_before_any_work() -> None:
    with pytest.raises(EngineError, match=r"Ray at 127.0.0.1:\d+ does not answer \(Connection refused\)"):
        engine("ray", workers=2, address=free())
    for address in ("localhost", "ray://localhost:3", "host:port"):
        with pytest.raises(EngineError, match="an address of Ray is host:port"):
            engine("ray", address=address)
    for address in ("a..b:6379", f"{'x' * 70}:6379", "127.0.0.1:99999"):
        with pytest.raises(EngineError, match="does not answer"):
            engine("ray", address=address)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_is_not_ray_is_said_at_once(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def serve() -> None:
            with server.accept()[0] as one:
                one.recv(64)
                one.sendall(answer)

        done = pool.submit(serve)
        with pytest.raises(EngineError, match="what listens there is not Ray"):
            engine("ray", address=f"127.0.0.1:{server.getsockname()[1]}")
        done.result()


def test_a_cluster_is_greeted(two: Ray) -> None:
    cluster.reach(ray.get_runtime_context().gcs_address)


def free() -> str:
    """An address where nothing listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"
