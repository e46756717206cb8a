"""Metrics of predicted probabilities."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64, Shaped
from scipy.stats import binomtest

Probabilities = Shaped[np.ndarray, "n classes"]
Labels = Shaped[np.ndarray, "n"]
Confusion = Int64[np.ndarray, "classes classes"]
ByClass = Float64[np.ndarray, "classes"]


def summary(probabilities: Probabilities, labels: Labels, classes: tuple[str, ...], bins: int) -> dict[str, Any]:
    """Return the metrics of one model on one set of images, ready to be written as JSON.

    Args:
        probabilities: (n, classes), probability of each class for each image; rows sum to 1.
        labels: (n,), the actual class of each image.
        classes: names of the classes, in the order of the labels.
        bins: number of bins of the calibration error.

    Returns:
        Accuracy with its 95 % interval, balanced accuracy, macro-averaged F1, cross-entropy, calibration error, and
        recall and precision by class (0 for a class that is never predicted), rounded to six decimals.
    """
    matrix = confusion_matrix(probabilities, labels)
    correct = int(np.trace(matrix))
    low, high = wilson_interval(correct, len(labels))
    with np.errstate(invalid="ignore"):  # a class that is never predicted: 0 / 0
        precision = np.nan_to_num(np.diag(matrix) / matrix.sum(axis=0))
    return {
        "accuracy": round(correct / len(labels), 6),
        "accuracy_interval": {"low": round(low, 6), "high": round(high, 6)},
        "balanced_accuracy": round(balanced_accuracy(matrix), 6),
        "macro_f1": round(macro_f1(matrix), 6),
        "loss": round(cross_entropy(probabilities, labels), 6),
        "calibration_error": round(calibration_error(probabilities, labels, bins), 6),
        "recall": {name: round(float(value), 6) for name, value in zip(classes, recall(matrix), strict=True)},
        "precision": {name: round(float(value), 6) for name, value in zip(classes, precision, strict=True)},
    }


def confusion_matrix(probabilities: Probabilities, labels: Labels) -> Confusion:
    """Return the number of images of each actual class (row) that are predicted as each class (column)."""
    classes = probabilities.shape[1]
    pairs = labels.astype(np.int64) * classes + probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def balanced_accuracy(matrix: Confusion) -> float:
    """Return the mean recall of the classes that occur, from a confusion matrix."""
    return float(np.nanmean(recall(matrix)))


def macro_f1(matrix: Confusion) -> float:
    """Return the mean F1 score of the classes that occur or are predicted, from a confusion matrix."""
    return float(np.nanmean(f1(matrix)))


def recall(matrix: Confusion) -> ByClass:
    """Return the fraction of each class's images that are predicted as it; NaN for a class without images."""
    with np.errstate(invalid="ignore"):  # 0 / 0
        return np.asarray(np.diag(matrix) / matrix.sum(axis=1))


def f1(matrix: Confusion) -> ByClass:
    """Return the harmonic mean of each class's recall and precision; NaN if it neither occurs nor is predicted."""
    with np.errstate(invalid="ignore"):  # 0 / 0
        return np.asarray(2 * np.diag(matrix) / (matrix.sum(axis=0) + matrix.sum(axis=1)))


def confusion_csv(probabilities: Probabilities, labels: Labels, classes: tuple[str, ...]) -> str:
    """Return the confusion matrix as CSV: a row per cell with the columns actual, predicted, count."""
    matrix = confusion_matrix(probabilities, labels)
    cells = pd.MultiIndex.from_product([classes, classes], names=["actual", "predicted"])
    return pd.DataFrame({"count": matrix.ravel()}, index=cells).to_csv()


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def cross_entropy(probabilities: Probabilities, labels: Labels) -> float:
    """Return the mean of `log_losses`."""
    return float(log_losses(probabilities, labels).mean())


def log_losses(probabilities: Probabilities, labels: Labels) -> Float64[np.ndarray, "n"]:
    """Return the negative natural logarithm of each image's probability of the actual class.

    Probabilities are clipped at 1e-7, as in Keras, so that no loss is infinite.
    """
    given = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return np.asarray(-np.log(np.maximum(given, 1e-7)))


def calibration_error(probabilities: Probabilities, labels: Labels, bins: int) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy, weighted by bin.

    Source: C. Guo et al., On calibration of modern neural networks, ICML 2017, with bins as in `confidence_bins`.
    """
    images, confidence, accuracy = reliability(probabilities, labels, bins)
    return float((images * np.abs(confidence - accuracy)).sum() / images.sum())


def reliability(
    probabilities: Probabilities, labels: Labels, bins: int
) -> tuple[Int64[np.ndarray, "bins"], Float64[np.ndarray, "bins"], Float64[np.ndarray, "bins"]]:
    """Return each bin's number of images, mean confidence and accuracy; an empty bin has confidence and accuracy 0."""
    confidence, correct, bin_of = confidence_bins(probabilities, labels, bins)
    images = np.bincount(bin_of, minlength=bins)
    divisor = np.maximum(images, 1)
    return (
        images,
        np.bincount(bin_of, weights=confidence, minlength=bins) / divisor,
        np.bincount(bin_of, weights=correct, minlength=bins) / divisor,
    )


def confidence_bins(
    probabilities: Probabilities, labels: Labels, bins: int
) -> tuple[Float64[np.ndarray, "n"], Bool[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
    """Return each image's confidence, whether its prediction is correct, and the bin of its confidence.

    The confidence is the probability of the predicted class. The bins are equal intervals of [0, 1], numbered from 0;
    each includes its upper end.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return confidence, np.asarray(probabilities.argmax(axis=1) == labels), bin_of


def most_confident_mistakes(probabilities: Probabilities, labels: Labels, count: int) -> Int64[np.ndarray, "m"]:
    """Return the indices of up to `count` misclassified images, the most confident first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return wrong[order[:count]]
