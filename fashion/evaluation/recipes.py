"""Statistical comparison of two training recipes, from several models trained with each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.stats import t

from fashion.evaluation.significance import Interval

CorrectBySeed = Bool[np.ndarray, "_ n"]
MAX_SEEDS = 1000
EPSILON = 1e-150  # avoids 0 / 0 if all models are equal


@dataclass(frozen=True)
class RecipeChange:
    """The change in mean test accuracy between two recipes.

    Attributes:
        accuracy: the change with its 95% interval, which allows for the choice of seeds and test images.
        p_value: two-sided, for the null hypothesis of no change.
        pairs: number of pairs of a model of base and a model of head.
        wins: number of pairs in which head's model is more accurate; ties count half.
        seeds_needed: smallest number of seeds per recipe at which a change of this size would be significant; None if
            it is not with `MAX_SEEDS`, for example because the test set is too small.
    """

    accuracy: Interval
    p_value: float
    pairs: int
    wins: float
    seeds_needed: int | None


def correct_by_seed(errors: Sequence[str], images: int) -> CorrectBySeed:
    """Return which test images each trial classifies correctly.

    Args:
        errors: for each trial, the indices of the misclassified images, separated by spaces.
        images: number of test images.

    Raises:
        ValueError: an index is not a number from 0 to `images` - 1.
    """
    correct = np.ones((len(errors), images), bool)
    for row, text in zip(correct, errors, strict=True):
        indices = np.array(text.split(), np.int64)
        wrong = indices[(indices < 0) | (indices >= images)]
        if len(wrong):
            raise ValueError(f"test image index {wrong[0]} is out of range (0 to {images - 1})")
        row[indices] = False
    return correct


def compare(base: CorrectBySeed, head: CorrectBySeed, level: float = 0.05) -> RecipeChange:
    """Compare two recipes, given which test images each of their models classifies correctly.

    Whether a model is correct on an image is modelled as a sum of random effects: of the seed, of the image (shared by
    all models, so the comparison is paired by image) and of their interaction. Their variances are estimated by the
    method of moments, with negative estimates set to zero, and the degrees of freedom are Satterthwaite's. Without
    variation between images, this is Welch's t-test on the accuracies; without variation between seeds, the paired
    t-test on the images.

    Args:
        base: (seeds, n); at least two seeds and two images.
        head: likewise, for the same images; the number of seeds may differ.
        level: of significance, for `seeds_needed`.

    Source: S. R. Searle, G. Casella and C. E. McCulloch, Variance components, 1992, chapter 4; F. E. Satterthwaite, An
    approximate distribution of estimates of variance components, Biometrics Bulletin 2 (1946). wins / pairs estimates
    the probability of outperforming of X. Bouthillier et al., Accounting for variance in machine learning benchmarks,
    arXiv:2103.03098, without pairing by seed.
    """
    accuracies = [correct.mean(axis=1) for correct in (base, head)]
    change = float(accuracies[1].mean() - accuracies[0].mean())
    images = base.shape[1]
    interactions = np.array([interaction(correct) for correct in (base, head)])
    of_seeds = np.array([accuracy.var(ddof=1) for accuracy in accuracies])
    floor = of_seeds < interactions  # a negative estimate for the seed alone
    by_image = (head.mean(axis=0) - base.mean(axis=0)).var(ddof=1) / images
    of_images = max(0.0, by_image - float((interactions / [len(base), len(head)]).sum()))

    def distribution(seeds: Int64[np.ndarray, "k 2"]) -> tuple[Float64[np.ndarray, "k"], Float64[np.ndarray, "k"]]:
        """Return the standard error of the change and its degrees of freedom, given the seeds of base and head."""
        parts = np.column_stack([np.maximum(of_seeds, interactions) / seeds, np.full(len(seeds), of_images)])
        freedoms = np.column_stack([(seeds - 1) * np.where(floor, images - 1, 1), np.full(len(seeds), images - 1)])
        variance = parts.sum(axis=1) + EPSILON
        return np.sqrt(variance), variance**2 / ((parts**2 / freedoms).sum(axis=1) + EPSILON**2)

    error, freedom = (float(value[0]) for value in distribution(np.array([[len(base), len(head)]])))
    half_width = error * float(t.isf(0.025, freedom))
    errors, freedoms = distribution(np.repeat(np.arange(2, MAX_SEEDS + 1)[:, None], 2, axis=1))
    significant = np.flatnonzero(2 * t.sf(abs(change) / errors, freedoms) < level)
    margins = accuracies[1][:, None] - accuracies[0]
    return RecipeChange(
        Interval(change, change - half_width, change + half_width),
        p_value=float(2 * t.sf(abs(change) / error, freedom)),
        pairs=margins.size,
        wins=float((margins > 0).sum() + (margins == 0).sum() / 2),
        seeds_needed=int(significant[0]) + 2 if len(significant) else None,
    )


def interaction(correct: CorrectBySeed) -> float:
    """Return the part of the variance of the accuracies that is due to the interaction of seed and image.

    The rest is due to the seed alone: a good seed is better on all images.
    """
    seeds, images = correct.shape
    residuals = correct - correct.mean(axis=1, keepdims=True) - correct.mean(axis=0) + correct.mean()
    return float((residuals**2).sum() / ((seeds - 1) * (images - 1)) / images)
