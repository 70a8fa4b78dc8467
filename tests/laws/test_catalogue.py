"""The table of methods is whole: every method is in it, every law is kept or has a reason not to be."""

from __future__ import annotations

import importlib
import inspect

import pytest

from laws.examples import ALIGNERS, FITS, MERGES, POOLS, SAMPLERS
from laws.test_look import LOOKS
from laws.trainers import TRAINERS
from pluria.recipe.catalogue import CATALOGUE, methods
from pluria.recipe.method import FIT_LAWS, LOOK_LAWS, MERGE_LAWS, POOL_LAWS, SAMPLE_LAWS, TRAIN_LAWS, Method

LAWS = {
    "sample": SAMPLE_LAWS,
    "train": TRAIN_LAWS,
    "merge": MERGE_LAWS,
    "align": ("identity",),
    "pool": POOL_LAWS,
    "fit": FIT_LAWS,
    "look": LOOK_LAWS,
}
EXAMPLES = {
    "sample": SAMPLERS,
    "train": TRAINERS,
    "merge": MERGES,
    "align": ALIGNERS,
    "pool": POOLS,
    "fit": FITS,
    "look": LOOKS,
}
PACKAGES = {
    "sample": ("sample",),
    "train": ("train", "look"),
    "merge": ("merge",),
    "align": ("align", "merge"),
    "pool": ("pool", "fit"),
}
"""Each package and the verbs of its functions, and of its classes where a run is given to them."""

NO_METHODS = {
    "sample": {
        "choose_format": "chooses among ensembles",
        "left_alone": "a report",
        "moments": "reads inputs for those that make members",
        "noise": "a report",
        "output_error": "a report",
    },
    "train": {
        "Collector": "what a collector is",
        "Decomposition": "a report",
        "Diagnosis": "a report",
        "Cycle": "a schedule",
        "OwnPart": "a piece of a population",
        "Part": "a piece of a population",
        "Population": "what expansions give",
        "Run": "what a loop returns",
        "SharedPart": "a piece of a population",
        "Span": "what curves and subspaces are",
        "State": "what a collector keeps",
        "along": "places on a curve",
        "barrier": "a report",
        "channel_masks": "masks of a population",
        "cka": "a report",
        "compose": "averages tangent networks",
        "connectivity": "a report",
        "cosine": "a penalty",
        "cycles": "a schedule",
        "decompose": "a report",
        "disjoint_masks": "masks of a population",
        "erk_densities": "densities of sparse training",
        "every": "chooses steps",
        "exact_share": "theory",
        "loss_slopes": "the random losses of ens_loss",
        "paired_masks": "masks of a population",
        "residual": "a diagnostic",
        "restarted": "a network's start anew",
        "scale_common": "changes gradients",
        "simplex_shares": "places on a simplex",
        "together": "a population of what is given",
        "train": "the loop itself",
    },
    "merge": {
        "adapters_of": "reads what members are made of",
        "entropy_weights": "says what members count",
        "expert_groups": "says which experts are merged",
        "expert_usage": "a report",
        "prior_weights": "says what members count",
        "sentence_scores": "says what members count",
        "tfidf_scores": "says what members count",
        "top_k": "says what members count",
        "largest": "passes of a rule",
        "leafwise": "applies a rule",
        "greedy_weights": "says which members a soup takes",
        "pruned_weights": "says which members a soup keeps",
        "combined": "applies coefficients",
        "contingency": "a report",
        "fit_coordinates": "fits coefficients for methods",
        "fisher_information": "statistics for those that merge",
        "logit_scales": "a report",
        "objective_of": "makes a loss with its gradient",
        "soft_gates": "says which gates are open",
        "surprise": "a loss",
    },
    "align": {
        "has_batch_norm": "a question",
        "infer_groups": "reads a model",
        "permuted": "applies places that are given",
        "pooled_statistics": "takes members that share their weights",
        "repair": "acts on a merged network",
        "variance_ratios": "a report",
    },
    "pool": {
        "check_pool": "a question",
        "fit_conformal": "fits what acts on a pooled answer",
        "fit_label_temperatures": "fits what acts on a pooled answer",
        "fit_member_temperatures": "fits what comes before a pool",
        "fit_prediction_sets": "fits what acts on a pooled answer",
        "fit_temperature": "fits what acts on a pooled answer",
        "fit_variance_scale": "fits what acts on a pooled answer",
        "fit_vector_scaling": "fits what acts on a pooled answer",
        "fitted_for": "a question",
        "from_dict": "reads what is stored",
        "isotonic_quantiles": "repairs a pooled answer",
        "apart": "guards a fit",
        "out_of_fold": "judges a fit",
        "sort_quantiles": "repairs a pooled answer",
        "to_dict": "stores a fit",
        "variance_parts": "splits what mean_gaussian pools",
    },
}
"""Public functions that make, change or pool nothing, and why not."""


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_function_is_a_method_or_says_why_not(name: str) -> None:
    package = importlib.import_module(f"pluria.{name}")
    public = {each: getattr(package, each) for each in package.__all__}
    functions = {n for n, v in public.items() if inspect.isfunction(v) or (name == "train" and inspect.isclass(v))}
    rows = [method for verb in PACKAGES[name] for method in methods(verb)]
    written = {m.name for m in rows if getattr(package, m.function.partition(":")[2], None) is m.load()}
    assert functions - set(NO_METHODS[name]) == written
    assert set(NO_METHODS[name]) <= functions


@pytest.mark.parametrize("verb", LAWS)
def test_every_method_has_one_example(verb: str) -> None:
    assert set(EXAMPLES[verb]) == {method.name for method in methods(verb)}


@pytest.mark.parametrize("method", CATALOGUE, ids=lambda m: m.name)
def test_every_law_is_kept_or_has_its_reason(method: Method) -> None:
    assert sorted([*method.laws, *method.breaks]) == sorted(LAWS[method.verb])
    assert all(reason.strip() for reason in method.breaks.values())


@pytest.mark.parametrize("method", CATALOGUE, ids=lambda m: m.name)
def test_every_row_names_a_function_that_exists(method: Method) -> None:
    assert callable(method.load())
    assert method.summary
    assert method.needs


def test_names_of_one_verb_are_different() -> None:
    names = [(method.verb, method.name) for method in CATALOGUE]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("method", methods("sample"), ids=lambda m: m.name)
def test_a_recipe_calls_a_sampler_with_its_own_options(method: Method) -> None:
    if method.maker is None:
        with pytest.raises(ValueError, match=f"{method.name!r} cannot be an arm"):
            _ = method.make
        assert method.options() == {}
        return
    own = inspect.signature(method.load()).parameters
    for name, option in method.options().items():
        assert option.kind is option.KEYWORD_ONLY
        # Options that a maker hands to the ensemble it is matched to are not the function's own.
        if name in own and own[name].default is not inspect.Parameter.empty:
            assert option.default == own[name].default, f"{method.name}: {name}"
