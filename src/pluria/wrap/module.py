"""An ensemble as one `nn.Module`: it takes what its network takes and gives one answer.

    forward(x) = temperature( pool_k f(params_k, x) )        members(x)[k] = f(params_k, view_k(x))

Members are made one after another in one working copy of the network, as `predict` does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.calling import place
from pluria.core.ensemble import Ensemble
from pluria.core.errors import PluriaError
from pluria.core.model import tensors
from pluria.core.params import check_fit
from pluria.pool.running import RunningMean
from pluria.pool.temperature import Temperature
from pluria.predict.batches import Batches, logits
from pluria.predict.gather import gather
from pluria.predict.loop import Backend, Block, View, identity, runner
from pluria.store.codec import decode, encode

Pool = str | Callable[[Tensor], Tensor]
CONTENT, TABLE = "content", "tensors."


class EnsembleModule(nn.Module):
    """The pooled answer of an ensemble's members, in place of the answer of one network.

    model        the network; it is not touched, and stays on its device
    ensemble     its members with their mixing weights
    pool         "probability" or "logit": the mean of the members' probabilities or logits by their mixing weights;
                 "output": of plain outputs, for regression; or a fitted pool, called with `[K, N, ..., C]`
    temperature  a fitted temperature for the pooled log-probabilities; it may be set later as well
    views        member number i sees views[i mod V](inputs)
    block, backend, output, class_axis   as in `predict`

    A call is `module(x)`, or `module(x, mask)`, or `module(input_ids=..., ...)`. It gives log-probabilities `[N, C]` in
    float32 on the module's device (plain outputs with "output"). No gradient flows through it, and it has no
    parameters: `train()` and optimisers do nothing to it. `.to(...)` moves the working copy and the ensemble; a dtype
    is that of the forwards, and the ensemble keeps its own. `state_dict` holds the ensemble, its weights, the
    temperature and the name of the pool, all as tensors; the network, a fitted pool and views are given again when the
    module is built to be loaded into. One thread at a time.

    Raises CheckpointError where names or shapes of the ensemble are not the model's, ValueError for a bad option.

    >>> import pluria
    >>> network = nn.Linear(4, 3)
    >>> module = EnsembleModule(network, pluria.low_precision(network, members=8))
    >>> module(torch.zeros(2, 4)).shape, module.members(torch.zeros(2, 4)).shape
    (torch.Size([2, 3]), torch.Size([8, 2, 3]))
    """

    _place: Tensor

    def __init__(
        self,
        model: nn.Module,
        ensemble: Ensemble,
        *,
        pool: Pool = "probability",
        temperature: Temperature | None = None,
        views: Sequence[View] = (identity,),
        block: int = 1,
        backend: Backend = "loop",
        output: Callable[[Any], Tensor] = logits,
        class_axis: int = -1,
    ) -> None:
        super().__init__()
        check_fit(ensemble.outline(), tensors(model), what="the ensemble")
        _check_pool(pool, temperature)
        self.ensemble, self.pool, self.temperature = ensemble, pool, temperature
        # In a tuple, so that it is no submodule: its parameters are not those of the members.
        self._model = (model,)
        self._options: dict[str, Any] = {
            "views": tuple(views), "block": block, "backend": backend, "output": output, "class_axis": class_axis,
        }  # fmt: skip
        self._run: Callable[[Batches], Any] | None = None
        # Nothing but a device and a dtype, which `.to(...)` moves.
        floating = [value.dtype for value in model.parameters() if value.is_floating_point()]
        dtype = floating[0] if len(set(floating)) == 1 else torch.float32
        self._own_dtype = dtype
        self.register_buffer("_place", torch.empty(0, device=place(model), dtype=dtype), persistent=False)
        self._runner()

    @property
    def device(self) -> torch.device:
        """Where the members run, and where their answers are."""
        return self._place.device

    def extra_repr(self) -> str:
        """What a printed module says."""
        return f"{type(self._model[0]).__name__}, {len(self.ensemble)} members, pool={self.pool!r}, {self.temperature}"

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Pooled log-probabilities `[N, ..., C]`, after the temperature where there is one."""
        return self.pooled(self.members(*args, **kwargs))

    def members(self, *args: Any, **kwargs: Any) -> Tensor:
        """Outputs of every member `[K, N, ..., C]`, as the network gives them: logits where it gives logits.

        Raises TypeError for arguments by position and by name in one call.
        """
        if bool(args) == bool(kwargs):
            raise TypeError(
                f"a network is called with arguments by position or by name; got {len(args)} and {len(kwargs)}. "
                "Give all of them by name"
            )
        x = kwargs or (args[0] if len(args) == 1 else args)
        blocks: list[Block] = list(self._runner()([x]))
        return gather(blocks)[0].to(self.device)

    def pooled(self, outputs: Tensor) -> Tensor:
        """The answer `[N, ..., C]` of members' outputs `[K, N, ..., C]`: pool, then temperature."""
        if callable(self.pool):
            answer = self.pool(outputs)
        else:
            answer = RunningMean(self.pool).add(outputs, self.ensemble.weights).finish()  # type: ignore[arg-type]
        return answer if self.temperature is None else self.temperature(answer)

    def _runner(self) -> Callable[[Batches], Any]:
        if self._run is None:
            # A network of several dtypes keeps them until another is asked for.
            dtype = None if self._place.dtype == self._own_dtype else self._place.dtype
            self._run = runner(
                self._model[0], self.ensemble, inputs=_inputs, device=self.device, dtype=dtype, **self._options
            )
        return self._run

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> EnsembleModule:
        before = self._place.device, self._place.dtype
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if before != (self._place.device, self._place.dtype):
            self._run = None
        if before[0] != self._place.device:
            self.ensemble = self.ensemble.to(self._place.device)
        return self

    def __getstate__(self) -> dict[str, Any]:
        # The working copy is made again when it is needed.
        return {**self.__dict__, "_run": None}

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        data, table = encode({"ensemble": self.ensemble})
        temperature = None if self.temperature is None else [self.temperature.value, self.temperature.clamped]
        text = json.dumps({**data, "temperature": temperature, "pool": None if callable(self.pool) else self.pool})
        destination[prefix + CONTENT] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
        destination.update({f"{prefix}{TABLE}{name}": value for name, value in table.items()})

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        start = prefix + TABLE
        if prefix + CONTENT not in state_dict:
            missing_keys.append(prefix + CONTENT)
            return
        unexpected_keys += [
            n for n in state_dict if n.startswith(prefix) and not n.startswith(start) and n != prefix + CONTENT
        ]
        table = {name.removeprefix(start): value for name, value in state_dict.items() if name.startswith(start)}
        try:
            self._take(bytes(state_dict[prefix + CONTENT].cpu().numpy()).decode(), table)
        except (PluriaError, ValueError, KeyError, TypeError) as error:
            error_msgs.append(f"{prefix or 'the ensemble'}: {error}")

    def _take(self, text: str, table: Mapping[str, Tensor]) -> None:
        """Become what a state dict says; nothing changes where it does not fit."""
        content = json.loads(text)
        held = {name: value.detach().clone() for name, value in table.items()}
        ensemble = decode({key: content[key] for key in ("ensembles", "families")}, held)["ensemble"]
        check_fit(ensemble.outline(), tensors(self._model[0]), what="the ensemble of the state dict")
        if (content["pool"] is None) != callable(self.pool):
            raise ValueError("the state dict's module had a fitted pool and this one has not, or the reverse")
        temperature = None if content["temperature"] is None else Temperature(*content["temperature"])
        pool = self.pool if content["pool"] is None else content["pool"]
        _check_pool(pool, temperature)
        self.ensemble, self.temperature, self.pool = ensemble.to(self.device), temperature, pool
        self._run = None


def _inputs(batch: Any) -> tuple[Any, None]:
    return batch, None


def _check_pool(pool: Pool, temperature: Temperature | None) -> None:
    if not callable(pool) and pool not in ("probability", "logit", "output"):
        raise ValueError(f"a pool is 'probability', 'logit', 'output' or a fitted pool; got {pool!r}")
    if pool == "output" and temperature is not None:
        raise ValueError("plain outputs have no temperature; give one with a pool of log-probabilities")
