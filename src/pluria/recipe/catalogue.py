"""Every method in one written table: what it does, what it needs, and the laws it keeps or why it does not.

sample   bits     same key, same bits; the global generator and the inputs are untouched
         prefix   the first k members do not change as K grows
         file     what is stored and loaded gives the same members
         mean     the mean of many members is the base within four standard errors
merge    single    K = 1 is the identity          copies     K copies of x give x, whatever the base
         order     permuting members with their weights changes nothing
         double    doubling a weight equals duplicating the member
align    identity  full precision is left as it is
pool     single    K = 1 is the identity          copies     K copies of x give x
         order     permuting members with their weights changes nothing
         double    doubling a weight equals duplicating the member      simplex    probabilities stay probabilities
fit      (labelled or unlabelled outputs to a pool or to weights)
         single    K = 1 is the identity          copies     K copies of x give what x alone gives
         order     permuting the members changes nothing                simplex    probabilities stay probabilities
         better    never above the NLL of equal weights on the rows of the fit
         text      its fields go through JSON and give the same pool
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

SAMPLE_LAWS = ("bits", "prefix", "file", "mean")
POOL_LAWS = ("single", "copies", "order", "double", "simplex")
MERGE_LAWS = ("single", "copies", "order", "double")
FIT_LAWS = ("single", "copies", "order", "simplex", "better", "text")


@dataclass(frozen=True)
class Method:
    """One row. `breaks` gives the reason for each law that does not hold.

    maker   how a recipe calls a sampler; for a leafwise merge, the function of its options that gives its `Rule`
    """

    name: str
    verb: Literal["sample", "merge", "align", "pool", "fit"]
    function: str
    summary: str
    needs: str
    laws: tuple[str, ...]
    breaks: Mapping[str, str] = field(default_factory=dict)
    maker: str | None = None

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

    def options(self) -> dict[str, inspect.Parameter]:
        """What a recipe may set for this method, besides `members`; keys and unlabelled inputs come from the run."""
        if self.maker is None:
            return {}
        given = inspect.signature(_load(self.maker), eval_str=True).parameters
        return {n: p for n, p in given.items() if n not in ("model", "members", "key", "inputs")}


ONE = {"prefix": "a single model", "mean": "nearest rounding is biased by design"}
CHOICE = "only the first choice is kept"
FIXED = {"prefix": "the grid of members is fixed by its ends", "mean": "members are points, not draws"}

CATALOGUE: tuple[Method, ...] = (
    Method("full_precision", "sample", "pluria.core.ensemble:single", "the network itself; control", "nothing",
           ("bits", "file", "mean"), {"prefix": "a single model"}, "pluria.recipe.makers:full_precision"),
    Method("nearest", "sample", "pluria.sample.rounding:nearest", "nearest rounding, one model; control", "nothing",
           ("bits", "file"), ONE, "pluria.recipe.makers:nearest"),
    Method("low_precision", "sample", "pluria.sample.rounding:low_precision", "members by stochastic rounding",
           "nothing", SAMPLE_LAWS, {}, "pluria.recipe.makers:low_precision"),
    Method("compensated", "sample", "pluria.sample.compensated:compensated", "stochastic rounding with error feedback",
           "unlabelled inputs", ("bits", "prefix", "file"), {"mean": "feedback can push a weight off the grid's end"},
           "pluria.recipe.makers:compensated"),
    Method("gptq", "sample", "pluria.sample.compensated:gptq", "nearest rounding with error feedback; control",
           "unlabelled inputs", ("bits", "file"), ONE, "pluria.recipe.makers:gptq"),
    Method("gaussian", "sample", "pluria.sample.gaussian:gaussian", "Gaussian noise of matched variance; control",
           "nothing", SAMPLE_LAWS, {}, "pluria.recipe.makers:gaussian"),
    Method("isotropic", "sample", "pluria.sample.gaussian:isotropic", "equal Gaussian noise on every weight", "a std",
           SAMPLE_LAWS, {}, "pluria.recipe.makers:isotropic"),
    Method("dropout", "sample", "pluria.sample.dropout:dropout", "MC dropout, one mask per member", "dropout layers",
           ("bits", "prefix", "file"), {"mean": "the noise is on activations, the tensors are all shared"},
           "pluria.recipe.makers:dropout"),
    Method("plane", "sample", "pluria.sample.plane:plane", "a grid over the plane through three networks",
           "three checkpoints", ("bits", "file"), FIXED),
    Method("path", "sample", "pluria.sample.plane:path", "straight pieces between networks", "two checkpoints or more",
           ("bits", "file"), FIXED),
    Method("linear", "merge", "pluria.merge.linear:linear", "weighted mean of the members", "nothing", MERGE_LAWS, {},
           "pluria.merge.linear:linear"),
    Method("refresh", "align", "pluria.align.refresh:refresh", "batch-norm statistics by difference",
           "unlabelled inputs", ("identity",)),
    Method("mean_probability", "pool", "pluria.pool.average:mean_probability", "mean of the members' probabilities",
           "nothing", POOL_LAWS),
    Method("mean_logit", "pool", "pluria.pool.average:mean_logit", "mean of the logits, the normalised geometric mean",
           "nothing", POOL_LAWS),
    Method("mean", "pool", "pluria.core.reduce:mean", "mean of the outputs, for regression", "nothing",
           ("single", "copies", "order", "double"), {"simplex": "outputs are not probabilities"}),
    Method("mean_bernoulli", "pool", "pluria.pool.average:mean_bernoulli", "mean probability of each label",
           "nothing", ("single", "copies", "order", "double"), {"simplex": "labels are not exclusive"}),
    Method("vote", "pool", "pluria.pool.vote:vote", "share of the members whose first choice a class is", "nothing",
           ("order", "double", "simplex"), {"single": CHOICE, "copies": CHOICE}),
    Method("median", "pool", "pluria.core.reduce:median", "median of the outputs, for regression", "nothing",
           ("single", "copies", "order", "double"), {"simplex": "outputs are not probabilities"}),
    Method("median_probability", "pool", "pluria.pool.order:median_probability",
           "median probability of each class, normalised", "nothing", POOL_LAWS),
    Method("trimmed", "pool", "pluria.core.reduce:trimmed", "trimmed mean of the outputs, for regression", "nothing",
           ("single", "copies", "order", "double"), {"simplex": "outputs are not probabilities"}),
    Method("trimmed_probability", "pool", "pluria.pool.order:trimmed_probability",
           "trimmed mean probability of each class, normalised", "nothing", POOL_LAWS),
    Method("consistency", "pool", "pluria.language.consistency:consistency",
           "mean probability, members weighted by agreement and certainty (CoRE)", "nothing", POOL_LAWS),
    Method("mean_gaussian", "pool", "pluria.pool.gaussian:mean_gaussian", "moments of a mixture of means and variances",
           "nothing", ("single", "copies", "order", "double"), {"simplex": "outputs are not probabilities"}),
    Method("mean_quantiles", "pool", "pluria.pool.quantiles:mean_quantiles", "mean of the quantiles at each level",
           "nothing", ("single", "copies", "order", "double"), {"simplex": "quantiles are not probabilities"}),
    Method("median_quantiles", "pool", "pluria.pool.quantiles:median_quantiles",
           "median of the quantiles at each level", "nothing", ("single", "copies", "order", "double"),
           {"simplex": "quantiles are not probabilities"}),
    Method("fit_log_linear", "fit", "pluria.pool.log_linear:fit_log_linear", "product of powers, an exponent each",
           "labelled rows", ("copies", "order", "simplex", "better", "text"), {"single": "a temperature is included"}),
    Method("fit_linear", "fit", "pluria.pool.linear:fit_linear", "weighted mean, flat or in two tiers", "labelled rows",
           FIT_LAWS),
    Method("fit_extremised", "fit", "pluria.pool.extremised:fit_extremised", "the mean, pushed from the base rates",
           "labelled rows", ("copies", "order", "simplex", "better", "text"), {"single": "a temperature is included"}),
    Method("fit_gate", "fit", "pluria.pool.gate:fit_gate", "weights that differ from example to example",
           "labelled rows, or features of them", FIT_LAWS),
    Method("fit_fusion", "fit", "pluria.pool.fusion:fit_fusion", "one classifier on the features of all members",
           "labelled rows and features", ("order", "simplex", "text"),
           {"single": "reads features, not answers", "copies": "copies share one ridge",
            "better": "reads features, not answers"}),
    Method("fit_quantile_weights", "fit", "pluria.pool.quantile_weights:fit_quantile_weights",
           "weights of quantiles, for each member, level or pair of levels", "observed rows",
           ("single", "copies", "order", "text"),
           {"simplex": "quantiles are not probabilities", "better": "fits the pinball loss, not the NLL"}),
    Method("greedy", "fit", "pluria.pool.greedy:greedy", "weights by greedy selection with replacement",
           "labelled rows", ("single", "copies", "order", "simplex"),
           {"better": "a search that need not reach equal weights", "text": "gives plain weights"}),
    Method("zpe", "fit", "pluria.pool.zpe:zpe", "weights without labels, by sureness beyond habit",
           "unlabelled rows of two kinds", ("single", "copies", "order", "simplex"),
           {"better": "labels are not seen", "text": "gives plain weights"}),
)  # fmt: skip


def methods(verb: str | None = None) -> tuple[Method, ...]:
    """All rows, or those of one verb."""
    return tuple(method for method in CATALOGUE if verb in (None, method.verb))


def _load(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
