"""A transformers pipeline whose answers are those of an ensemble, with how far its members agree.

Loading, tokenizers, image processors, batches, call forms and forms of the answer are the library's own; only the
forward is replaced. Each answer gains

    "uncertainty": {"mutual_information": nats, "agreement": share of members whose most probable label is this one}
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from pluria.core.ensemble import Ensemble
from pluria.pool.temperature import Temperature
from pluria.sample.rounding import low_precision
from pluria.score.diversity import mutual_information
from pluria.score.members import member_sums
from pluria.store.file import load
from pluria.wrap.module import EnsembleModule, Pool

TASKS = {
    "image-classification": "ImageClassificationPipeline",
    "text-classification": "TextClassificationPipeline",
    "sentiment-analysis": "TextClassificationPipeline",
}

AnyPath = str | os.PathLike[str]


def ensemble_pipeline(
    task: str,
    model: nn.Module | AnyPath,
    ensemble: Ensemble | AnyPath | None = None,
    *,
    pool: Pool = "probability",
    temperature: Temperature | None = None,
    uncertainty: bool = True,
    format: str = "int5",
    members: int = 8,
    key: int = 0,
    **options: Any,
) -> Any:
    """A pipeline as `transformers.pipeline(task, model, ...)` makes it, answered by an ensemble of that model.

    task        "text-classification" (or "sentiment-analysis") or "image-classification"
    model       a folder that transformers saved, or a model; nothing is downloaded. With a model give its `tokenizer`
                or `image_processor` among the options
    ensemble    an ensemble of the model's tensors, or a `.pluria` file with one; left out, `members` are drawn in
                `format` with `key`, which count for nothing else
    pool, temperature   as in EnsembleModule
    uncertainty   False: answers have the library's form exactly
    options     any others of `transformers.pipeline`: `device`, `batch_size`, `top_k`, ...

    Scores are probabilities after pool and temperature; `function_to_apply="none"` gives their logs. The model is not
    changed. Raises ImportError without
    transformers, ValueError for another task, a folder that is not there, or a network whose labels are no classes
    that exclude each other, CheckpointError where the ensemble is not one of the model.
    """
    if task not in TASKS:
        raise ValueError(f"an ensemble pipeline's task is one of {', '.join(TASKS)}; got {task!r}")
    try:
        import transformers
    except ImportError:
        raise ImportError("a pipeline needs transformers, which is not installed: pip install 'pluria[hf]'") from None
    if not isinstance(model, nn.Module) and not Path(model).is_dir():
        raise ValueError(f"{os.fspath(model)!r} is no folder here. Nothing is downloaded: give a folder or a model")
    given = model if isinstance(model, nn.Module) else os.fspath(model)
    library: Any = transformers
    made = library.pipeline(task, model=given, pipeline_class=_answering(task), **options)
    _refuse_other_labels(made.model.config)
    if ensemble is None:
        drawn = low_precision(made.model, format=format, members=members, key=key)
    else:
        drawn = ensemble if isinstance(ensemble, Ensemble) else load(ensemble)
    made.answer = EnsembleModule(made.model, drawn, pool=pool, temperature=temperature).to(made.device)
    made.uncertainty = uncertainty
    return made


def _answering(task: str) -> type:
    """The library's own class for the task, with the forward of an ensemble."""
    import transformers

    library: Any = getattr(transformers, TASKS[task])

    class EnsemblePipeline(library):  # type: ignore[misc]
        """Answers by `answer`, an EnsembleModule."""

        answer: EnsembleModule
        uncertainty: bool

        def _forward(self, model_inputs: Any) -> Any:
            outputs = self.answer.members(**model_inputs)
            sums = member_sums(outputs, self.answer.ensemble.weights)
            return {
                "logits": self.answer.pooled(outputs),
                "mutual_information": mutual_information(sums),
                "agreement": sums.vote_shares,
            }

        def postprocess(self, model_outputs: Any, **how: Any) -> Any:
            if getattr(how.get("function_to_apply"), "value", None) == "sigmoid":
                raise ValueError("scores are probabilities of classes that exclude each other; 'sigmoid' is for others")
            answers = super().postprocess(model_outputs, **how)
            if self.uncertainty:
                places = {label: place for place, label in self.model.config.id2label.items()}
                information = float(model_outputs["mutual_information"][0])
                for answer in [answers] if isinstance(answers, dict) else answers:
                    share = float(model_outputs["agreement"][0, places[answer["label"]]])
                    answer["uncertainty"] = {"mutual_information": information, "agreement": share}
            return answers

    return EnsemblePipeline


def _refuse_other_labels(config: Any) -> None:
    kind = getattr(config, "problem_type", None)
    if config.num_labels < 2 or kind not in (None, "single_label_classification"):
        raise ValueError(
            f"an ensemble pipeline answers with one of two or more classes; this network has {config.num_labels} "
            f"labels and the problem type {kind!r}. Use EnsembleModule with a pool for its outputs"
        )
