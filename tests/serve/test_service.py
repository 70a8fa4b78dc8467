"""The service through real sockets: its answers, its pages, its limits."""

from __future__ import annotations

import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import pluria
from pluria.core.ensemble import Ensemble
from pluria.predict import predict
from pluria.serve.inputs import Wanted
from pluria.serve.limits import Limits
from pluria.serve.panel import Pooling
from pluria.zoo import Dataset
from serve.running import Running, panel_of, running, wait_for

NPY = "application/octet-stream"
TWO = [[0.8, 0.2], [0.4, 0.6]]
HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


def npy(rows: Tensor) -> bytes:
    stream = io.BytesIO()
    np.save(stream, rows.numpy())
    return stream.getvalue()


def expected(model: nn.Module, members: Ensemble, rows: Dataset, count: int) -> Tensor:
    """Probabilities `[N, C]` as `pluria predict` and the pool give them."""
    outputs, _ = pluria.gather(predict(model, members, [rows.normalise(rows.inputs[:count])], class_axis=1))
    return pluria.mean_probability(outputs, members.weights).double().exp()


def test_answers_are_those_of_predict_bit_for_bit_at_one_batch(
    service: Running, model: nn.Module, members: Ensemble, rows: Dataset
) -> None:
    reply = service.ask("/predict", npy(rows.inputs[:200]), kind=NPY)
    assert reply.code == 200
    found = torch.tensor([answer["probabilities"] for answer in reply.json["answers"]], dtype=torch.float64)
    assert torch.equal(found, expected(model, members, rows, 200))
    right = sum(a["class"] == int(y) for a, y in zip(reply.json["answers"], rows.targets, strict=False))
    assert right > 150  # the network has learned something


def test_batches_over_requests_change_no_answer(
    service: Running, model: nn.Module, members: Ensemble, rows: Dataset
) -> None:
    wanted = expected(model, members, rows, 60)
    with ThreadPoolExecutor(20) as pool:
        replies = pool.map(lambda i: service.ask("/predict", npy(rows.inputs[i : i + 1]), kind=NPY), range(60))
        found = torch.tensor([reply.json["answers"][0]["probabilities"] for reply in replies], dtype=torch.float64)
    # A matrix product may add in another order at another size of the batch.
    assert torch.allclose(found, wanted, rtol=0, atol=1e-5)


def test_json_npy_and_images_agree(service: Running, rows: Dataset) -> None:
    byte = rows.inputs[:1]
    stream = io.BytesIO()
    Image.fromarray(byte[0, 0].numpy()).save(stream, "PNG")
    numbers = (byte.float() / 255).tolist()
    replies = [
        service.ask("/predict?members=1", npy(byte), kind=NPY),
        service.ask("/predict?members=1", {"inputs": numbers}),
        service.ask("/predict?members=1", stream.getvalue(), kind="image/png"),
    ]
    assert replies[0].json == replies[2].json
    one, other = (torch.tensor(r.json["answers"][0]["member_probabilities"]) for r in replies[:2])
    assert one.shape == (6, 10)
    assert torch.allclose(one, other, atol=1e-6)


