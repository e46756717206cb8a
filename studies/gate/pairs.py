"""What the gate of `fashion review` finds in pairs of real models: another seed, and changes to the recipe."""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fashion.errors import run_command
from fashion.evaluation import recipes
from fashion.evaluation.recipes import CorrectBySeed
from fashion.evaluation.significance import Correct, mcnemar

if TYPE_CHECKING:
    import pandas as pd

IMAGES = 10_000
LEVEL = 0.05
CHANGES = (
    ("dnn-no-augmentation", "dnn"),
    ("dnn", "dnn-more-epochs"),
    ("dnn", "dnn-more-dropout"),
    ("cnn", "cnn-more-epochs"),
)


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.gate.pairs", description=__doc__)
    parser.add_argument("trials", type=Path, help="trials of the study (.csv)")
    parser.add_argument("pairs", type=Path, help="table to write, a row per change (.csv)")
    args = parser.parse_args()

    import pandas as pd

    from fashion.files import write_text

    trials = correct_by_seed(pd.read_csv(args.trials, dtype={"errors": str}))
    rows = [*(_another_seed(name, correct) for name, correct in trials.items()), *_changes(trials)]
    write_text(args.pairs, pd.DataFrame(rows).to_csv(index=False, float_format="%.6g"))


def correct_by_seed(trials: "pd.DataFrame") -> dict[str, CorrectBySeed]:
    """Return which test images each trial classifies correctly, by variant."""
    found = {}
    for variant, group in trials.groupby("variant", sort=False):
        correct = np.ones((len(group), IMAGES), bool)
        for row, errors in zip(correct, group["errors"], strict=True):
            row[np.array(errors.split(), int)] = False
        found[str(variant)] = correct
    return found


def _another_seed(name: str, correct: CorrectBySeed) -> dict[str, str | float]:
    """Return a row for the pairs of models of one recipe."""
    return {"base": name, "head": name, **_models(combinations(correct, 2))}


def _changes(trials: dict[str, CorrectBySeed]) -> Iterator[dict[str, str | float]]:
    """Yield a row per change of the recipe."""
    for base, head in CHANGES:
        found = recipes.compare(trials[base], trials[head])
        verdict = "within noise"
        if found.p_value < LEVEL:
            verdict = "better" if found.accuracy.change > 0 else "worse"
        yield {
            "base": base,
            "head": head,
            **_models(product(trials[base], trials[head])),
            "change": found.accuracy.change,
            "low": found.accuracy.low,
            "high": found.accuracy.high,
            "p_value": found.p_value,
            "wins": found.wins,
            "seeds_needed": found.seeds_needed or "",
            "recipe": verdict,
        }


def _models(pairs: Iterable[tuple[Correct, Correct]]) -> dict[str, int]:
    """Return the number of pairs of models and how many of them McNemar's test finds better or worse."""
    tests = [mcnemar(base, head) for base, head in pairs]
    found = Counter("better" if test.fixed > test.broken else "worse" for test in tests if test.p_value < LEVEL)
    return {"pairs": len(tests), "better": found["better"], "worse": found["worse"]}


if __name__ == "__main__":
    run_command(main)
