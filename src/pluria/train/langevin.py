"""Stochastic-gradient Langevin dynamics, with friction below one Hamiltonian Monte Carlo: SGLD and SGHMC.

    v <- (1 - f) v - lr (grad L + decay w) + sqrt(2 lr f T / N) e        w <- w + v        e standard normal

L is the MEAN loss of N training examples, so that N L is the negative log-likelihood, and the samples follow
exp(-N (L + decay |w|^2 / 2) / T). f = 1 is SGLD. T = 1 is the posterior; much public code divides by N twice, which is
T = 1 / N, all but plain descent.

Sources: Welling and Teh, ICML 2011; Chen, Fox and Guestrin, "Stochastic Gradient Hamiltonian Monte Carlo", ICML 2014;
Zhang et al., "Cyclical Stochastic Gradient MCMC for Bayesian Deep Learning", ICLR 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from pluria.numbers.key import NORMAL, Key, tensor_id
from pluria.numbers.philox import normals


class SGHMC(torch.optim.Optimizer):
    """Samples from the posterior as it steps.

    lr            step size alpha
    data_size     N, the number of training examples
    temperature   T; a group's "temperature" may be changed between steps, 0 is descent with momentum
    friction      f in (0, 1]; momentum 0.9 elsewhere means f = 0.1 here
    weight_decay  precision of the Gaussian prior over N

    The noise has an address, of key, parameter, element and step: resumed runs repeat it, other generators are left
    alone. A step with a gradient that is not finite is left out, and counted in `skipped`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        data_size: int,
        temperature: float = 1.0,
        friction: float = 0.1,
        weight_decay: float = 0.0,
        key: Key | int = 0,
    ) -> None:
        if data_size < 1 or not 0 < friction <= 1:
            raise ValueError(f"data_size is 1 or more and friction in (0, 1]; got {data_size} and {friction}")
        if not (lr > 0 and 0 <= temperature < math.inf and weight_decay >= 0):
            raise ValueError(
                f"lr > 0, temperature >= 0 and finite, weight_decay >= 0; got {lr}, {temperature}, {weight_decay}"
            )
        self.key = key if isinstance(key, Key) else Key(key)
        given = {"lr": lr, "temperature": temperature, "friction": friction, "weight_decay": weight_decay}
        super().__init__(params, {**given, "data_size": data_size, "step": 0, "skipped": 0})

    @property
    def skipped(self) -> int:
        """Steps that were left out."""
        return int(self.param_groups[0]["skipped"])

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; `closure` evaluates the loss again, as in every optimiser of torch."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        finite = all_finite(self)
        for place, group in enumerate(self.param_groups):
            group["step"] += 1
            group["skipped"] += not finite
            for number, param in enumerate(group["params"] if finite else ()):
                if param.grad is not None:
                    self._move(param, group, f"{place}/{number}")
        return loss

    def _move(self, param: Tensor, group: dict[str, Any], name: str) -> None:
        state, friction = self.state[param], group["friction"]
        force = param.grad if not group["weight_decay"] else param.grad + group["weight_decay"] * param
        speed = -group["lr"] * force
        if friction < 1:
            speed += (1 - friction) * state.get("speed", torch.zeros_like(param))
            state["speed"] = speed
        if group["temperature"]:
            noise = math.sqrt(2 * group["lr"] * friction * group["temperature"] / group["data_size"])
            # In place, so that the noise is part of the momentum.
            speed += noise * noise_of(self.key, name, group["step"], param)
        param.add_(speed)


class SGLD(SGHMC):
    """Langevin dynamics without momentum: SGHMC at friction 1."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        data_size: int,
        temperature: float = 1.0,
        weight_decay: float = 0.0,
        key: Key | int = 0,
    ) -> None:
        super().__init__(
            params, lr, data_size=data_size, temperature=temperature, friction=1.0, weight_decay=weight_decay, key=key
        )


def all_finite(optimizer: torch.optim.Optimizer) -> bool:
    """Whether every gradient there is has no NaN and no Inf."""
    every = (param.grad for group in optimizer.param_groups for param in group["params"])
    return all(bool(torch.isfinite(grad).all()) for grad in every if grad is not None)


def noise_of(key: Key, name: str, step: int, like: Tensor) -> Tensor:
    """Standard normals at the address of a parameter and a step, in the shape and format of `like`."""
    place = {"tensor": tensor_id(name), "group": step, "start": 0, "stop": like.numel()}
    return normals(key, stream=NORMAL, device=like.device, **place).view(like.shape).to(like.dtype)
