"""The predictions of a model for a test set: what its metrics, its figures and a review need."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64, Shaped

from fashion.data.dataset import Split, blocks
from fashion.errors import UserError
from fashion.evaluation.tables import read_csv

Probabilities = Shaped[np.ndarray, "n classes"]
Labels = Shaped[np.ndarray, "n"]

REQUIRED = ["actual", "predicted"]
OPTIONAL = ["confidence", "probability"]


@dataclass(frozen=True)
class Predictions:
    """The prediction for each example of a test set.

    Attributes:
        classes: names of the classes, in the order of their numbers.
        labels: (n,), the actual class of each example.
        predicted: (n,), the predicted class: the one with the highest probability.
        confidence: (n,), the probability of the predicted class; NaN if the model gives none.
        probability: (n,), the probability of the actual class; NaN if the model gives none.
    """

    classes: tuple[str, ...]
    labels: Labels
    predicted: Labels
    confidence: Float64[np.ndarray, "n"]
    probability: Float64[np.ndarray, "n"]

    @classmethod
    def of(cls, probabilities: Probabilities, labels: Labels, classes: tuple[str, ...]) -> "Predictions":
        """Return the predictions of a model.

        Args:
            probabilities: (n, classes), probability of each class for each example; rows sum to 1.
            labels: (n,), the actual class of each example.
            classes: names of the classes, in the order of the labels.
        """
        rows = np.arange(len(labels))
        return cls(
            classes,
            labels,
            probabilities.argmax(axis=1),
            probabilities.max(axis=1).astype(np.float64),
            probabilities[rows, labels].astype(np.float64),
        )

    @classmethod
    def parse(cls, content: bytes, classes: tuple[str, ...], name: str) -> "Predictions":
        """Read what `to_csv` writes; confidence and probability may be missing.

        Args:
            content: content of the file.
            classes: names of the classes.
            name: name of the file, for error messages.

        Raises:
            UserError: it is not such a table, or has an unknown class.
        """
        try:
            table = read_csv(content, dict.fromkeys(REQUIRED, str) | dict.fromkeys(OPTIONAL, np.float64))
        except ValueError as error:
            raise UserError(f"{name} is not a table of predictions: {error}") from error
        if list(table) not in (REQUIRED, REQUIRED + OPTIONAL) or not len(table):
            raise UserError(
                f"{name}: expected a row per example with the columns {', '.join(REQUIRED + OPTIONAL)} (the last two "
                f"may be missing), found {len(table)} rows with the columns {', '.join(map(str, table))}"
            )
        if unknown := sorted({*table["actual"], *table["predicted"]} - {*classes}):
            raise UserError(f"{name}: found the class {unknown[0]!r}, expected one of {', '.join(classes)}")
        numbers = {one: number for number, one in enumerate(classes)}
        labels, predicted = (table[column].map(numbers).to_numpy(np.int64) for column in REQUIRED)
        if "probability" not in table:
            return cls(classes, labels, predicted, *np.full((2, len(table)), np.nan))
        confidence, probability = (table[column].to_numpy() for column in OPTIONAL)
        if not all((values >= 0).all() and (values <= 1).all() for values in (confidence, probability)):
            raise UserError(f"{name}: expected probabilities from 0 to 1")
        return cls(classes, labels, predicted, confidence, probability)

    def to_csv(self) -> str:
        """Return a row per example: actual, predicted (names), confidence, probability (four significant digits)."""
        names = np.array(self.classes, dtype=object)
        table = pd.DataFrame({"actual": names[self.labels], "predicted": names[self.predicted]})
        if self.has_probabilities:
            table = table.assign(confidence=self.confidence, probability=self.probability)
        return table.to_csv(index=False, float_format="%.4g")

    @property
    def has_probabilities(self) -> bool:
        """Whether the model gives probabilities."""
        return not np.isnan(self.probability).any()

    @property
    def correct(self) -> Bool[np.ndarray, "n"]:
        """Whether each prediction is correct."""
        return np.asarray(self.predicted == self.labels)

    def take(self, indices: Int64[np.ndarray, "m"]) -> "Predictions":
        """Return the predictions at `indices`, in that order."""
        columns = (self.labels, self.predicted, self.confidence, self.probability)
        return Predictions(self.classes, *(column[indices] for column in columns))

    def same_as(self, other: "Predictions") -> bool:
        """Return whether all predictions are equal."""
        return np.array_equal(self.predicted, other.predicted) and all(
            np.array_equal(mine, theirs, equal_nan=True)
            for mine, theirs in ((self.confidence, other.confidence), (self.probability, other.probability))
        )


def sha256(test: Split) -> str:
    """Return the SHA-256 of a test set: of the shape of its images, their pixel values and their labels."""
    digest = hashlib.sha256(json.dumps(test.images.shape).encode())
    for block in blocks(len(test.images), test.image_shape):
        digest.update(test.images[block].tobytes())
    digest.update(test.labels.tobytes())
    return digest.hexdigest()
