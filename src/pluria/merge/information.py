"""The diagonal Fisher information of a network's params, from gradients of every example.

    categorical   F = mean over x of sum_y p(y | x) (d log p(y | x) / d theta)^2
    gaussian      F = mean over x of sum_o (d f_o(x) / d theta)^2                    unit variance

The labels are the network's own: no targets are read. With `sampled`, one label is drawn from p(y | x) in place of the
sum: unbiased, and cheaper by the number of classes. Source: Martens, "New insights and perspectives on the natural
gradient method", JMLR 2020.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.utils._pytree import tree_map

from pluria.core.calling import Forward, call, check_batches, moved, place
from pluria.core.model import working_copy
from pluria.core.params import Params
from pluria.numbers.key import MERGING, Key, tensor_id
from pluria.numbers.philox import uniforms, words

LABELS = "\0labels"
"""Reserved name of the random addresses, so that no tensor shares them."""

Likelihood = Literal["categorical", "gaussian"]


def fisher_information(
    model: nn.Module,
    inputs: Iterable[Any],
    *,
    likelihood: Likelihood = "categorical",
    sampled: bool = False,
    forward: Forward = call,
    key: Key | int = 0,
) -> dict[str, Tensor]:
    """The diagonal Fisher of every parameter, float64, by its name, over batches of `inputs`.

    likelihood   what the outputs `[N, C]` are: logits of classes, or means of unit variance
    sampled      one label for each example, drawn with `key`, in place of all classes
    forward      how the model is called with a batch; it gives outputs `[N, C]`

    A batch takes its size times the parameters in memory. The table can be stored as it is (`save_file` of safetensors)
    and used again. Read from a copy in evaluation mode. Raises ValueError for no inputs, other outputs, and NaN.
    """
    check_batches(inputs)
    if likelihood not in ("categorical", "gaussian"):
        raise ValueError(f"the likelihood is 'categorical' or 'gaussian'; got {likelihood!r}")
    key, twin = key if isinstance(key, Key) else Key(key), working_copy(model)
    params = {name: value.detach() for name, value in twin.named_parameters()}
    total = {name: torch.zeros(value.shape, dtype=torch.float64) for name, value in params.items()}
    seen = 0

    def log_density(params: Params, example: Any, label: Tensor) -> Tensor:
        def network(*args: Any, **named: Any) -> Any:
            return functional_call(twin, dict(params), args, named)

        outputs = forward(network, tree_map(lambda leaf: leaf.unsqueeze(0), example))[0]  # type: ignore[arg-type]
        outputs = outputs.log_softmax(-1) if likelihood == "categorical" else outputs
        return outputs.gather(-1, label.unsqueeze(-1)).squeeze(-1)  # type: ignore[no-any-return]

    slopes = vmap(grad_and_value(log_density), in_dims=(None, 0, 0))
    for batch in inputs:
        batch = moved(batch, place(twin), None)
        with torch.no_grad():
            outputs = _checked(forward(twin, batch))
        for label in _labels(outputs, sampled, key, seen):
            gradients, value = slopes(params, batch, label)
            share = value.exp() if likelihood == "categorical" and not sampled else torch.ones_like(value)
            for name, slope in gradients.items():
                square = slope.detach().to(torch.float64).square()
                total[name] += torch.tensordot(share.detach().to(torch.float64), square, dims=1).cpu()
        seen += len(outputs)
    if not seen:
        raise ValueError("no inputs to take Fishers of; give one batch or more")
    return {name: value / seen for name, value in total.items()}


def _labels(outputs: Tensor, sampled: bool, key: Key, start: int) -> Iterator[Tensor]:
    """Labels `[N]` of a batch: each class in turn, or one drawn for each example."""
    count, classes = outputs.shape
    if not sampled:
        yield from (torch.full((count,), label, device=outputs.device) for label in range(classes))
        return
    word = words(key, tensor=tensor_id(LABELS), group=0, stream=MERGING, start=start, stop=start + count)
    below = outputs.to(torch.float64).softmax(-1).cumsum(-1)
    drawn = torch.searchsorted(below, uniforms(word).to(below).unsqueeze(1), right=True)
    yield drawn.squeeze(1).clamp(max=classes - 1)


def _checked(outputs: Any) -> Tensor:
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        what = f"shape {list(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"Fishers need outputs [N, C] for a batch; got {what}. Give `forward` that makes them")
    if not bool(torch.isfinite(outputs).all()):
        raise ValueError("NaN or Inf among the outputs, so they have no Fisher. Look for them in the inputs")
    return outputs
