"""How good predicted probabilities are."""

from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64, Shaped

NORMAL_QUANTILE_95 = NormalDist().inv_cdf(0.975)

Probabilities = Shaped[np.ndarray, "n classes"]
Labels = Shaped[np.ndarray, "n"]


def summary(probabilities: Probabilities, labels: Labels, classes: tuple[str, ...], bins: int) -> dict[str, Any]:
    """Return the metrics of one model on one set of images, ready to be written as JSON.

    Args:
        probabilities: of each class, for each image; rows sum to 1.
        labels: the actual class of each image.
        classes: the names of the classes.
        bins: of the calibration error.
    """
    matrix = confusion_matrix(probabilities, labels)
    correct = int(np.trace(matrix))
    low, high = wilson_interval(correct, len(labels))
    with np.errstate(invalid="ignore"):  # the precision of a class that was never predicted is not a number
        recall = np.diag(matrix) / matrix.sum(axis=1)
        precision = np.nan_to_num(np.diag(matrix) / matrix.sum(axis=0))
    return {
        "accuracy": round(correct / len(labels), 6),
        "accuracy_interval": {"low": round(low, 6), "high": round(high, 6)},
        "loss": round(cross_entropy(probabilities, labels), 6),
        "calibration_error": round(calibration_error(probabilities, labels, bins), 6),
        "recall": {name: round(float(value), 6) for name, value in zip(classes, recall, strict=True)},
        "precision": {name: round(float(value), 6) for name, value in zip(classes, precision, strict=True)},
    }


def confusion_matrix(probabilities: Probabilities, labels: Labels) -> Int64[np.ndarray, "classes classes"]:
    """Return how many images of each actual class (row) were predicted as each class (column)."""
    classes = probabilities.shape[1]
    pairs = labels.astype(np.int64) * classes + probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def confusion_csv(probabilities: Probabilities, labels: Labels, classes: tuple[str, ...]) -> str:
    """Return the confusion matrix as CSV: a row per cell with the columns actual, predicted, count."""
    matrix = confusion_matrix(probabilities, labels)
    cells = pd.MultiIndex.from_product([classes, classes], names=["actual", "predicted"])
    return pd.DataFrame({"count": matrix.ravel()}, index=cells).to_csv()


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    z2 = NORMAL_QUANTILE_95**2
    centre = (successes + z2 / 2) / (trials + z2)
    half = NORMAL_QUANTILE_95 / (trials + z2) * (successes * (trials - successes) / trials + z2 / 4) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def cross_entropy(probabilities: Probabilities, labels: Labels) -> float:
    """Return the mean negative natural logarithm of the probability given to the actual class.

    Probabilities are clipped at 1e-7, as Keras does, so that one image cannot make the mean infinite.
    """
    given = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(given, 1e-7)).mean())


def calibration_error(probabilities: Probabilities, labels: Labels, bins: int) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy, weighted by bin.

    Source: C. Guo et al., On calibration of modern neural networks, ICML 2017, with bins as in `reliability`.
    """
    images, confidence, accuracy = reliability(probabilities, labels, bins)
    return float((images * np.abs(confidence - accuracy)).sum() / images.sum())


def reliability(
    probabilities: Probabilities, labels: Labels, bins: int
) -> tuple[Int64[np.ndarray, "bins"], Float64[np.ndarray, "bins"], Float64[np.ndarray, "bins"]]:
    """Return, for `bins` equal intervals of confidence, the images, their mean confidence and their accuracy.

    Confidence is the probability of the predicted class. An interval includes its upper end. An empty one has
    confidence and accuracy 0.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    images = np.bincount(bin_of, minlength=bins)
    divisor = np.maximum(images, 1)
    return (
        images,
        np.bincount(bin_of, weights=confidence, minlength=bins) / divisor,
        np.bincount(bin_of, weights=correct, minlength=bins) / divisor,
    )


def most_confident_mistakes(probabilities: Probabilities, labels: Labels, count: int) -> Int64[np.ndarray, "m"]:
    """Return the indices of up to `count` wrongly classified images, the highest confidence first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return wrong[order[:count]]
