"""Metrics of predictions."""

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from scipy.stats import binomtest

from fashion.evaluation.predictions import Predictions

Confusion = Int64[np.ndarray, "classes classes"]
ByClass = Float64[np.ndarray, "classes"]


def summary(predictions: Predictions, bins: int) -> dict[str, Any]:
    """Return the metrics of a model, ready to be written as JSON.

    Args:
        predictions: with confidences and probabilities.
        bins: number of bins of the calibration error.

    Returns:
        Accuracy with its 95% interval, balanced accuracy, macro-averaged F1, cross-entropy, calibration error, and
        recall and precision by class (0 for a class that is never predicted), rounded to six decimals.
    """
    matrix, classes = confusion_matrix(predictions), predictions.classes
    correct, images = int(np.trace(matrix)), len(predictions.labels)
    low, high = wilson_interval(correct, images)
    with np.errstate(invalid="ignore"):  # a class that is never predicted: 0 / 0
        precision = np.nan_to_num(np.diag(matrix) / matrix.sum(axis=0))
    return {
        "accuracy": round(correct / images, 6),
        "accuracy_interval": {"low": round(low, 6), "high": round(high, 6)},
        "balanced_accuracy": round(balanced_accuracy(matrix), 6),
        "macro_f1": round(macro_f1(matrix), 6),
        "loss": round(cross_entropy(predictions), 6),
        "calibration_error": round(calibration_error(predictions, bins), 6),
        "recall": {name: round(float(value), 6) for name, value in zip(classes, recall(matrix), strict=True)},
        "precision": {name: round(float(value), 6) for name, value in zip(classes, precision, strict=True)},
    }


def confusion_matrix(predictions: Predictions) -> Confusion:
    """Return the number of images of each actual class (row) that are predicted as each class (column)."""
    classes = len(predictions.classes)
    pairs = predictions.labels.astype(np.int64) * classes + predictions.predicted
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


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95% score interval of a proportion.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def cross_entropy(predictions: Predictions) -> float:
    """Return the mean of `log_losses`."""
    return float(log_losses(predictions).mean())


def log_losses(predictions: Predictions) -> Float64[np.ndarray, "n"]:
    """Return the negative natural logarithm of each image's probability of the actual class.

    Probabilities are clipped at 1e-7, as in Keras, so that no loss is infinite.
    """
    return np.asarray(-np.log(np.maximum(predictions.probability, 1e-7)))


def calibration_error(predictions: Predictions, bins: int) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy, weighted by bin.

    Source: C. Guo et al., On calibration of modern neural networks, ICML 2017, with bins as in `confidence_bins`.
    """
    images, confidence, accuracy = reliability(predictions, bins)
    return float((images * np.abs(confidence - accuracy)).sum() / images.sum())


def reliability(
    predictions: Predictions, bins: int
) -> tuple[Int64[np.ndarray, "bins"], Float64[np.ndarray, "bins"], Float64[np.ndarray, "bins"]]:
    """Return each bin's number of images, mean confidence and accuracy; an empty bin has confidence and accuracy 0."""
    bin_of = confidence_bins(predictions, bins)
    images = np.bincount(bin_of, minlength=bins)
    divisor = np.maximum(images, 1)
    return (
        images,
        np.bincount(bin_of, weights=predictions.confidence, minlength=bins) / divisor,
        np.bincount(bin_of, weights=predictions.correct, minlength=bins) / divisor,
    )


def confidence_bins(predictions: Predictions, bins: int) -> Int64[np.ndarray, "n"]:
    """Return the bin of each image's confidence.

    The bins are equal intervals of [0, 1], numbered from 0; each includes its upper end.
    """
    return np.asarray(np.clip(np.ceil(predictions.confidence * bins).astype(np.int64) - 1, 0, bins - 1))


def most_confident_mistakes(predictions: Predictions, count: int) -> Int64[np.ndarray, "m"]:
    """Return the indices of up to `count` misclassified images, the most confident first."""
    wrong = np.flatnonzero(~predictions.correct)
    order = np.argsort(-predictions.confidence[wrong], kind="stable")
    return wrong[order[:count]]
