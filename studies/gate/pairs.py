"""What the gate of `fashion review` finds in pairs of real models: another seed, and changes to the recipe."""

import argparse
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashion.data import dataset
from fashion.errors import run_command
from fashion.evaluation import recipes
from fashion.evaluation.recipes import CorrectBySeed
from fashion.evaluation.significance import Correct, mcnemar

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05
CHANGES = (
    ("dnn-no-augmentation", "dnn"),
    ("dnn", "dnn-more-epochs"),
    ("dnn", "dnn-more-dropout"),
    ("cnn", "cnn-more-epochs"),
    ("cnn", "cnn-more-momentum"),
)


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m studies.gate.pairs", description=__doc__)
    parser.add_argument("trials", type=Path, help="trials of the study (.csv)")
    parser.add_argument("test", type=Path, help="test split (folder)")
    parser.add_argument("pairs", type=Path, help="table to write, a row per change (.csv)")
    args = parser.parse_args()

    from fashion.files import write_text

    write_text(
        args.pairs,
        summarise(read(args.trials, len(dataset.load(args.test).labels))).to_csv(index=False, float_format="%.6g"),
    )


def read(trials: Path | io.StringIO, images: int) -> dict[str, CorrectBySeed]:
    """Return which of the test images, `images` in number, each trial classifies correctly, by variant."""
    import pandas as pd

    table = pd.read_csv(trials, dtype=str, keep_default_na=False)
    groups = table.groupby("variant", sort=False)["errors"]
    return {str(variant): recipes.correct_by_seed(list(errors), images) for variant, errors in groups}


def summarise(trials: Mapping[str, CorrectBySeed]) -> "pd.DataFrame":
    """Return a row per recipe (pairs of its models) and one per change (each model before with each model after).

    Columns: base, head (variants); pairs; better, worse (number of pairs that differ significantly); and for a change
    of the recipe, what `fashion.evaluation.recipes.compare` finds, and its verdict.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = [
        {"base": name, "head": name, **_models(combinations(correct, 2))} for name, correct in trials.items()
    ]
    for base, head in CHANGES:
        found = recipes.compare(trials[base], trials[head])
        verdict = "better" if found.accuracy.change > 0 else "worse"
        rows.append(
            {
                "base": base,
                "head": head,
                **_models(product(trials[base], trials[head])),
                **asdict(found.accuracy),
                "p_value": found.p_value,
                "wins": found.wins,
                "seeds_needed": found.seeds_needed,
                "recipe": verdict if found.p_value < LEVEL else "within noise",
            }
        )
    return pd.DataFrame(rows)


def _models(pairs: Iterable[tuple[Correct, Correct]]) -> dict[str, int]:
    """Return the number of pairs of models and how many of them McNemar's test finds better or worse."""
    tests = [mcnemar(base, head) for base, head in pairs]
    found = Counter("better" if test.fixed > test.broken else "worse" for test in tests if test.p_value < LEVEL)
    return {"pairs": len(tests), "better": found["better"], "worse": found["worse"]}


if __name__ == "__main__":
    run_command(main)
