"""Statistical tests of two models on the same test set."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, UInt8
from scipy.stats import binomtest, bootstrap, norm

from fashion.evaluation.metrics import confidence_bins, log_losses
from fashion.evaluation.predictions import Predictions

RESAMPLES = 2000
BATCH = 500_000  # resampled images at once; bounds the memory
Correct = Bool[np.ndarray, "n"]


@dataclass(frozen=True)
class Interval:
    """A change with its 95% confidence interval."""

    change: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the change is significant at the 5% level."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class McNemar:
    """Result of McNemar's test.

    Attributes:
        fixed: number of images that base misclassifies and head does not.
        broken: number of images that head misclassifies and base does not.
        p_value: of the exact two-sided test.
    """

    fixed: int
    broken: int
    p_value: float


def mcnemar(base: Correct, head: Correct) -> McNemar:
    """Test whether two models have the same accuracy, given which images each classifies correctly.

    Only images that exactly one of them classifies correctly count. If the models are equally good, each of those is
    fixed or broken with probability one half, so the test is exact.

    Source: Q. McNemar, Note on the sampling error of the difference between correlated proportions or percentages,
    Psychometrika 12 (1947); exact form as in T. G. Dietterich, Neural Computation 10 (1998).
    """
    fixed, broken = int((head & ~base).sum()), int((base & ~head).sum())
    return McNemar(fixed, broken, float(binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0)


def min_significant_change(differing: int, level: float) -> int | None:
    """Return the smallest difference between fixed and broken images that `mcnemar` finds significant.

    Args:
        differing: number of fixed and broken images together.
        level: of significance.

    Returns:
        A number of images; None if even `differing` is not significant.
    """
    surpluses = range(differing % 2, differing + 1, 2)
    return next((s for s in surpluses if s and binomtest((differing + s) // 2, differing).pvalue < level), None)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for multiple testing, in the order given.

    The probability of any false positive among them is then at most the level.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979).
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def holm_level(others: Sequence[float], level: float) -> float:
    """Return the level below which `holm` calls a p-value significant beside `others`; `level` is that of all."""
    rejected = sum(p_value < level for p_value in holm([*others, 1.0])[:-1])
    return level / (len(others) + 1 - rejected)


def loss_change(base: Predictions, head: Predictions) -> Interval:
    """Return the change in cross-entropy from base to head with a paired bootstrap interval.

    The resamples are the same every time. The interval of a single image is unbounded.

    Source: B. Efron and R. Tibshirani, An introduction to the bootstrap, 1993, section 13.3 (percentile intervals).
    """
    changes = log_losses(head) - log_losses(base)
    mean = float(changes.mean())
    if not changes.any():
        return Interval(0.0, 0.0, 0.0)
    if len(changes) < 2:
        return Interval(mean, -np.inf, np.inf)
    batch = _batch(len(changes))
    found = bootstrap((changes,), np.mean, n_resamples=RESAMPLES, batch=batch, method="percentile", rng=0)
    return Interval(mean, float(found.confidence_interval.low), float(found.confidence_interval.high))


def calibration_change(base: Predictions, head: Predictions, bins: int) -> tuple[float, float]:
    """Return the change in calibration error from base to head, and the p-value of a paired permutation test.

    If the models were alike, each image's two predictions could be swapped: the p-value is the share of random swaps
    whose change is at least as large. A bootstrap interval would be biased: resampling raises the calibration error,
    most of all that of a well-calibrated model.

    Source: R. A. Fisher, The design of experiments, 1935; p-values as in B. Phipson and G. Smyth, Statistical
    Applications in Genetics and Molecular Biology 9 (2010).
    """
    gaps_base, gaps_head = _gaps(base, bins), _gaps(head, bins)
    images = len(gaps_base)
    sum_base, sum_head, apart = gaps_base.sum(axis=0), gaps_head.sum(axis=0), gaps_head - gaps_base
    if not apart.any():
        return 0.0, 1.0
    rng = np.random.default_rng(0)

    def change(moved: Float64[np.ndarray, "*r bins"]) -> Float64[np.ndarray, "*r"]:
        """Return the change if swaps add `moved` to base's sums and subtract it from head's."""
        errors = np.abs(sum_head - moved).sum(axis=-1) - np.abs(sum_base + moved).sum(axis=-1)
        return np.asarray(errors / images)

    def swaps(size: int) -> UInt8[np.ndarray, "size n"]:
        """Return which images are swapped, 0 or 1, in each of `size` rows."""
        return np.unpackbits(rng.integers(0, 256, (size, -(-images // 8)), np.uint8), axis=1, count=images)

    found = float(change(np.zeros(bins)))
    sizes = [min(_batch(images), RESAMPLES - done) for done in range(0, RESAMPLES, _batch(images))]
    swapped = np.concatenate([change(swaps(size) @ apart) for size in sizes])
    as_large = np.abs(swapped) >= abs(found) - 1e-12
    return found, (1 + int(as_large.sum())) / (1 + len(swapped))


def _batch(images: int) -> int:
    """Return the number of resamples at once."""
    return max(1, BATCH // images)


def _gaps(predictions: Predictions, bins: int) -> Float64[np.ndarray, "n bins"]:
    """Return each image's confidence minus its correctness in the column of its bin, and zero elsewhere."""
    gaps = np.zeros((len(predictions.labels), bins))
    rows = np.arange(len(gaps))
    gaps[rows, confidence_bins(predictions, bins)] = predictions.confidence - predictions.correct
    return gaps


def recall_change(base: Correct, head: Correct) -> Interval:
    """Return the change in the share of correct images, with the adjusted Wald interval for paired proportions.

    Source: D. G. Bonett and R. M. Price, Adjusted Wald confidence interval for a difference of binomial proportions
    based on paired data, Journal of Educational and Behavioral Statistics 37 (2012).
    """
    images = len(base)
    fixed, broken = int((head & ~base).sum()), int((base & ~head).sum())
    p, q = (fixed + 1) / (images + 2), (broken + 1) / (images + 2)
    half = float(norm.ppf(0.975)) * ((p + q - (p - q) ** 2) / (images + 2)) ** 0.5
    return Interval((fixed - broken) / max(images, 1), max(-1.0, p - q - half), min(1.0, p - q + half))
