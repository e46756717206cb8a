"""How often the gate of `fashion review` fails, by models and by recipes, and how often 95% intervals are right.

Training runs are simulated: a model classifies an image correctly if the sum of three normal effects (image, seed,
interaction) exceeds a threshold set by the accuracy. The effects of an image in two recipes are correlated. The
variances are those of the CNN's trials; the correlation is that of the largest change in the study, the augmentation of
the DNN.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm

from fashion.data import dataset
from fashion.errors import run_command
from fashion.evaluation import recipes
from fashion.evaluation.recipes import CorrectBySeed
from fashion.evaluation.significance import mcnemar
from studies.gate.pairs import LEVEL, read

SEEDS = 5
SAME_RECIPE = "none, same recipe"
OTHER_RECIPE = "none, another recipe"
GOOD_SEEDS = "none, same recipe, seeds differ by 0.1 points"
SEED_EFFECT = 0.001  # standard deviation of the accuracy
CHANGES = {
    SAME_RECIPE: 0.0,
    OTHER_RECIPE: 0.0,
    "-0.25 points": -0.0025,
    "-0.5 points": -0.005,
    "-1 point": -0.01,
}
REPETITIONS = 2000
RESAMPLES = 500  # of the bootstrap


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.gate.simulate", description=__doc__.splitlines()[0])
    parser.add_argument("trials", type=Path, help="trials of the study (.csv)")
    parser.add_argument("test", type=Path, help="test split (folder)")
    parser.add_argument("failures", type=Path, help="how often the gate fails, table to write (.csv)")
    parser.add_argument("coverage", type=Path, help="coverage of the intervals to write (.csv)")
    args = parser.parse_args()

    import pandas as pd

    from fashion.files import write_text

    trials = read(args.trials, len(dataset.load(args.test).labels))
    other_recipe = Effects.fit(trials["dnn-no-augmentation"], trials["dnn"]).correlation
    effects = replace(Effects.fit(trials["cnn"], trials["cnn-more-epochs"]), correlation=other_recipe)
    print(effects)
    write_text(args.failures, pd.DataFrame(gate_failures(effects)).to_csv(index=False))
    write_text(args.coverage, pd.DataFrame(coverages(effects)).to_csv(index=False))


@dataclass(frozen=True)
class Effects:
    """The parameters of the simulation; the variances of the effects add up to 1.

    Attributes:
        accuracy: mean over seeds and images.
        image: variance of the effect of the image.
        seed: variance of the effect of the seed.
        correlation: between the effects of an image in two recipes; 1 if they differ in the seed only.
        images: number of test images.
    """

    accuracy: float
    image: float
    seed: float
    correlation: float
    images: int

    @classmethod
    def fit(cls, base: CorrectBySeed, head: CorrectBySeed) -> "Effects":
        """Fit the effects to the trials of two recipes."""
        accuracy = float((base.mean() + head.mean()) / 2)
        within = np.mean([(a != b).mean() for trials in (base, head) for a, b in combinations(trials, 2)])
        across = np.mean([(a != b).mean() for a, b in product(base, head)])
        image = _correlation(accuracy, float(within))
        seed = np.mean([trials.mean(axis=1).var(ddof=1) - recipes.interaction(trials) for trials in (base, head)])
        slope = norm.pdf(norm.ppf(accuracy))
        correlation = _correlation(accuracy, float(across)) / image
        return cls(accuracy, image, max(0.0, float(seed)) / slope**2, min(1.0, correlation), base.shape[1])

    def draw(self, rng: np.random.Generator, change: float, seeds: int) -> tuple[CorrectBySeed, CorrectBySeed]:
        """Return which images each of `seeds` models per recipe classifies correctly."""
        image, rest = rng.standard_normal((2, self.images), np.float32)
        other = self.correlation * image + (1 - self.correlation**2) ** 0.5 * rest
        return (
            self._correct(rng, self.accuracy, image, seeds),
            self._correct(rng, self.accuracy + change, other, seeds),
        )

    def _correct(self, rng: np.random.Generator, accuracy: float, image: np.ndarray, seeds: int) -> CorrectBySeed:
        seed = self.seed**0.5 * rng.standard_normal((seeds, 1), np.float32)
        rest = (1 - self.image - self.seed) ** 0.5 * rng.standard_normal((seeds, len(image)), np.float32)
        return np.asarray(self.image**0.5 * image + seed + rest > -norm.ppf(accuracy))


def _correlation(accuracy: float, differing: float) -> float:
    """Return the correlation at which exactly one of two models is correct on this fraction of the images."""
    limit = norm.ppf(accuracy)

    def excess(correlation: float) -> float:
        both = multivariate_normal.cdf([limit, limit], cov=[[1, correlation], [correlation, 1]])
        return float(2 * (accuracy - both) - differing)

    return float(brentq(excess, 0, 0.9999))


def gate_failures(effects: Effects) -> Iterator[dict[str, Any]]:
    """Yield how often the gate fails because of a change, by models and by recipes."""
    rng = np.random.default_rng(0)
    for name, change in CHANGES.items():
        model = recipe = 0
        simulated = replace(effects, correlation=1.0) if name == SAME_RECIPE else effects
        for _ in range(REPETITIONS):
            base, head = simulated.draw(rng, change, SEEDS)
            test, compared = mcnemar(base[0], head[0]), recipes.compare(base, head)
            model += test.broken > test.fixed and test.p_value < LEVEL
            recipe += compared.accuracy.change < 0 and compared.p_value < LEVEL
        yield {"change": name, "model": model / REPETITIONS, "recipe": recipe / REPETITIONS}


def coverages(effects: Effects) -> Iterator[dict[str, Any]]:
    """Yield how often the 95% interval of the change contains the true change, zero.

    Two intervals are compared: that of `fashion.evaluation.recipes` and the percentiles of a bootstrap that resamples
    seeds and images (A. B. Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1 (2007)).
    """
    rng = np.random.default_rng(1)
    images = effects.images
    weights = rng.multinomial(images, np.full(images, 1 / images), RESAMPLES).T.astype(np.float32) / images
    slope = norm.pdf(norm.ppf(effects.accuracy))
    same = replace(effects, correlation=1.0)
    scenarios = {
        SAME_RECIPE: same,
        GOOD_SEEDS: replace(same, seed=(SEED_EFFECT / slope) ** 2),
        OTHER_RECIPE: effects,
    }
    for name, simulated in scenarios.items():
        for seeds in (3, SEEDS, 10):
            components = bootstrap = 0
            for _ in range(REPETITIONS):
                base, head = simulated.draw(rng, 0.0, seeds)
                components += not recipes.compare(base, head).accuracy.excludes_zero
                resampled = _resampled(rng, head @ weights) - _resampled(rng, base @ weights)
                low, high = np.quantile(resampled, [0.025, 0.975])
                bootstrap += low <= 0 <= high
            rates = {"random_effects": components / REPETITIONS, "bootstrap": bootstrap / REPETITIONS}
            yield {"change": name, "seeds": seeds, **rates}


def _resampled(rng: np.random.Generator, accuracies: np.ndarray) -> np.ndarray:
    """Return the mean accuracy of resampled seeds, given (seeds, resamples) accuracies on resampled images."""
    chosen = rng.integers(0, len(accuracies), accuracies.shape)
    return np.asarray(np.take_along_axis(accuracies, chosen, axis=0).mean(axis=0))


if __name__ == "__main__":
    run_command(main)
