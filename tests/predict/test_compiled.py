"""The compiled loop with a real compiler: it agrees with the loop, and `auto` takes or drops it by what it measures."""

import shutil

import pytest
import torch
import torch._inductor.config as inductor

from pluria.core.ensemble import Ensemble
from pluria.predict import Choice, choose_backend, gather, predict
from pluria.predict import choose as module
from pluria.sample import low_precision
from pluria.zoo import network
from predict.networks import draw

pytestmark = [
    pytest.mark.study,
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),  # torch's own, while it is imported
    pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler is here"),
]


@pytest.fixture(scope="module")
def resnet() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return network("cifar_resnet", depth=8, classes=4).eval()


@pytest.fixture
def made(resnet: torch.nn.Module) -> Ensemble:
    return low_precision(resnet, format="int5", members=3)


@pytest.fixture(autouse=True)
def compiling_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPILING", 0.0)


def test_it_agrees_with_the_loop_for_every_member_view_and_size_of_batch(
    resnet: torch.nn.Module, made: Ensemble
) -> None:
    data, views = draw(20, 3, 16, 16).split(8), (lambda x: x, lambda x: x.flip(-1))  # the last batch has four
    wanted, _ = gather(predict(resnet, made, data, views=views))
    for backend in ("compiled", Choice("compiled", 4)):
        found, _ = gather(predict(resnet, made, data, views=views, backend=backend))
        assert module.distance(found, wanted) < 0.02
        assert float((found[0] - found[1]).norm()) > 0.05, "members differ"
    sixteen, _ = gather(predict(resnet, made, data, views=views, backend="bfloat16"))
    assert module.distance(found, sixteen) < 0.01


def test_it_is_timed_and_the_fastest_is_taken(resnet: torch.nn.Module, made: Ensemble) -> None:
    choice = choose_backend(resnet, made, [draw(8, 3, 16, 16)])
    line = next(line for line in choice.tried if line.startswith("compiled: "))
    assert "dropped" not in line
    times = {line.split(": ")[0]: float(line.split(": ")[1].split(" ms")[0]) for line in choice.tried if " ms" in line}
    assert times[choice.backend] <= times["compiled"] + 0.05


def test_where_it_disagrees_it_is_dropped(resnet: torch.nn.Module, made: Ensemble) -> None:
    choice = choose_backend(resnet, made, [draw(8, 3, 16, 16)], tolerance=1e-5)
    line = next(line for line in choice.tried if line.startswith("compiled: "))
    assert line.endswith("dropped: more than 1.0e-05")
    assert choice.backend in ("loop", "channels_last")


def test_without_a_compiler_it_is_dropped(
    resnet: torch.nn.Module, made: Ensemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.compiler.reset()
    monkeypatch.setattr(inductor.cpp, "cxx", ("/nowhere/g++",))
    with inductor.patch(force_disable_caches=True):
        choice = choose_backend(resnet, made, [draw(8, 3, 16, 16)])
    line = next(line for line in choice.tried if line.startswith("compiled: "))
    assert line.startswith("compiled: dropped, ")
    assert "compiler" in line
    assert choice.backend in ("loop", "channels_last", "bfloat16")
