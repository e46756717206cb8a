"""Which pictures the report has, and the page that shows them."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fashion.data.dataset import Split
from fashion.evaluation import figures
from fashion.evaluation.metrics import Probabilities, confusion_matrix, most_confident_mistakes

SHOWN_PREDICTIONS = 18


@dataclass(frozen=True)
class ModelResults:
    """What the pipeline recorded of one model.

    Attributes:
        history: a row per epoch, as `fashion.models.training.train` returns it.
        metrics: as the evaluate stage writes them.
        probabilities: of each class, for each test image.
    """

    history: pd.DataFrame
    metrics: Mapping[str, Any]
    probabilities: Probabilities


@dataclass(frozen=True)
class Export:
    """What the pipeline recorded of one exported model.

    Attributes:
        metrics: as the export stage writes them.
        probabilities: of each class, for each test image, calibrated.
    """

    metrics: Mapping[str, Any]
    probabilities: Probabilities


@dataclass(frozen=True)
class Data:
    """The data that the models were trained and evaluated on, by split, with their audit."""

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    audit: Mapping[str, Any]


def draw(data: Data, models: Mapping[str, ModelResults], exports: Mapping[str, Export], bins: int) -> dict[str, Figure]:
    """Return every picture of the report by name; `bins` is the number of intervals of the reliability diagram."""
    test = data.splits["test"]
    histories = {name: model.history for name, model in models.items()}
    pictures = {
        "samples_train": figures.samples(data.splits["train"], data.classes, "Training images"),
        "samples_test": figures.samples(test, data.classes, "Test images"),
        "data_audit": figures.data_audit(data.audit, data.splits, data.classes),
        "accuracy": figures.learning_curves(histories, "accuracy"),
        "loss": figures.learning_curves(histories, "loss"),
        "reliability": figures.reliability_diagram(
            {name.upper(): model.probabilities for name, model in models.items()}
            | {f"{name.upper()}, exported": export.probabilities for name, export in exports.items()},
            test.labels,
            bins,
        ),
    }
    first = np.arange(min(SHOWN_PREDICTIONS, len(test.labels)))
    for name, model in models.items():
        title, probabilities = name.upper(), model.probabilities
        mistakes = most_confident_mistakes(probabilities, test.labels, SHOWN_PREDICTIONS)
        pictures[f"confusion_{name}"] = figures.confusion(
            confusion_matrix(probabilities, test.labels),
            data.classes,
            f"{title} on the test images",
        )
        pictures[f"predictions_{name}"] = figures.predictions(
            test, probabilities, first, data.classes, f"{title}: the first {len(first)} test images"
        )
        pictures[f"mistakes_{name}"] = figures.predictions(
            test,
            probabilities,
            mistakes,
            data.classes,
            f"{title}: its most confident mistakes" if len(mistakes) else f"{title}: no mistakes",
        )
    return pictures


def page(
    data: Data,
    models: Mapping[str, ModelResults],
    exports: Mapping[str, Export],
    pictures: Mapping[str, bytes],
    bins: int,
) -> str:
    """Return the report as one HTML page that holds its pictures (PNG, by name) and needs no network."""
    template = jinja2.Template(
        Path(__file__).with_suffix(".html").read_text(encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html: str = template.render(
        data=data,
        bins=bins,
        min_bin_images=figures.MIN_BIN_IMAGES,
        models=models,
        exports=exports,
        models_by_accuracy=sorted(models.items(), key=lambda item: (item[1].metrics["accuracy"], item[0])),
        pictures={name: f"data:image/png;base64,{base64.b64encode(png).decode()}" for name, png in pictures.items()},
    )
    return html
