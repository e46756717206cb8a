"""The results that the pipeline recorded of one model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fashion.evaluation.metrics import Probabilities
from fashion.files import read_json


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
        reports, models = Path("reports", name), Path("models", name)
        return cls(
            pd.read_csv(reports / "history.csv"),
            read_json(reports / "metrics.json"),
            np.load(models / "probabilities.npy"),
            read_json(reports / "export.json"),
            np.load(models / "exported_probabilities.npy"),
        )
