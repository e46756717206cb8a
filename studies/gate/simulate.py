"""How often the gate of `fashion review` fails: with nothing changed, with half a point lost, with another seed.

    python -m studies.gate.simulate

Prints a Markdown table. Two trainings of the CNN that differ in the seed alone answer 3.4 % of the 10,000 test images
differently, one right and one wrong (the mean of three pairs in studies/seeds). A change is simulated by drawing, for
each test image, whether it is fixed, broken or neither; with two models, the other one is untouched.
"""

import numpy as np

from fashion.errors import run_command
from fashion.evaluation.comparison import holm, mcnemar

IMAGES = 10_000
DIFFERING = 0.034
SEED_DEVIATION = 0.0012  # of the accuracy of the CNN, over the seeds of studies/seeds
LEVEL = 0.05
REVIEWS = 5000


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    seeds = rng.normal(0, 2**0.5 * SEED_DEVIATION, REVIEWS)
    print("| What changed | The gate fails, one model | two models |\n|---|---:|---:|")
    for name, changes in {
        "nothing but which test images were drawn": np.zeros(REVIEWS),
        "the seed": seeds,
        "half a point lost": np.full(REVIEWS, -0.005),
        "half a point lost, and another seed": seeds - 0.005,
        "a whole point lost": np.full(REVIEWS, -0.01),
    }.items():
        rates = (failure_rate(changes, models, rng) for models in (1, 2))
        print(f"| {name} | " + " | ".join(f"{rate:.1%}" for rate in rates) + " |")


def failure_rate(changes: np.ndarray, models: int, rng: np.random.Generator) -> float:
    """Return how often a model is called significantly worse; `changes` are of its true accuracy, one per review."""
    failures = 0
    for change in changes:
        fixed, broken, _ = rng.multinomial(IMAGES, [(DIFFERING + change) / 2, (DIFFERING - change) / 2, 1 - DIFFERING])
        right = np.repeat([True, False], [fixed, broken])
        p_values = [mcnemar(~right, right).p_value] + [1.0] * (models - 1)
        failures += broken > fixed and holm(p_values)[0] < LEVEL
    return failures / len(changes)


if __name__ == "__main__":
    run_command(main)
