"""A row of the catalogue: what a method does, what it needs, and the laws it keeps or why it does not.

sample   bits     same key, same bits; the global generator and the inputs are untouched
         prefix   the first k members do not change as K grows
         file     what is stored and loaded gives the same members
         mean     the mean of many members is the base within four standard errors
merge    single    K = 1 is the identity          copies     K copies of x give x, whatever the base
         order     permuting members with their weights changes nothing
         double    doubling a weight equals duplicating the member
         rounding  float32 members give what float64 ones do, rounded once; of 16 bits, within one ulp
align    identity  full precision is left as it is
pool     single    K = 1 is the identity          copies     K copies of x give x
         order     permuting members with their weights changes nothing
         double    doubling a weight equals duplicating the member      simplex    probabilities stay probabilities
fit      (labelled or unlabelled outputs to a pool or to weights)
         single    K = 1 is the identity          copies     K copies of x give what x alone gives
         order     permuting the members changes nothing                simplex    probabilities stay probabilities
         better    never above the NLL of equal weights on the rows of the fit
         text      its fields go through JSON and give the same pool
train    repeat   the same run gives the same bits      quiet    the global generator is untouched
         resume   a run stored half-way ends on the same bits           file     what is collected is stored and loaded
look     repeat   the same inputs give the same numbers   quiet    inputs and the global generator are untouched
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

SAMPLE_LAWS = ("bits", "prefix", "file", "mean")
POOL_LAWS = ("single", "copies", "order", "double", "simplex")
MERGE_LAWS = ("single", "copies", "order", "double", "rounding")
FIT_LAWS = ("single", "copies", "order", "simplex", "better", "text")
OF_A_RUN = ("model", "members", "key", "inputs", "collected", "bench")
OF_A_TRAINING = ("loop", "make", "model", "models", "fit", "params", "lr", "data_size", "weight_decay", "when", "key",
                 "masks", "collector", "states", "options")  # fmt: skip
"""Arguments that are not a recipe's to set."""

TRAIN_LAWS = ("repeat", "quiet", "resume", "file")
LOOK_LAWS = ("repeat", "quiet")


@dataclass(frozen=True)
class Method:
    """One row. `breaks` gives the reason for each law that does not hold.

    maker   how a recipe calls a sampler, or a training for the members of a network; for a leafwise merge, the function
            of its options that gives its `Rule`
    runner  how the command line calls a merge that is no rule: (bench, options) -> params, or an ensemble
    reads   what such a merge reads beside the models: their mixing weights, a base
    """

    name: str
    verb: Literal["sample", "train", "align", "merge", "pool", "fit", "look"]
    function: str
    summary: str
    needs: str
    laws: tuple[str, ...]
    breaks: Mapping[str, str] = field(default_factory=dict)
    maker: str | None = None
    runner: str | None = None
    reads: tuple[Literal["weights", "base"], ...] = ("weights",)

    def load(self) -> Callable[..., Any]:
        """The function itself."""
        return _load(self.function)

    @property
    def make(self) -> Callable[..., Any]:
        """How a recipe calls a sampler: (model, members, key, options) -> (model, ensemble); a merge: options -> Rule.

        Raises ValueError for methods that a recipe does not call.
        """
        if self.maker is None:
            raise ValueError(f"method {self.name!r} cannot be an arm of a recipe")
        return _load(self.maker)

    def run(self, bench: Any, options: Mapping[str, Any]) -> Any:
        """Call a merge that is no rule, as the command line does; ValueError for methods that are not called so."""
        if self.runner is None:
            raise ValueError(f"method {self.name!r} is not called with models in memory")
        return _load(self.runner)(bench, **options)

    def options(self) -> dict[str, inspect.Parameter]:
        """What a recipe or the command line may set; the rest comes from the run. `members` is an arm's own key."""
        if (path := self.maker or self.runner) is None:
            return {}
        given = dict(inspect.signature(_load(path), eval_str=True).parameters)
        if self.verb != "train":
            return {n: p for n, p in given.items() if n not in OF_A_RUN}
        own = inspect.signature(self.load(), eval_str=True).parameters
        return {n: p for n, p in {**own, **given}.items() if n not in OF_A_TRAINING}


def _load(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
