"""IVON: a diagonal Gaussian over the weights, learned at about the price of Adam.

    q = N(m, s^2)      s^2 = 1 / (N (h + d))      w = m + s e
    g <- b1 g + (1 - b1) grad L(w)                     h' = grad L(w) e / s, the mean over a step's samples
    h <- b2 h + (1 - b2) h' + (1 - b2)^2 (h - h')^2 / (2 (h + d))                        which keeps h + d positive
    m <- m - lr (g / (1 - b1^t) + d m) / (h + d)

L is the MEAN loss of N training examples, d the weight decay: a Gaussian prior of precision N d.

Source: Shen et al., "Variational Learning is Effective for Large Deep Networks", ICML 2024; written from its equations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble, single
from pluria.core.family import Family, Shared
from pluria.core.gaussian import Gaussian
from pluria.core.model import ties
from pluria.core.params import params_of
from pluria.numbers.key import Key
from pluria.train.langevin import noise_of
from pluria.train.state import unwrapped


class IVON(torch.optim.Optimizer):
    """Gradients are taken inside `sampled`, at weights drawn from the Gaussian; outside it they are the mean.

        with optimizer.sampled():
            loss(model(x), y).backward()
        optimizer.step()

    lr           learning rate, multiplied by (hess_init + weight_decay) with `rescale_lr`. g is a mean of gradients, so
                 that what SGD with momentum does at rate r, this does at r / (1 - momentum)
    data_size    N, the number of training examples
    hess_init    h at the start; large is safe, small is fast
    clip         largest change of a weight in one step over lr, infinite without

    Several blocks before a step are several samples and are averaged, each with a draw of its own; gradients that are
    accumulated inside ONE block are of one sample, and are added as usual. Parameters without a gradient stay as they
    are, and frozen ones are not sampled. An exception inside a block puts the mean back and drops that sample, so that
    the next one has its noise. A step whose gradients, or the precision after it, are not finite is left out, and
    counted in `skipped`. What `backward` found stays in `.grad`, summed over the blocks, for you to look at; changing
    it has no effect, so a `GradScaler` unscales inside the block.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        data_size: int,
        hess_init: float = 1.0,
        beta1: float = 0.9,
        beta2: float = 0.99999,
        weight_decay: float = 1e-4,
        clip: float = math.inf,
        rescale_lr: bool = True,
        key: Key | int = 0,
    ) -> None:
        if data_size < 1 or not (lr > 0 and hess_init > 0 and weight_decay >= 0 and clip > 0):
            raise ValueError(
                "data_size of 1 or more, positive lr, hess_init and clip, weight_decay of 0 or more; got "
                f"{data_size}, {lr}, {hess_init}, {clip}, {weight_decay}"
            )
        if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
            raise ValueError(f"beta1 and beta2 lie in [0, 1); got {beta1} and {beta2}")
        self.key, self._inside = key if isinstance(key, Key) else Key(key), False
        given = {"lr": lr, "beta1": beta1, "beta2": beta2, "weight_decay": weight_decay, "clip": clip}
        kept = {"data_size": data_size, "hess_init": hess_init, "rescale_lr": rescale_lr}
        super().__init__(params, {**given, **kept, "step": 0, "draws": 0, "samples": 0, "skipped": 0})

    @property
    def skipped(self) -> int:
        """Steps that were left out."""
        return int(self.param_groups[0]["skipped"])

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Weights drawn from the Gaussian inside, the mean outside, whatever happens inside."""
        if self._inside:
            raise RuntimeError("the weights are sampled already; leave the block before the next one begins")
        places = list(_places(self.param_groups))
        for group in self.param_groups:
            group["draws"] += 1
        means = [param.detach().clone() for _, param, _ in places]
        before = [param.grad for _, param, _ in places]
        draws = [noise_of(self.key, name, group["draws"], param) for group, param, name in places]
        self._inside = True
        try:
            with torch.no_grad():
                for (group, param, _), noise in zip(places, draws, strict=True):
                    param.grad = None
                    param.add_(self.std_of(param, group) * noise)
            yield
            self._collect(places, draws)
        except BaseException:
            for group in self.param_groups:
                group["draws"] -= 1
            raise
        finally:
            self._inside = False
            with torch.no_grad():
                for (_, param, _), mean, old in zip(places, means, before, strict=True):
                    param.copy_(mean)
                    param.grad = old if param.grad is None else param.grad if old is None else old + param.grad

    def std_of(self, param: Tensor, group: dict[str, Any]) -> Tensor:
        """The Gaussian's standard deviation of one parameter."""
        precision: Tensor = group["data_size"] * (self._hess(param, group) + group["weight_decay"])
        return precision.rsqrt()

    def _hess(self, param: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[param]
        if "hess" not in state:
            state["hess"] = torch.full_like(param, group["hess_init"])
            state["momentum"] = torch.zeros_like(param)
        hess: Tensor = state["hess"]
        return hess

    @torch.no_grad()
    def _collect(self, places: list[tuple[dict[str, Any], Tensor, str]], draws: list[Tensor]) -> None:
        """Add one sample's gradients, and its estimates of the Hessian's diagonal, to those of this step."""
        for group in self.param_groups:
            group["samples"] += 1
        for (group, param, _), noise in zip(places, draws, strict=True):
            if param.grad is not None:
                state = self.state[param]
                curved = param.grad * noise / self.std_of(param, group)
                state["grad"] = state.get("grad", 0) + param.grad
                state["curved"] = state.get("curved", 0) + curved

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move the Gaussian by the samples since the last step; `closure`, called inside a sample, makes one more.

        Raises RuntimeError where there was no sample.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad(), self.sampled():
                loss = closure()
        if not self.param_groups[0]["samples"]:
            raise RuntimeError("no gradients were taken inside `with optimizer.sampled():` since the last step")
        finite = all(self._fits(param, group) for group in self.param_groups for param in group["params"])
        for group in self.param_groups:
            group["step"] += finite
            group["skipped"] += not finite
            for param in group["params"]:
                state = self.state[param]
                grad, hess = state.pop("grad", None), state.pop("curved", None)
                if finite and grad is not None:
                    self._move(param, group, grad / group["samples"], hess)
            group["samples"] = 0
        return loss

    def _fits(self, param: Tensor, group: dict[str, Any]) -> bool:
        """Whether a parameter's gradient is finite, and the precision after it; h then stands in place of h'."""
        state, rest = self.state[param], 1 - group["beta2"]
        if "grad" not in state:
            return True
        hess, decay, curved = state["hess"], group["weight_decay"], state["curved"] / group["samples"]
        correction = rest**2 * (hess - curved).square() / (2 * (hess + decay))
        state["curved"] = group["beta2"] * hess + (rest * curved + correction)
        precision = group["data_size"] * (state["curved"] + decay)
        return bool(torch.isfinite(state["grad"]).all() and torch.isfinite(precision).all())

    def _move(self, param: Tensor, group: dict[str, Any], grad: Tensor, hess: Tensor) -> None:
        state, decay = self.state[param], group["weight_decay"]
        # Steps of this parameter: one that had no gradient at first is corrected from its own beginning.
        state["moves"] = state.get("moves", 0) + 1
        state["momentum"].lerp_(grad, 1 - group["beta1"])
        state["hess"] = hess
        rate = group["lr"] * (group["hess_init"] + decay if group["rescale_lr"] else 1.0)
        debiased = state["momentum"] / (1 - group["beta1"] ** state["moves"])
        change = (debiased + decay * param) / (hess + decay)
        param.sub_(rate * change.clamp(-group["clip"], group["clip"]))

    def ensemble(self, model: nn.Module, *, members: int = 8, key: Key | int = 0) -> Ensemble:
        """Members of `model` drawn from the Gaussian; tensors that this optimiser did not learn are shared.

        Raises ValueError where the optimiser holds no parameter of the model, RuntimeError inside `sampled`.
        """
        if self._inside:
            raise RuntimeError("the weights are sampled now, and their mean is not there; leave the block first")
        key = key if isinstance(key, Key) else Key(key)
        network = unwrapped(model)
        groups = {
            id(param): group
            for group in self.param_groups
            for param in group["params"]
            if param.requires_grad or "moves" in self.state.get(param, {})
        }
        shared = single(params_of(network)).families
        first, made = ties(network), dict[str, Family]()
        for name, param in network.named_parameters():
            if id(param) in groups:
                std = self.std_of(param, groups[id(param)]).detach().clone()
                made[name] = Gaussian(Shared(param.detach().clone()), std, name, key)
        if not made:
            raise ValueError("the optimiser holds no parameter of this network; give the network it was made for")
        by_first = {first[name]: family for name, family in made.items()}
        return Ensemble({n: by_first.get(first[n], f) for n, f in shared.items()}, tuple(range(members)))


def _places(groups: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Tensor, str]]:
    """Every parameter that learns with its group, and the name of its noise."""
    for number, group in enumerate(groups):
        for place, param in enumerate(group["params"]):
            if param.requires_grad:
                yield group, param, f"{number}/{place}"
