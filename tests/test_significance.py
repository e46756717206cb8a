"""Tests between models, against statsmodels, SciPy, examples worked by hand and simulations."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from statsmodels.stats.contingency_tables import mcnemar as oracle_mcnemar
from statsmodels.stats.multitest import multipletests

from fashion.evaluation import metrics, significance
from fashion.evaluation.predictions import Predictions


def correct(both: int, fixed: int, broken: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which images base and head classify correctly, given how many of each kind there are."""
    base = np.repeat([True, False, True, False], [both, fixed, broken, neither])
    head = np.repeat([True, True, False, False], [both, fixed, broken, neither])
    return base, head


@given(*[st.integers(0, 60)] * 4)
def test_mcnemar(both: int, fixed: int, broken: int, neither: int) -> None:
    found = significance.mcnemar(*correct(both, fixed, broken, neither))
    assert (found.fixed, found.broken) == (fixed, broken)
    if fixed + broken:
        assert found.p_value == pytest.approx(oracle_mcnemar([[both, broken], [fixed, neither]], exact=True).pvalue)
    else:
        assert found.p_value == 1


def test_holm_by_hand() -> None:
    """The smallest of three p-values is multiplied by 3, the next by 2; none may be below the one before."""
    assert significance.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert significance.holm([0.9, 0.6]) == [1.0, 1.0]


@pytest.mark.parametrize("others", [[], [0.5], [1e-9], [1e-9, 0.02, 0.9], [0.03, 0.03]])
def test_holm_level(others: list[float]) -> None:
    level = significance.holm_level(others, 0.05)
    assert significance.holm([*others, 0.999 * level])[-1] < 0.05
    assert significance.holm([*others, 1.001 * level])[-1] > 0.05


@pytest.mark.slow
@settings(max_examples=25)  # statsmodels collects garbage at every call
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm(p_values: list[float]) -> None:
    np.testing.assert_allclose(significance.holm(p_values), multipletests(p_values, method="holm")[1])


@pytest.mark.parametrize("differing", [0, 1, 5, 6, 7, 100, 601])
def test_min_significant_change(differing: int) -> None:
    found = significance.min_significant_change(differing, 0.05)
    p_values = {
        surplus: significance.mcnemar(*correct(0, (differing + surplus) // 2, (differing - surplus) // 2, 0)).p_value
        for surplus in range(differing % 2, differing + 1, 2)
    }
    assert found == min((surplus for surplus, p in p_values.items() if p < 0.05), default=None)


def predictions(skill: float, labels: np.ndarray, seed: int) -> Predictions:
    scores = np.random.default_rng(seed).normal(size=(len(labels), 4)) + skill * np.eye(4)[labels]
    return Predictions.of(np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True), labels, tuple("abcd"))


LABELS = np.random.default_rng(0).integers(0, 4, 500).astype(np.uint8)


def test_loss_change() -> None:
    """The interval of 500 images is close to the normal one."""
    base, head = predictions(1.5, LABELS, 1), predictions(1.8, LABELS, 2)
    found = significance.loss_change(base, head)
    changes = np.log(base.probability) - np.log(head.probability)
    error = norm.ppf(0.975) * changes.std(ddof=1) / len(LABELS) ** 0.5
    assert found.change == pytest.approx(changes.mean())
    assert found.change == pytest.approx(metrics.cross_entropy(head) - metrics.cross_entropy(base), abs=1e-12)
    assert (found.low, found.high) == pytest.approx((found.change - error, found.change + error), abs=0.1 * error)
    assert significance.loss_change(base, head) == found, "the resamples are the same every time"


def test_loss_change_of_one_image() -> None:
    base, head = predictions(1.5, LABELS[:1], 1), predictions(1.8, LABELS[:1], 2)
    assert not significance.loss_change(base, head).excludes_zero


def test_calibration_change() -> None:
    base, head = predictions(1.5, LABELS, 1), predictions(1.8, LABELS, 2)

    def change(before: Predictions, after: Predictions) -> float:
        return metrics.calibration_error(after, 10) - metrics.calibration_error(before, 10)

    def swapped_where(swap: np.ndarray, one: Predictions, other: Predictions) -> Predictions:
        columns = ("predicted", "confidence", "probability")
        return replace(one, **{name: np.where(swap, getattr(other, name), getattr(one, name)) for name in columns})

    found, p_value = significance.calibration_change(base, head, bins=10)
    assert found == pytest.approx(change(base, head))
    rng = np.random.default_rng(1)
    swapped = []
    for _ in range(1000):
        swap = rng.integers(0, 2, len(LABELS)).astype(bool)
        swapped.append(change(swapped_where(swap, base, head), swapped_where(swap, head, base)))
    assert p_value == pytest.approx(np.mean(np.abs(swapped) >= abs(found)), abs=0.05)


def test_calibration_false_positives() -> None:
    """Two well-calibrated models of the same kind: a tenth of the p-values are below 0.1."""
    labels = LABELS[:200]
    below = 0
    for seed in range(200):
        pair = (predictions(1.5, labels, 2 * seed), predictions(1.5, labels, 2 * seed + 1))
        below += significance.calibration_change(*pair, bins=10)[1] < 0.1
    assert 8 <= below <= 34, "three standard deviations"


def test_same_predictions() -> None:
    base = predictions(1.5, LABELS, 1)
    assert significance.loss_change(base, base) == significance.Interval(0.0, 0.0, 0.0)
    assert significance.calibration_change(base, base, bins=10) == (0, 1)


def test_recall_change_coverage() -> None:
    """3000 draws of 100 images each, of which 8% are fixed and 3% broken on average."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(3000):
        both, fixed, broken, neither = rng.multinomial(100, [0.8, 0.08, 0.03, 0.09])
        interval = significance.recall_change(*correct(both, fixed, broken, neither))
        assert interval.change == pytest.approx((fixed - broken) / 100)
        covered += interval.low <= 0.05 <= interval.high
    assert 0.94 < covered / 3000 < 0.985


def test_recall_change_by_hand() -> None:
    """Bonett and Price's formula: p = 9/102, q = 4/102, z = 1.96."""
    interval = significance.recall_change(*correct(80, 8, 3, 9))
    assert (interval.low, interval.high) == pytest.approx((-0.0194, 0.1174), abs=5e-4)
    assert not interval.excludes_zero
