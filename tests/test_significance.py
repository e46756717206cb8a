"""Tests between models, against statsmodels, SciPy, cases worked by hand and simulations."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as oracle_mcnemar
from statsmodels.stats.multitest import multipletests

from fashion.evaluation import significance, metrics


def answers(both: int, fixed: int, broken: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which cases base and head get right, given how many of each kind there are."""
    base = np.repeat([True, False, True, False], [both, fixed, broken, neither])
    head = np.repeat([True, True, False, False], [both, fixed, broken, neither])
    return base, head


@given(*[st.integers(0, 60)] * 4)
def test_mcnemar_is_statsmodels(both: int, fixed: int, broken: int, neither: int) -> None:
    found = comparison.mcnemar(*answers(both, fixed, broken, neither))
    assert (found.fixed, found.broken) == (fixed, broken)
    if fixed + broken:
        assert found.p_value == pytest.approx(oracle_mcnemar([[both, broken], [fixed, neither]], exact=True).pvalue)
    else:
        assert found.p_value == 1


def test_mcnemar_by_hand() -> None:
    """Twelve cases differ, ten for the better: the tails of twelve tosses of a coin."""
    expected = 2 * (comb(12, 0) + comb(12, 1) + comb(12, 2)) / 2**12
    assert comparison.mcnemar(*answers(500, 10, 2, 30)).p_value == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_statsmodels(p_values: list[float]) -> None:
    np.testing.assert_allclose(comparison.holm(p_values), multipletests(p_values, method="holm")[1])


@pytest.mark.parametrize("differing", [0, 1, 5, 6, 7, 100, 601])
def test_smallest_significant_change_is_where_the_test_turns(differing: int) -> None:
    found = comparison.min_significant_change(differing, 0.05)
    p_values = {
        surplus: comparison.mcnemar(*answers(0, (differing + surplus) // 2, (differing - surplus) // 2, 0)).p_value
        for surplus in range(differing % 2, differing + 1, 2)
    }
    assert found == min((surplus for surplus, p in p_values.items() if p < 0.05), default=None)


def guesses(skill: float, labels: np.ndarray, seed: int) -> np.ndarray:
    scores = np.random.default_rng(seed).normal(size=(len(labels), 4)) + skill * np.eye(4)[labels]
    return np.asarray(np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True))


LABELS = np.random.default_rng(0).integers(0, 4, 500).astype(np.uint8)


def test_the_interval_of_the_loss_is_scipys() -> None:
    base, head = guesses(1.5, LABELS, 1), guesses(1.8, LABELS, 2)
    found = comparison.loss_change(base, head, LABELS)

    def change(cases: np.ndarray) -> float:
        return metrics.cross_entropy(head[cases], LABELS[cases]) - metrics.cross_entropy(base[cases], LABELS[cases])

    cases = np.arange(len(LABELS))
    drawn = {"vectorized": False, "method": "percentile", "n_resamples": comparison.RESAMPLES, "rng": 1}
    low, high = stats.bootstrap((cases,), change, **drawn).confidence_interval
    assert found.change == pytest.approx(change(cases))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_the_p_value_of_the_calibration_is_scipys() -> None:
    base, head = guesses(1.5, LABELS, 1), guesses(1.8, LABELS, 2)

    def change(before: np.ndarray, after: np.ndarray) -> float:
        errors = (metrics.calibration_error(p, LABELS, 10) for p in (after, before))
        return next(errors) - next(errors)

    found, p_value = comparison.calibration_change(base, head, LABELS, bins=10)
    assert found == pytest.approx(change(base, head))
    rng = np.random.default_rng(1)
    swapped = []
    for _ in range(1000):
        swap = rng.integers(0, 2, (len(LABELS), 1)).astype(bool)
        swapped.append(change(np.where(swap, head, base), np.where(swap, base, head)))
    assert p_value == pytest.approx(np.mean(np.abs(swapped) >= abs(found)), abs=0.05)


def test_calibration_is_called_different_as_seldom_as_the_level_says() -> None:
    """Two models of the same kind, well calibrated: p-values below 0.1 in a tenth of 200 cases."""
    labels = LABELS[:200]
    below = 0
    for seed in range(200):
        pair = (guesses(1.5, labels, 2 * seed), guesses(1.5, labels, 2 * seed + 1))
        below += comparison.calibration_change(*pair, labels, bins=10)[1] < 0.1
    assert 8 <= below <= 34, "three standard deviations"


def test_the_same_predictions_have_no_change() -> None:
    base = guesses(1.5, LABELS, 1)
    assert comparison.loss_change(base, base, LABELS) == comparison.Interval(0.0, 0.0, 0.0)
    assert comparison.calibration_change(base, base, LABELS, bins=10) == (0, 1)


def test_share_change_covers_the_truth_as_often_as_it_says() -> None:
    """3000 draws of 100 cases each, of which 8 % are fixed and 3 % broken on average."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(3000):
        both, fixed, broken, neither = rng.multinomial(100, [0.8, 0.08, 0.03, 0.09])
        interval = comparison.share_change(*answers(both, fixed, broken, neither))
        assert interval.change == pytest.approx((fixed - broken) / 100)
        covered += interval.low <= 0.05 <= interval.high
    assert 0.94 < covered / 3000 < 0.985


def test_share_change_by_hand() -> None:
    """Bonett and Price's formula: p = 9/102, q = 4/102, z = 1.96."""
    interval = comparison.share_change(*answers(80, 8, 3, 9))
    assert (interval.low, interval.high) == pytest.approx((-0.0194, 0.1174), abs=5e-4)
    assert not interval.excludes_zero
