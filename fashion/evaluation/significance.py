"""Whether two models differ by more than chance, judged on the same test images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from scipy.stats import binomtest

from fashion.evaluation.metrics import NORMAL_QUANTILE_95, Labels, Probabilities

RESAMPLES = 2000
SWAPS_AT_ONCE = 100  # bounds the memory: so many numbers per image
Correct = Bool[np.ndarray, "n"]


@dataclass(frozen=True)
class Interval:
    """A change with its 95 % confidence interval."""

    change: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the data contradict "no change"."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class McNemar:
    """The images that two models answer differently, one right and one wrong.

    Attributes:
        fixed: images that base gets wrong and head right.
        broken: images that base gets right and head wrong.
        p_value: of the exact test, two-sided.
    """

    fixed: int
    broken: int
    p_value: float


def mcnemar(base: Correct, head: Correct) -> McNemar:
    """Test whether two models are right equally often, given which of the same images each gets right.

    Only images on which exactly one of them is right count. If the models were equally good, each of those would be
    fixed or broken with probability one half. That holds whatever the images are, so the test needs no approximation.

    Source: Q. McNemar, Note on the sampling error of the difference between correlated proportions or percentages,
    Psychometrika 12 (1947); exact form as in T. G. Dietterich, Neural Computation 10 (1998).
    """
    fixed, broken = int((head & ~base).sum()), int((base & ~head).sum())
    return McNemar(fixed, broken, binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0)


def min_significant_change(differing: int, level: float) -> int | None:
    """Return the smallest surplus of fixed over broken images that `mcnemar` calls significant at `level`.

    `differing` is their sum; None if even a surplus of all of them would not be significant.
    """
    surpluses = range(differing % 2, differing + 1, 2)
    return next((s for s in surpluses if s and binomtest((differing + s) // 2, differing).pvalue < level), None)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the order given.

    Calling those below a level significant then errs at all with at most that probability if nothing differs.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979).
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def loss_change(base: Probabilities, head: Probabilities, labels: Labels) -> Interval:
    """Return head's change against base in cross-entropy, with a paired bootstrap interval.

    The images are drawn anew with replacement, the same for both models; the draws are the same every time. Source:
    B. Efron and R. Tibshirani, An introduction to the bootstrap, 1993, section 13.3: percentile intervals.
    """
    changes, rng = _losses(head, labels) - _losses(base, labels), np.random.default_rng(0)
    drawn = [rng.choice(changes, len(changes)).mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(changes.mean()), float(low), float(high))


def calibration_change(base: Probabilities, head: Probabilities, labels: Labels, bins: int) -> tuple[float, float]:
    """Return head's change against base in calibration error, and the p-value of a paired permutation test.

    If the models were alike, each image's two predictions might as well have been swapped: the p-value is the share of
    random swaps that change the error as much as was found, or more. An interval by the bootstrap would mislead: the
    calibration error of resampled images is larger than that of the images, most so for a well calibrated model.

    Source: R. A. Fisher, The design of experiments, 1935; p-values as in B. Phipson and G. Smyth, Statistical
    Applications in Genetics and Molecular Biology 9 (2010).
    """
    gaps_base, gaps_head = _gaps(base, labels, bins), _gaps(head, labels, bins)
    sum_base, sum_head, apart = gaps_base.sum(axis=0), gaps_head.sum(axis=0), gaps_head - gaps_base
    rng = np.random.default_rng(0)

    def change(moved: Float64[np.ndarray, "*r bins"]) -> Float64[np.ndarray, "*r"]:
        """Return the change in error if swaps add `moved` to base's sums and take it from head's."""
        errors = np.abs(sum_head - moved).sum(axis=-1) - np.abs(sum_base + moved).sum(axis=-1)
        return np.asarray(errors / len(labels))

    found = float(change(np.zeros(bins)))
    swapped = np.concatenate(
        [change(rng.integers(0, 2, (SWAPS_AT_ONCE, len(labels))) @ apart) for _ in range(RESAMPLES // SWAPS_AT_ONCE)]
    )
    as_much = np.abs(swapped) >= abs(found) - 1e-12
    return found, (1 + int(as_much.sum())) / (1 + len(swapped))


def _losses(probabilities: Probabilities, labels: Labels) -> Float64[np.ndarray, "n"]:
    given = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return np.asarray(-np.log(np.maximum(given, 1e-7)))


def _gaps(probabilities: Probabilities, labels: Labels, bins: int) -> Float64[np.ndarray, "n bins"]:
    """Return each image's confidence less its correctness, in the column of its bin, and zero in the others."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    gaps = np.zeros((len(labels), bins))
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps[np.arange(len(labels)), bin_of] = confidence - (probabilities.argmax(axis=1) == labels)
    return gaps


def share_change(base: Correct, head: Correct) -> Interval:
    """Return the change in the share of images that are right, with the adjusted Wald interval for paired proportions.

    Source: D. G. Bonett and R. M. Price, Adjusted Wald confidence interval for a difference of binomial proportions
    based on paired data, Journal of Educational and Behavioral Statistics 37 (2012).
    """
    images = len(base)
    fixed, broken = int((head & ~base).sum()), int((base & ~head).sum())
    p, q = (fixed + 1) / (images + 2), (broken + 1) / (images + 2)
    half = NORMAL_QUANTILE_95 * ((p + q - (p - q) ** 2) / (images + 2)) ** 0.5
    return Interval((fixed - broken) / max(images, 1), max(-1.0, p - q - half), min(1.0, p - q + half))
