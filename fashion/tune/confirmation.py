"""The confirmation trains the best few values with other seeds: the best of many trainings is partly luck."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from fashion import trials
from fashion.errors import UserError
from fashion.models import networks
from fashion.trials import Trial
from fashion.tune.space import CURRENT, Result, Space

SEEDS = 3
BEST = 3  # of the search, besides the current values


@dataclass(frozen=True)
class Summary:
    """The trainings with the same values.

    Attributes:
        number: of the values.
        mean: validation accuracy.
        deviation: its sample standard deviation.
        seconds: mean processor time.
    """

    number: int
    mean: float
    deviation: float
    seconds: float

    def exceeds(self, other: "Summary") -> bool:
        """Return whether the means differ by more than twice the standard error of their difference."""
        error = math.hypot(self.deviation, other.deviation) / math.sqrt(SEEDS)
        return abs(self.mean - other.mean) > 2 * error


def train(trial: Trial, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Train as `fashion.trials.train` does; if the training diverges, its validation accuracy is 0."""
    started = time.process_time()
    try:
        return {"outcome": "finished", **trials.train(trial, *args, **kwargs)}
    except UserError:
        return {"outcome": "diverged", "val_accuracy": 0.0, "seconds": round(time.process_time() - started, 1)}


def confirm(
    space: Space,
    results: Sequence[Result],
    splits: Mapping[str, Path],
    data: Mapping[str, Mapping[str, str]],
    fresh: bool,
) -> list[Result]:
    """Train the best values of a search, and the current ones, with further seeds.

    Args:
        space: what was searched.
        results: of the search.
        splits: folders of the training and the validation split, by name.
        data: the MD5 of each of their files.
        fresh: train all, even if their results are known.

    Raises:
        UserError: no other values than the current ones were trained to the end, or as for `fashion.trials.run`.
    """
    finished = [result for result in results if result.outcome == "finished" and result.number != CURRENT]
    if not finished:
        raise UserError("no values but the current ones were trained to the end; allow more --trials or --hours")
    best = sorted(finished, key=lambda result: (-result.val_accuracy, result.seconds))[:BEST]
    values = {CURRENT: space.current, **{result.number: result.values for result in best}}
    first = space.settings(space.current).seed
    declared = [
        (number, Trial(f"trial {number}", space.model, seed, settings, key))
        for number in values
        for seed in range(first + 1, first + 1 + SEEDS)
        for settings in [space.settings(values[number], seed=seed)]
        for key in [f"tune-{networks.training_key(space.model, settings, data)}"]  # other results than `trials.train`'s
    ]
    outcomes = trials.run([trial for _, trial in declared], lambda: trials.load(splits), train, fresh=fresh)
    return [
        Result(
            number,
            values[number],
            trial.seed,
            outcome["outcome"],
            outcome["val_accuracy"],
            trial.settings.epochs,
            outcome["seconds"],
            [],
        )
        for (number, trial), outcome in zip(declared, outcomes, strict=True)
    ]


def summarize(results: Sequence[Result]) -> list[Summary]:
    """Return a summary of the trainings with each values, the best first."""
    groups: dict[int, list[Result]] = {}
    for result in results:
        groups.setdefault(result.number, []).append(result)
    return sorted(
        (
            Summary(
                number,
                mean(result.val_accuracy for result in group),
                stdev(result.val_accuracy for result in group),
                mean(result.seconds for result in group),
            )
            for number, group in groups.items()
        ),
        key=lambda summary: (-summary.mean, summary.number != CURRENT, summary.seconds),
    )
