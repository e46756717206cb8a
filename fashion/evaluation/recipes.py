"""Statistical comparison of two training recipes, from several models trained with each."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from scipy.stats import t

from fashion.evaluation.significance import Interval

CorrectBySeed = Bool[np.ndarray, "_ n"]
MIN_SEEDS = 3  # for a variance that means something
MAX_SEEDS = 1000


@dataclass(frozen=True)
class RecipeChange:
    """The change in mean test accuracy between two recipes.

    Attributes:
        accuracy: the change with its 95 % interval, for new seeds and new test images.
        p_value: two-sided, of no change.
        pairs: number of pairs of a model of base and a model of head.
        wins: number of pairs in which head's model is more accurate; ties count half.
        seeds_needed: number of seeds of each recipe from which on a change of this size would be significant; None if
            more than `MAX_SEEDS`, for example because the test set is too small.
    """

    accuracy: Interval
    p_value: float
    pairs: int
    wins: float
    seeds_needed: int | None


@dataclass(frozen=True)
class _Variance:
    """Components of the variance of the change; the first two shrink with the number of seeds.

    Attributes:
        base, head: of the accuracy of a single model on these test images.
        images: of the mean change, from the choice of test images.
        count: number of test images.
    """

    base: float
    head: float
    images: float
    count: int

    def test(self, change: float, base_seeds: int, head_seeds: int, level: float) -> tuple[float, float]:
        """Return the p-value of a change and half the width of its interval, given the number of seeds."""
        parts = np.array([self.base / base_seeds, self.head / head_seeds, self.images])
        variance = float(parts.sum())
        if not variance:
            return float(not change), 0.0
        freedom = variance**2 / float((parts**2 / [base_seeds - 1, head_seeds - 1, self.count - 1]).sum())
        error = math.sqrt(variance)
        return float(2 * t.sf(abs(change) / error, freedom)), float(t.isf(level / 2, freedom)) * error


def compare(base: CorrectBySeed, head: CorrectBySeed, level: float = 0.05) -> RecipeChange:
    """Compare two recipes, given which test images each of their models classifies correctly.

    A model's correctness on an image is modelled as a sum of random effects: of the seed, of the image (shared by all
    models, so the comparison is paired by image) and of their interaction. The variance components are estimated by
    the method of moments, that of the seeds as at least zero; the degrees of freedom are Satterthwaite's. If the test
    images contributed nothing, this would be Welch's t-test on the accuracies; if the seeds contributed nothing, the
    paired t-test on the images.

    Args:
        base: (seeds, n); at least two seeds, two images.
        head: likewise, for the same images; the number of seeds may differ.
        level: of significance, for `seeds_needed`.

    Source: S. R. Searle, G. Casella and C. E. McCulloch, Variance components, 1992, chapter 4; F. E. Satterthwaite, An
    approximate distribution of estimates of variance components, Biometrics Bulletin 2 (1946). The probability of
    outperforming is that of X. Bouthillier et al., Accounting for variance in machine learning benchmarks,
    arXiv:2103.03098.
    """
    accuracy_base, accuracy_head = base.mean(axis=1), head.mean(axis=1)
    change = float(accuracy_head.mean() - accuracy_base.mean())
    images = base.shape[1]
    interactions = interaction(base), interaction(head)
    by_image = float((head.mean(axis=0) - base.mean(axis=0)).var(ddof=1)) / images
    variance = _Variance(
        base=max(float(accuracy_base.var(ddof=1)), interactions[0]),
        head=max(float(accuracy_head.var(ddof=1)), interactions[1]),
        images=max(0.0, by_image - interactions[0] / len(base) - interactions[1] / len(head)),
        count=images,
    )
    p_value, half = variance.test(change, len(base), len(head), 0.05)
    margins = accuracy_head[:, None] - accuracy_base
    return RecipeChange(
        Interval(change, change - half, change + half),
        p_value,
        pairs=margins.size,
        wins=float((margins > 0).sum() + (margins == 0).sum() / 2),
        seeds_needed=_seeds_needed(variance, change, level),
    )


def interaction(correct: CorrectBySeed) -> float:
    """Return the part of the variance of the accuracies that is due to the interaction of seed and image.

    The rest is due to the seed alone: a good seed is better on all images.
    """
    seeds, images = correct.shape
    residuals = correct - correct.mean(axis=1, keepdims=True) - correct.mean(axis=0) + correct.mean()
    return float((residuals**2).sum() / ((seeds - 1) * (images - 1)) / images)


def _seeds_needed(variance: _Variance, change: float, level: float) -> int | None:
    """Return the smallest number of seeds of each recipe that makes a change significant, None if there is none.

    More seeds never make a change less significant, so the search halves the range.
    """

    def significant(seeds: int) -> bool:
        return variance.test(change, seeds, seeds, level)[0] < level

    if not significant(MAX_SEEDS):
        return None
    low, high = 1, MAX_SEEDS  # significant at `high`, not known to be at `low`
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if significant(middle) else (middle, high)
    return high
