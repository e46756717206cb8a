"""Metrics against scikit-learn, a published table and examples worked by hand."""

import numpy as np
import pytest
from sklearn import metrics as oracle

from fashion.evaluation import metrics
from fashion.evaluation.predictions import Predictions

CLASSES = ("a", "b", "c", "d")


def predictions(count: int = 400, seed: int = 0) -> tuple[np.ndarray, Predictions]:
    """Return probabilities and the predictions made from them."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, len(CLASSES), count).astype(np.uint8)
    scores = generator.normal(size=(count, len(CLASSES))) + 1.5 * np.eye(len(CLASSES))[labels]
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return probabilities, Predictions.of(probabilities, labels, CLASSES)


def test_summary() -> None:
    probabilities, found = predictions()
    summary = metrics.summary(found, bins=10)
    assert summary["accuracy"] == pytest.approx(oracle.accuracy_score(found.labels, found.predicted), abs=1e-6)
    assert summary["loss"] == pytest.approx(oracle.log_loss(found.labels, probabilities), abs=1e-6)
    for name in ("recall", "precision"):
        theirs = getattr(oracle, f"{name}_score")(found.labels, found.predicted, average=None)
        np.testing.assert_allclose(list(summary[name].values()), theirs, atol=1e-6)
        assert tuple(summary[name]) == CLASSES


def test_unequal_classes() -> None:
    _, found = predictions()
    found = found.take(np.flatnonzero((found.labels != 0) | (np.arange(len(found.labels)) % 10 == 0)))
    labels, predicted = found.labels, found.predicted
    summary = metrics.summary(found, bins=10)
    balanced_accuracy = oracle.balanced_accuracy_score(labels, predicted)
    assert summary["balanced_accuracy"] == pytest.approx(balanced_accuracy, abs=1e-6)
    assert summary["balanced_accuracy"] != summary["accuracy"]
    assert summary["macro_f1"] == pytest.approx(oracle.f1_score(labels, predicted, average="macro"), abs=1e-6)
    np.testing.assert_allclose(
        metrics.f1(metrics.confusion_matrix(found)), oracle.f1_score(labels, predicted, average=None)
    )


def test_confusion_matrix() -> None:
    _, found = predictions()
    np.testing.assert_array_equal(
        metrics.confusion_matrix(found), oracle.confusion_matrix(found.labels, found.predicted)
    )


def of_two(probabilities: list[list[float]], labels: list[int]) -> Predictions:
    return Predictions.of(np.array(probabilities), np.array(labels, np.uint8), ("cat", "dog"))


def test_class_never_predicted() -> None:
    summary = metrics.summary(of_two([[0.9, 0.1], [0.8, 0.2]], [0, 1]), bins=5)
    assert summary["precision"] == {"cat": 0.5, "dog": 0.0}
    assert (summary["balanced_accuracy"], summary["macro_f1"]) == (0.5, pytest.approx(1 / 3, abs=1e-6))


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval(successes: int, trials: int, low: float, high: float) -> None:
    """R. G. Newcombe, Two-sided confidence intervals for the single proportion, Stat. Med. 17 (1998), table I."""
    assert metrics.wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_calibration_error() -> None:
    """Bins of 0.6 and of 0.8, neither correct, and of 0.9 and 1.0, both correct."""
    found = of_two([[0.6, 0.4], [0.8, 0.2], [0.9, 0.1], [1.0, 0.0]], [1, 1, 0, 0])
    images, mean, accuracy = metrics.reliability(found, bins=5)
    np.testing.assert_array_equal(images, [0, 0, 1, 1, 2])
    np.testing.assert_allclose(mean, [0, 0, 0.6, 0.8, 0.95])
    np.testing.assert_allclose(accuracy, [0, 0, 0, 0, 1])
    assert metrics.calibration_error(found, bins=5) == pytest.approx((0.6 + 0.8 + 2 * 0.05) / 4)


def test_clipped_loss() -> None:
    assert metrics.cross_entropy(of_two([[1.0, 0.0]], [1])) == pytest.approx(-np.log(1e-7))


def test_most_confident_mistakes() -> None:
    found = of_two([[0.6, 0.4], [0.9, 0.1], [0.3, 0.7], [0.8, 0.2]], [1, 1, 1, 0])
    np.testing.assert_array_equal(metrics.most_confident_mistakes(found, 5), [1, 0])
    np.testing.assert_array_equal(metrics.most_confident_mistakes(found, 1), [1])
