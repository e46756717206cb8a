"""The results that the pipeline recorded of one model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fashion.evaluation.predictions import Predictions
from fashion.files import read_json

FILES = (  # of each model; `make deps` makes every stage that imports this module depend on them
    "reports/NAME/history.csv",
    "reports/NAME/metrics.json",
    "reports/NAME/predictions.csv",
    "reports/NAME/export.json",
    "models/NAME/exported_probabilities.npy",
)


@dataclass(frozen=True)
class ModelResults:
    """The results of one model.

    Attributes:
        history: a row per epoch, as `fashion.models.training.train` returns it.
        metrics: as the evaluate stage writes them.
        predictions: for the test images, as trained.
        export: metrics of the exported models, as the export stage writes them.
        exported: predictions for the test images, calibrated.
    """

    history: pd.DataFrame
    metrics: Mapping[str, Any]
    predictions: Predictions
    export: Mapping[str, Any]
    exported: Predictions

    @classmethod
    def read(cls, name: str, classes: tuple[str, ...]) -> "ModelResults":
        """Read the results of a model of the project in the current folder."""
        history, metrics, predicted, export, exported = (Path(file.replace("NAME", name)) for file in FILES)
        predictions = Predictions.parse(predicted.read_bytes(), classes, str(predicted))
        return cls(
            pd.read_csv(history),
            read_json(metrics),
            predictions,
            read_json(export),
            Predictions.of(np.load(exported), predictions.labels, classes),
        )
