"""One batch: every request is told its own answer, early where it may stop, and nothing of another's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pluria.pool import Cascade, Chain, Temperature, mean_probability
from pluria.serve.batch import run_batch
from pluria.serve.jobs import Event, Job
from pluria.serve.panel import Pooling
from pluria.serve.refused import Refused
from pluria.serve.stopping import Rule
from pluria.serve.worker import Worker
from serve.running import panel_of

TWO = [[0.8, 0.2], [0.4, 0.6]]


class Asked(Job):
    """A job that keeps what it is told."""

    def __init__(self, *first: float, **options: object) -> None:
        self.told: list[Event] = []
        inputs = torch.tensor([[one, 0.0] for one in first])
        super().__init__(inputs, self.told.append, 1e12, **options)  # type: ignore[arg-type]

    @property
    def answers(self) -> list[dict[str, object]]:
        assert isinstance(self.told[-1], dict)
        found: list[dict[str, object]] = self.told[-1]["answers"]
        return found


def test_an_answer_by_hand() -> None:
    job = Asked(0.0, members=True)
    assert run_batch(panel_of(TWO), [job]) == [2]
    (answer,) = job.answers
    assert answer["probabilities"] == pytest.approx([0.6, 0.4], abs=1e-6)
    assert (answer["label"], answer["class"], answer["members"]) == ("a", 0, 2)
    assert answer["agreement"] == pytest.approx(0.5)
    entropy = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4))
    own = [-(p * math.log(p) + (1 - p) * math.log(1 - p)) for p in (0.8, 0.4)]
    assert answer["entropy"] == pytest.approx(entropy, abs=1e-6)
    assert answer["mutual_information"] == pytest.approx(entropy - sum(own) / 2, abs=1e-6)
    assert torch.tensor(answer["member_probabilities"]).flatten().tolist() == pytest.approx([0.8, 0.2, 0.4, 0.6])


def test_weights_count() -> None:
    job = Asked(0.0)
    run_batch(panel_of(TWO, weights=[0.25, 0.75]), [job])
    assert job.answers[0]["probabilities"] == pytest.approx([0.5, 0.5], abs=1e-6)
    assert job.answers[0]["agreement"] in (pytest.approx(0.25), pytest.approx(0.75))


def test_the_pool_and_the_temperature_of_the_file() -> None:
    job = Asked(0.0)
    run_batch(panel_of(TWO, pooling=Pooling(Chain(("mean_logit", Temperature(2.0))))), [job])
    logit = (math.log(0.8 / 0.2) + math.log(0.4 / 0.6)) / 2 / 2
    assert job.answers[0]["probabilities"][0] == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-6)  # type: ignore[index]


def test_every_request_is_told_its_own_rows() -> None:
    jobs = [Asked(0.0, 5.0), Asked(-5.0), Asked(1.0, 2.0, 3.0)]
    run_batch(panel_of(TWO), jobs)
    for job in jobs:
        for first, answer in zip(job.inputs[:, 0], job.answers, strict=True):
            z = torch.tensor(TWO).log() + first * torch.tensor([0.0, 1.0])
            wanted = mean_probability(z[:, None])[0].exp()
            assert answer["probabilities"] == pytest.approx(wanted.tolist(), abs=1e-6)
    assert [len(job.told) for job in jobs] == [1, 1, 1]


def test_an_answer_that_stands_still_stops_early_and_leaves_the_others_alone() -> None:
    met: list[int] = []
    held = panel_of([[0.9, 0.1]] * 6, before=lambda member, batch: met.append(len(batch)))
    still, all_members, moving = Asked(0.0, rule=Rule(0.01, 2)), Asked(0.0), Asked(0.0, -2.0, rule=Rule(0.0, 5))
    assert run_batch(held, [still, all_members, moving]) == [3, 6, 6, 6]
    assert met == [4, 4, 4, 3, 3, 3]
    assert still.answers[0]["members"] == 3
    assert still.answers[0]["probabilities"] == all_members.answers[0]["probabilities"]


def test_a_batch_ends_when_all_have_stopped() -> None:
    met: list[int] = []
    held = panel_of([[0.9, 0.1]] * 6, before=lambda member, batch: met.append(member))
    assert run_batch(held, [Asked(0.0, rule=Rule(0.0, 1)), Asked(0.0, rule=Rule(0.0, 2))]) == [2, 3]
    assert met == [0, 1, 2]


def test_one_row_may_stop_before_the_other() -> None:
    outputs = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.9, 0.1]]

    job = Asked(0.0, 30.0, rule=Rule(0.01, 2))  # the second is sure of class b, whatever members say
    assert run_batch(panel_of(outputs), [job]) == [4, 3]
    assert [answer["members"] for answer in job.answers] == [4, 3]
    pooled = mean_probability(torch.tensor(outputs).log()[:, None])[0].exp()
    assert job.answers[0]["probabilities"] == pytest.approx(pooled.tolist(), abs=1e-6)


def test_a_stream_is_told_after_each_member() -> None:
    job = Asked(0.0, stream=True)
    run_batch(panel_of(TWO), [job])
    assert [event["members"] for event in job.told] == [1, 2]  # type: ignore[index]
    assert [event["done"] for event in job.told] == [False, True]  # type: ignore[index]
    assert job.told[0]["answers"][0]["probabilities"] == pytest.approx([0.8, 0.2], abs=1e-6)  # type: ignore[index]


def test_a_first_member_without_weight_gives_no_answer() -> None:
    job = Asked(0.0, stream=True, rule=Rule(1.0, 1))
    run_batch(panel_of([[0.5, 0.5], *TWO], weights=[0.0, 0.5, 0.5]), [job])
    assert [event["members"] for event in job.told] == [2, 3]  # type: ignore[index]
    assert job.answers[0]["probabilities"] == pytest.approx([0.6, 0.4], abs=1e-6)


def test_a_request_that_nobody_waits_for_is_left() -> None:
    gone, other = Asked(0.0), Asked(0.0)

    def leave(member: int, batch: Tensor) -> None:
        gone.dropped = True

    assert run_batch(panel_of(TWO, before=leave), [gone, other]) == [1, 2]
    assert gone.told == []
    assert len(other.told) == 1


def worker(**options: object) -> tuple[Worker, list[int]]:
    seen: list[int] = []
    return Worker(panel_of(TWO, **options), None, seen.extend), seen  # type: ignore[arg-type]


def test_a_request_that_spoils_a_batch_spoils_no_other() -> None:
    held, seen = worker()
    good, bad = Asked(0.0), Asked(3e38, -3e38)
    bad.inputs = torch.tensor([[float("inf"), 0.0]])
    held._answer([good, bad])
    assert len(good.answers) == 1
    assert isinstance(bad.told[0], Refused)
    assert bad.told[0].status == 422
    assert "NaN or Inf" in bad.told[0].reason
    assert seen == [2]


def test_a_network_that_fails_is_a_fault_of_the_service(caplog: pytest.LogCaptureFixture) -> None:
    def fail(member: int, batch: Tensor) -> None:
        raise RuntimeError("no memory")

    held, seen = worker(before=fail)
    job = Asked(0.0)
    held._answer([job])
    assert isinstance(job.told[0], Refused)
    assert (job.told[0].status, job.told[0].reason) == (500, "the network failed with RuntimeError")
    assert "no memory" in caplog.text
    assert seen == []


def test_the_cascade_of_the_file_closes_examples() -> None:
    # 1 - max p is .2 after the third member, .4 where the input moves it; the others are asked of the latter alone.
    three = [[0.5, 0.5], [0.1, 0.9], [0.8, 0.2]]
    rule = Cascade(((2,), (0,), (1,)), ((0.3, None), (0.45, None)), 2, (1, 1, 1), pool="mean_probability")
    met: list[tuple[int, int]] = []
    panel = panel_of(
        three,
        pooling=Pooling(Chain(("mean_probability", Temperature(1.0))), rule=rule),
        before=lambda member, batch: met.append((member, len(batch))),
    )
    moved = math.log(4 * 0.6 / 0.4)  # .8 : .2 becomes .4 : .6
    job = Asked(0.0, moved, stream=True)
    assert run_batch(panel, [job]) == [1, 2]
    assert met == [(2, 2), (0, 1)]
    assert job.answers[0]["probabilities"] == pytest.approx([0.8, 0.2], abs=1e-6)
    second = 1 / (1 + math.exp(moved))
    assert job.answers[1]["probabilities"] == pytest.approx([(0.4 + second) / 2, (1.6 - second) / 2], abs=1e-6)
    assert [event["members"] for event in job.told] == [1, 2]  # type: ignore[index]
    both = Asked(moved, rule=Rule(1.0, window=1))  # a rule of the request may stop earlier, never later
    assert run_batch(panel, [both]) == [2]
