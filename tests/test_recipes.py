"""The comparison of two recipes, against SciPy, statsmodels and simulations."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t, ttest_ind, ttest_ind_from_stats, ttest_rel
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from fashion.evaluation import recipes
from fashion.evaluation.recipes import MAX_SEEDS


def trials(rng: np.random.Generator, easy: np.ndarray, spread: float, seeds: int) -> np.ndarray:
    """Return correct predictions: each image with its probability, plus an effect of the seed."""
    effect = spread * rng.standard_normal((seeds, 1))
    return np.asarray(rng.random((seeds, len(easy))) < easy + effect)


def test_only_images_vary() -> None:
    """All seeds give the same model: this is the paired t-test on the images."""
    rng = np.random.default_rng(0)
    base, head = rng.random((2, 1, 400)) < 0.8
    found = recipes.compare(np.repeat(base, 3, axis=0), np.repeat(head, 5, axis=0))
    expected = ttest_rel(head[0].astype(float), base[0].astype(float))
    assert found.p_value == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (found.accuracy.low, found.accuracy.high) == pytest.approx((interval.low, interval.high))


def test_only_seeds_vary() -> None:
    """Each model is correct on all images or on none: this is Welch's t-test on the accuracies."""
    base = np.repeat([[1], [0], [0], [1], [0]], 50, axis=1).astype(bool)
    head = np.repeat([[1], [1], [0], [1]], 50, axis=1).astype(bool)
    found = recipes.compare(base, head)
    expected = ttest_ind(head.mean(axis=1), base.mean(axis=1), equal_var=False)
    assert found.p_value == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (found.accuracy.low, found.accuracy.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_analysis_of_variance(spread: float) -> None:
    """Standard error and degrees of freedom from the mean squares of statsmodels; the seeds' may be too small."""
    rng = np.random.default_rng(4)
    easy = rng.uniform(0.3, 1, (2, 40))
    base, head = trials(rng, easy[0], spread, 4), trials(rng, easy[1], spread, 5)
    variances, freedoms, interactions = [], [], 0.0
    for correct in (base, head):
        seeds, images = np.indices(correct.shape).reshape(2, -1)
        table = pd.DataFrame({"y": correct.ravel().astype(float), "seed": seeds, "image": images})
        anova = anova_lm(ols("y ~ C(seed) + C(image)", table).fit())
        squares = anova["sum_sq"] / anova["df"]
        term = "C(seed)" if squares["C(seed)"] > squares["Residual"] else "Residual"
        variances.append(squares[term] / correct.size)
        freedoms.append(anova["df"][term])
        interactions += squares["Residual"] / correct.size
    assert bool(max(freedoms) < 10) is (spread > 0)
    variances.append(np.var(head.mean(axis=0) - base.mean(axis=0), ddof=1) / 40 - interactions)
    freedoms.append(39)
    assert variances[2] > 0
    found = recipes.compare(base, head)
    error = sum(variances) ** 0.5
    freedom = sum(variances) ** 2 / sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
    assert found.p_value == pytest.approx(2 * t.sf(abs(found.accuracy.change) / error, freedom))
    assert found.accuracy.high - found.accuracy.change == pytest.approx(t.ppf(0.975, freedom) * error)


def test_by_hand() -> None:
    """Accuracies 0.5, 0.75 and 0.5 against 1, 0.75 and 0.75: of nine pairs, head wins seven and two are ties."""
    base = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0]], bool)
    head = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0]], bool)
    found = recipes.compare(base, head)
    assert (found.pairs, found.wins) == (9, 8)
    assert found.accuracy.change == pytest.approx(0.25)
    swapped = recipes.compare(head, base)
    assert (swapped.wins, swapped.p_value) == (1, found.p_value)
    assert (swapped.accuracy.low, swapped.accuracy.high) == pytest.approx((-found.accuracy.high, -found.accuracy.low))


def test_equal() -> None:
    same = np.ones((3, 10), bool)
    found = recipes.compare(same, same)
    assert (found.accuracy.change, found.p_value, found.wins, found.seeds_needed) == (0, 1, 4.5, None)


@pytest.mark.parametrize("spread", [0.0, 0.01])
@pytest.mark.parametrize("seeds", [3, 5])
def test_coverage(seeds: int, spread: float) -> None:
    """The interval covers the true change, here zero, in 95 of 100 simulations, if seeds and images both vary."""
    rng = np.random.default_rng(seeds)
    repetitions = 1000
    covered = 0
    for _ in range(repetitions):
        hard = rng.random(1000) < 0.2
        easy_base, easy_head = (np.where(hard, rng.uniform(0, 1, 1000), 0.97) for _ in range(2))
        found = recipes.compare(trials(rng, easy_base, spread, seeds), trials(rng, easy_head, spread, seeds))
        covered += not found.accuracy.excludes_zero
    assert 0.93 <= covered / repetitions <= 0.995


def test_seeds_needed() -> None:
    """If only the seeds vary, Welch's t-test finds the same mean and deviations significant from that number on."""
    rng = np.random.default_rng(1)
    base, head = (np.repeat(rng.random((6, 1)) < easy, 50, axis=1) for easy in (0.5, 0.6))
    needed = recipes.compare(base, head).seeds_needed
    means = [correct.mean() for correct in (base, head)]
    deviations = [correct.mean(axis=1).std(ddof=1) for correct in (base, head)]
    significant = [
        seeds
        for seeds in range(2, MAX_SEEDS)
        if ttest_ind_from_stats(means[0], deviations[0], seeds, means[1], deviations[1], seeds, equal_var=False)[1]
        < 0.05
    ]
    assert needed == significant[0] > 6


def test_bad_index() -> None:
    with pytest.raises(ValueError, match=r"test image index -1 is out of range \(0 to 3\)"):
        recipes.correct_by_seed(["2", "-1 2 9"], 4)


def test_a_small_test_set_settles_nothing() -> None:
    rng = np.random.default_rng(0)
    easy = rng.random((2, 50)) < 0.8
    base, head = (np.repeat(row[None], 5, axis=0) for row in easy)
    found = recipes.compare(base, head)
    assert found.p_value > 0.05
    assert found.seeds_needed is None
