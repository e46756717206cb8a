"""How often the gate of `fashion review` fails if a model is not worse, and if it is.

    python -m studies.gate.simulate

Prints a Markdown table. As with two seeds of the CNN, exactly one of the two models is correct on 3.1% of the 10,000
test images (the mean of the ten pairs of seeds in studies/seeds at commit 3a13d04). Whether a change fixes an image,
breaks it, or neither is drawn at random.
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
    print("| Change in accuracy | Gate failures |\n|---|---:|")
    for name, change in {
        "none (another seed)": 0.0,
        "-0.25 points": -0.0025,
        "-0.5 points": -0.005,
        "-1 point": -0.01,
    }.items():
        print(f"| {name} | {failure_rate(change, rng):.1%} |")


def failure_rate(change: float, rng: np.random.Generator) -> float:
    """Return how often a model whose true accuracy changed by `change` is found significantly worse."""
    probabilities = [(DIFFERING + change) / 2, (DIFFERING - change) / 2, 1 - DIFFERING]
    failures = 0
    for fixed, broken, _ in rng.multinomial(IMAGES, probabilities, REVIEWS):
        correct = np.repeat([True, False], [fixed, broken])
        failures += broken > fixed and mcnemar(~correct, correct).p_value < LEVEL
    return failures / REVIEWS


if __name__ == "__main__":
    run_command(main)