def test_a_stream_has_a_line_for_each_member(service: Running, rows: Dataset) -> None:
    reply = service.ask("/predict?stream=1", npy(rows.inputs[:2]), kind=NPY)
    assert reply.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in reply.body.splitlines()]
    assert [line["members"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["done"] for line in lines] == [False] * 5 + [True]
    whole = service.ask("/predict", npy(rows.inputs[:2]), kind=NPY).json["answers"]
    assert lines[-1]["answers"] == whole


def test_early_exit_stops_and_keeps_the_answer(service: Running, rows: Dataset) -> None:
    reply = service.ask("/predict?stop=1&window=2", npy(rows.inputs[:40]), kind=NPY).json["answers"]
    whole = service.ask("/predict", npy(rows.inputs[:40]), kind=NPY).json["answers"]
    used = [answer["members"] for answer in reply]
    assert min(used) == 3
    assert sum(a["label"] == b["label"] for a, b in zip(reply, whole, strict=True)) >= 38
    assert [answer["members"] for answer in whole] == [6] * 40


def test_pages(service: Running) -> None:
    about = service.ask("/about").json
    assert (about["shape"], about["image"], about["members"]) == ([1, 8, 8], True, 6)
    assert about["weights"] == pytest.approx([3 / 8] + [1 / 8] * 5)
    assert service.ask("/health").json == {"status": "ok"}
    assert service.ask("/ready").json == {"ready": True, "queue": 0}
    metrics = service.ask("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'pluria_requests_total{path="/about",code="200"}' in metrics.body.decode()
    home = service.ask("/")
    assert home.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in home.headers["content-security-policy"]
    assert service.ask("/health", method="HEAD").body == b""


@pytest.mark.parametrize(
    ("path", "method", "body", "kind", "code", "words"),
    [
        ("/nothing", None, None, "", 404, "no page /nothing"),
        ("/predict", "GET", None, "", 405, "does not take GET"),
        ("/health", "POST", b"", "", 405, "does not take POST"),
        ("/predict", None, b"x", "text/plain", 415, "content type is text/plain"),
        ("/predict", None, b"{", "application/json", 400, "no JSON"),
        ("/predict", None, {"inputs": [[1.0]]}, "application/json", 422, "wanted [N, 1, 8, 8]"),
        ("/predict", None, {"inputs": [[[[float("nan")] * 8] * 8]]}, "application/json", 422, "NaN"),
        ("/predict?stop=2", None, b"", NPY, 400, "stop='2'"),
        ("/predict?stop=0.1&window=0", None, b"", NPY, 400, "window='0'"),
        ("/predict?window=2", None, b"", NPY, 400, "without 'stop'"),
        ("/predict?members=yes", None, b"", NPY, 400, "members is 0 or 1; got 'yes'"),
        ("/predict?sream=1", None, b"", NPY, 400, "'sream'"),
    ],
)
def test_refusals_say_why(
    service: Running, path: str, method: str | None, body: object, kind: str, code: int, words: str
) -> None:
    reply = service.ask(path, body, method=method, kind=kind)
    assert reply.code == code
    assert words in reply.json["error"]
    assert code != 405 or reply.headers["allow"]


def test_a_request_that_is_no_http(service: Running) -> None:
    assert service.raw(b"hello\r\n\r\n").startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("size", [200_001, 1_000_000, 5_000_000])
def test_a_large_body_hears_the_reason(service: Running, size: int) -> None:
    try:
        reply = service.ask("/predict", b" " * size)
    except (BrokenPipeError, ConnectionResetError):
        assert size > 8 * 200_000  # so large that it is not even read
        return
    assert reply.code == 413
    assert "200,000 bytes" in reply.json["error"]
    assert reply.headers["connection"] == "close"


def test_a_large_body_is_refused_before_it_is_sent(service: Running) -> None:
    asks = HEAD + b"content-length: 300000\r\nexpect: 100-continue\r\n\r\n"
    assert service.raw(asks).startswith(b"HTTP/1.1 413")


def test_a_large_body_of_unknown_length(service: Running) -> None:
    chunk = b"%x\r\n%s\r\n" % (50_000, b" " * 50_000)
    found = service.raw(HEAD + b"transfer-encoding: chunked\r\n\r\n", *[chunk] * 5, b"0\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 413")


def test_too_many_examples(service: Running) -> None:
    reply = service.ask("/predict", npy(torch.zeros(257, 1, 8, 8, dtype=torch.uint8)), kind=NPY)
    assert reply.code == 413
    assert "at most 256" in reply.json["error"]


def test_slow_requests_are_ended() -> None:
    with running(panel_of(TWO), Wanted((2,)), Limits(read=0.2)) as service:
        body = service.raw(HEAD + b"content-length: 100\r\n\r\n", b"{")
        assert body.startswith(b"HTTP/1.1 408")
        assert b"did not arrive within 0.2 seconds" in body
        head = service.raw(b"GET /health HT")
        assert head.startswith(b"HTTP/1.1 408")
        assert service.raw() == b""  # said nothing, is told nothing
        # On a connection that had an answer, too.
        again = service.raw(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n", b"GET /hea", pause=0.1)
        assert again.startswith(b"HTTP/1.1 200")
        assert b"HTTP/1.1 408" in again
        assert service.ask("/health").code == 200


class Gate:
    """Holds the members back until it is opened."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, member: int, batch: Tensor) -> None:
        self.entered.set()
        assert self.open.wait(60)


def test_a_full_queue_refuses_and_the_rest_is_answered() -> None:
    gate = Gate()
    ask = {"inputs": [[0.0, 0.0]]}
    with (
        running(panel_of(TWO, before=gate), Wanted((2,)), Limits(queue=2, wait=0.0)) as service,
        ThreadPoolExecutor(3) as pool,
    ):
        first = pool.submit(service.ask, "/predict", ask)
        assert gate.entered.wait(60)
        waiting = [pool.submit(service.ask, "/predict", ask) for _ in range(2)]
        wait_for(lambda: service.ask("/ready").code == 503)
        refused = service.ask("/predict", ask)
        assert refused.code == 503
        assert refused.headers["retry-after"] == "1"
        assert "pluria_queue_length 2" in service.ask("/metrics").body.decode()
        gate.open.set()
        assert [reply.result().code for reply in (first, *waiting)] == [200, 200, 200]
        assert 'pluria_requests_total{path="/predict",code="503"} 1' in service.ask("/metrics").body.decode()


def test_an_answer_that_takes_too_long() -> None:
    gate = Gate()
    with running(panel_of(TWO, before=gate), Wanted((2,)), Limits(answer=0.2)) as service:
        reply = service.ask("/predict", {"inputs": [[0.0, 0.0]]})
        assert (reply.code, "no answer in time" in reply.json["error"]) == (504, True)
        stream = service.ask("/predict?stream=1", {"inputs": [[0.0, 0.0]]})
        assert json.loads(stream.body) == {"done": True, "error": reply.json["error"]}
        gate.open.set()
        wait_for(lambda: service.ask("/predict", {"inputs": [[0.0, 0.0]]}).code == 200)


def test_a_pool_of_all_members_gives_no_running_answer() -> None:
    pooling = Pooling(lambda outputs, weights: pluria.mean_probability(outputs, weights), running=False)
    with running(panel_of(TWO, pooling=pooling), Wanted((2,))) as service:
        ask = {"inputs": [[0.0, 0.0]]}
        assert service.ask("/predict", ask).code == 200
        assert service.ask("/predict?stream=1", ask).code == 400
        assert "all members only" in service.ask("/predict?stop=0.1", ask).json["error"]
        assert service.ask("/about").json["stops_early"] is False


def test_requests_under_way_are_answered_when_the_service_stops() -> None:
    gate = Gate()
    with ThreadPoolExecutor(4) as pool:
        with running(panel_of(TWO, before=gate), Wanted((2,)), Limits(wait=0.0)) as service:
            ask = {"inputs": [[0.0, 0.0]]}
            first = pool.submit(service.ask, "/predict", ask)
            assert gate.entered.wait(60)
            more = [pool.submit(service.ask, "/predict?stream=1", ask) for _ in range(3)]
            wait_for(lambda: service.ask("/ready").json["queue"] == 3)
            threading.Timer(0.3, gate.open.set).start()
        assert [reply.result().code for reply in (first, *more)] == [200, 200, 200, 200]


@pytest.mark.parametrize("name", ["body", "batch", "queue", "read", "answer"])
def test_limits_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: 0})
    with pytest.raises(ValueError, match="wait"):
        Limits(wait=-1.0)
