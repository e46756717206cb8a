"""The report: its figures and the page that shows them."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from fashion.data.dataset import Split
from fashion.evaluation import figures
from fashion.evaluation.metrics import confusion_matrix, most_confident_mistakes
from fashion.evaluation.model_results import ModelResults

SHOWN_PREDICTIONS = 18


@dataclass(frozen=True)
class Data:
    """A data set: its name, class names, splits by name, and audit."""

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    audit: Mapping[str, Any]


def draw(data: Data, models: Mapping[str, ModelResults], bins: int) -> dict[str, Figure]:
    """Return the figures of the report by name; `bins` is the number of bins of the reliability diagram."""
    test = data.splits["test"]
    histories = {name: model.history for name, model in models.items()}
    drawn = {
        "samples_train": figures.samples(data.splits["train"], data.classes, "Training images"),
        "samples_test": figures.samples(test, data.classes, "Test images"),
        "data_audit": figures.data_audit(data.audit, data.splits, data.classes),
        "accuracy": figures.learning_curves(histories, "accuracy"),
        "loss": figures.learning_curves(histories, "loss"),
        "reliability": figures.reliability_diagram(
            {name.upper(): model.predictions for name, model in models.items()}
            | {f"{name.upper()}, exported": model.exported for name, model in models.items()},
            bins,
        ),
    }
    first = np.arange(min(SHOWN_PREDICTIONS, len(test.labels)))
    for name, model in models.items():
        title, predictions = name.upper(), model.predictions
        mistakes = most_confident_mistakes(predictions, SHOWN_PREDICTIONS)
        drawn[f"confusion_{name}"] = figures.confusion(
            confusion_matrix(predictions),
            data.classes,
            f"{title}: confusion matrix",
        )
        drawn[f"predictions_{name}"] = figures.predictions(
            test,
            predictions,
            first,
            f"{title}: first {len(first)} test images (confidence before calibration)",
        )
        drawn[f"mistakes_{name}"] = figures.predictions(
            test,
            predictions,
            mistakes,
            f"{title}: most confident mistakes (before calibration)" if len(mistakes) else f"{title}: no mistakes",
        )
    return drawn


def page(data: Data, models: Mapping[str, ModelResults], drawn: Mapping[str, bytes], bins: int) -> str:
    """Return the report as one HTML page that contains its figures (PNG, by name) and needs no network."""
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
        unequal_classes=len(set(data.audit["images"]["test"].values())) > 1,
        models_by_accuracy=sorted(models.items(), key=lambda item: (item[1].metrics["accuracy"], item[0])),
        figures={name: f"data:image/png;base64,{base64.b64encode(png).decode()}" for name, png in drawn.items()},
    )
    return html
