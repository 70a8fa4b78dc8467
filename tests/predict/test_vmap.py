"""Members side by side: what the loop gives, for ties, shared tensors and every family."""

import pytest
import torch
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble, join, single, stack
from pluria.core.params import params_of
from pluria.predict import gather, predict
from pluria.sample import gaussian, low_precision, path
from predict.networks import batches, convolutional, draw, images


def compare(model: nn.Module, made: Ensemble, data: list, **options: object) -> Tensor:
    """Outputs of the loop, which those side by side must equal within float32 rounding."""
    loop, _ = gather(predict(model, made, data, **options))
    side, _ = gather(predict(model, made, data, backend="vmap", block=3, **options))
    torch.testing.assert_close(side, loop, rtol=1e-4, atol=1e-5)
    return loop


def shifted(seed: int) -> dict[str, Tensor]:
    values = params_of(convolutional())
    floats = [name for name, value in values.items() if value.is_floating_point() and "running_var" not in name]
    return values | {name: values[name] + 0.1 * draw(*values[name].shape, seed=seed) for name in floats}


MAKERS = {
    "rounded": lambda: low_precision(convolutional(), format="int3", members=7),
    "bases": lambda: low_precision(stack([shifted(1), shifted(2)]), members=5),
    "stacked": lambda: stack([shifted(seed) for seed in range(4)]),
    "gaussian": lambda: gaussian(low_precision(convolutional(), members=4)),
    "path": lambda: path([shifted(1), shifted(2)], steps=4),
    "union": lambda: join(single(shifted(1)), low_precision(convolutional(), members=3)),
    "taken": lambda: low_precision(convolutional(), members=9).take([8, 1, 1, 4]),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_ensemble(kind: str) -> None:
    loop = compare(convolutional(), MAKERS[kind](), batches())
    assert not torch.equal(loop[0], loop[-1])


@pytest.mark.parametrize("members", [1, 4])
def test_nothing_varies(members: int) -> None:
    made = single(params_of(convolutional()))
    repeated = Ensemble(made.families, tuple(range(members)))
    loop = compare(convolutional(), repeated, batches())
    assert torch.equal(loop[0], loop[-1])


def test_nothing_varies_but_the_view() -> None:
    made = Ensemble(single(params_of(convolutional())).families, (0, 1, 2, 3))
    loop = compare(convolutional(), made, batches(), views=(lambda x: x, lambda x: x.flip(-1)))
    assert not torch.equal(loop[0], loop[1])


class Tied(nn.Module):
    """An embedding that is also the head, and a layer that stands in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.first = nn.Linear(4, 4)
        self.second = self.first
        self.register_buffer("steps", torch.tensor(2.0), persistent=False)
        self.head.weight = self.embed.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.second(self.first(self.embed(words).mean(dim=1)))) * self.steps


def test_tied_tensors() -> None:
    words = torch.randint(0, 7, (5, 3), generator=torch.Generator().manual_seed(0))
    loop = compare(Tied(), low_precision(Tied(), members=5), [words])
    assert not torch.equal(loop[0], loop[1])


def test_ties_of_the_model_that_the_ensemble_does_not_have() -> None:
    model = Tied()
    apart = {name: value.clone() for name, value in model.state_dict().items()}
    words = torch.randint(0, 7, (5, 3), generator=torch.Generator().manual_seed(0))
    compare(model, low_precision(apart, members=4), [words])
    compare(model, stack([apart, apart]), [words])


def test_working_dtype() -> None:
    made = low_precision(convolutional(), members=3)
    loop, _ = gather(predict(convolutional(), made, batches(), dtype=torch.bfloat16))
    side, _ = gather(predict(convolutional(), made, batches(), dtype=torch.bfloat16, backend="vmap", block=3))
    torch.testing.assert_close(side, loop, rtol=0.05, atol=0.05)
    assert side.dtype == torch.float32


def test_inputs_are_not_written() -> None:
    x = images()
    before = x.clone()
    list(predict(convolutional(), low_precision(convolutional(), members=3), [x], backend="vmap", block=3))
    assert torch.equal(x, before)
