"""The model card, in the format of the Hugging Face Hub.

Source: M. Mitchell et al., Model cards for model reporting, FAT* 2019; https://huggingface.co/docs/hub/model-cards.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml

from fashion.data.about import About
from fashion.evaluation import metrics
from fashion.evaluation.markdown import escape
from fashion.evaluation.metrics import Confusion, confusion_matrix, wilson_interval
from fashion.evaluation.model_results import ModelResults
from fashion.evaluation.predictions import Predictions
from fashion.params import DatasetParams

HEADER_METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "loss": "loss",
    "calibration_error": "expected calibration error",
}
MACRO_METRICS = ("balanced_accuracy", "macro_f1")  # left out if the classes of the test set are equal in size
SHOWN_MISTAKES = 5
MID_CONFIDENCE = (0.7, 0.95)  # the range of confidence whose accuracy the card reports


def model_card(
    dataset: DatasetParams,
    about: About,
    audit: Mapping[str, Any],
    params: Mapping[str, Any],
    models: Mapping[str, ModelResults],
) -> str:
    """Return the card as Markdown with a YAML header.

    Args:
        dataset: the section `dataset`.
        about: what people write about the data set.
        audit: of the data, as the preprocess stage writes it.
        params: that each model was trained with, by its name.
        models: the results of each model, by its name.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Markdown; class names are escaped
    )
    environment.filters["yaml"] = lambda value: yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    environment.filters["md"] = escape
    template = environment.from_string(Path(__file__).with_suffix(".md").read_text(encoding="utf-8"))
    matrices = {model: confusion_matrix(found.exported) for model, found in models.items()}
    classes = dataset.classes
    equal_classes = {split: len(set(counts.values())) == 1 for split, counts in audit["images"].items()}
    shown = [key for key in HEADER_METRICS if key not in MACRO_METRICS or not equal_classes["test"]]
    height, width, channels = dataset.image_shape
    return template.render(
        header=_header(dataset, about, models, shown),
        dataset=dataset,
        height=height,
        width=width,
        channels=channels,
        about=about.sections,
        audit=audit,
        images={split: sum(counts.values()) for split, counts in audit["images"].items()},
        equal_classes=equal_classes,
        params=params,
        models=models,
        by_class={model: _by_class(matrix, classes) for model, matrix in matrices.items()},
        balanced_accuracy={model: metrics.balanced_accuracy(matrix) for model, matrix in matrices.items()},
        macro_f1={model: metrics.macro_f1(matrix) for model, matrix in matrices.items()},
        mistakes={model: _mistakes(matrix, classes) for model, matrix in matrices.items()},
        mid_confidence=MID_CONFIDENCE,
        mid_confident={model: _mid_confident(found.exported) for model, found in models.items()},
        proportion=_proportion,
    )


def _header(
    dataset: DatasetParams, about: About, models: Mapping[str, ModelResults], shown: list[str]
) -> dict[str, Any]:
    """Return the YAML header, with the metrics in `shown`."""
    given = about.header.model_dump(mode="json", exclude={"name"})
    slug = re.sub(r"[\W_]+", "-", dataset.name.lower()).strip("-")
    return {
        **given,
        "pipeline_tag": "image-classification",
        "library_name": "litert",
        "metrics": ["accuracy"],
        "tags": [*given["tags"], "litert", "tflite", "keras"],
        "model-index": [
            {
                "name": f"{slug}-{model}",
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"type": next(iter(given["datasets"]), slug), "name": dataset.name, "split": "test"},
                        "metrics": [
                            {"type": HEADER_METRICS[key], "value": found.export["float32"][key]} for key in shown
                        ],
                    }
                ],
            }
            for model, found in models.items()
        ],
    }


def _proportion(successes: int, trials: int) -> str:
    """Return a proportion with its 95% interval."""
    if not trials:
        return "-"
    low, high = wilson_interval(successes, trials)
    return f"{successes / trials:.1%} ({low:.1%} to {high:.1%})"


def _mid_confident(predictions: Predictions) -> tuple[int, float, int]:
    """Return the number of images predicted with `MID_CONFIDENCE`, their mean confidence and how many are correct."""
    confidence = predictions.confidence
    chosen = (confidence >= MID_CONFIDENCE[0]) & (confidence < MID_CONFIDENCE[1])
    mean = float(confidence[chosen].mean()) if chosen.any() else 0.0
    return int(chosen.sum()), mean, int(predictions.correct[chosen].sum())


def _by_class(matrix: Confusion, classes: tuple[str, ...]) -> list[tuple[str, int, int, int, float]]:
    """Return the name of each class, its number of correct predictions, of images and of predictions, and its F1."""
    counts = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    columns = (column.tolist() for column in (*counts, metrics.f1(matrix)))
    return list(zip(classes, *columns, strict=True))


def _mistakes(matrix: Confusion, classes: tuple[str, ...]) -> list[tuple[str, str, int, int]]:
    """Return the most frequent mistakes: actual class, predicted class, count, number of images of the class."""
    pairs = [
        (classes[actual], classes[predicted], int(count), int(matrix[actual].sum()))
        for (actual, predicted), count in np.ndenumerate(matrix)
        if count and actual != predicted
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:SHOWN_MISTAKES]
