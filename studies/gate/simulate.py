"""How often the gate of `fashion review` fails when nothing is worse, and when something is.

    python -m studies.gate.simulate

Prints a Markdown table. Two trainings of the CNN that differ in the seed alone answer 3.1 % of the 10,000 test images
differently, one right and one wrong (the mean of the ten pairs of seeds in studies/seeds). A change is simulated by
drawing, for each test image, whether it is fixed, broken or neither.
"""

import numpy as np

from fashion.errors import run_command
from fashion.evaluation.significance import mcnemar

IMAGES = 10_000
DIFFERING = 0.031
LEVEL = 0.05
REVIEWS = 5000


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    print("| What changed | The gate fails |\n|---|---:|")
    for name, change in {
        "another seed, no more": 0.0,
        "a quarter of a point lost": -0.0025,
        "half a point lost": -0.005,
        "a whole point lost": -0.01,
    }.items():
        print(f"| {name} | {failure_rate(change, rng):.1%} |")


def failure_rate(change: float, rng: np.random.Generator) -> float:
    """Return how often a model whose true accuracy changed by `change` is called significantly worse."""
    shares = [(DIFFERING + change) / 2, (DIFFERING - change) / 2, 1 - DIFFERING]
    failures = 0
    for fixed, broken, _ in rng.multinomial(IMAGES, shares, REVIEWS):
        right = np.repeat([True, False], [fixed, broken])
        failures += broken > fixed and mcnemar(~right, right).p_value < LEVEL
    return failures / REVIEWS


if __name__ == "__main__":
    run_command(main)
