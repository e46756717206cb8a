"""The results that the pipeline recorded of one model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fashion.evaluation.metrics import Probabilities
from fashion.files import read_json

FILES = (  # of each model; `make deps` makes every stage that imports this module depend on them
    "reports/NAME/history.csv",
    "reports/NAME/metrics.json",
    "models/NAME/probabilities.npy",
    "reports/NAME/export.json",
    "models/NAME/exported_probabilities.npy",
)


@dataclass(frozen=True)
class ModelResults:
    """The results of one model.

    Attributes:
        history: a row per epoch, as `fashion.models.training.train` returns it.
        metrics: as the evaluate stage writes them.
        probabilities: of each class, for each test image, as trained.
        export: metrics of the exported models, as the export stage writes them.
        exported_probabilities: of each class, for each test image, calibrated.
    """

    history: pd.DataFrame
    metrics: Mapping[str, Any]
    probabilities: Probabilities
    export: Mapping[str, Any]
    exported_probabilities: Probabilities

    @classmethod
    def read(cls, name: str) -> "ModelResults":
        """Read the results of a model of the project in the current folder."""
        history, metrics, probabilities, export, exported = (Path(file.replace("NAME", name)) for file in FILES)
        return cls(
            pd.read_csv(history), read_json(metrics), np.load(probabilities), read_json(export), np.load(exported)
        )
