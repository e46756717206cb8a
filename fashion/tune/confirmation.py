"""Confirmation: train the best few configurations with other seeds, as the winner of many trials is partly lucky."""

import inspect
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
from fashion.models.progress import DivergedError
from fashion.trials import Trial
from fashion.tune.space import CURRENT, Result, Space

SEEDS = 3
CONFIRMED = 3  # configurations of the search, besides the current params


@dataclass(frozen=True)
class Summary:
    """The trials with the same configuration.

    Attributes:
        number: number of the configuration.
        mean: mean validation accuracy.
        deviation: sample standard deviation of the validation accuracy.
        seconds: mean processor time.
    """

    number: int
    mean: float
    deviation: float
    seconds: float

    def exceeds(self, other: "Summary") -> bool:
        """Return whether this mean is higher by more than twice the standard error of the difference."""
        error = math.hypot(self.deviation, other.deviation) / math.sqrt(SEEDS)
        return self.mean - other.mean > 2 * error


def train(trial: Trial, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Train as `fashion.trials.train` does; if the training diverges, its validation accuracy is 0."""
    started = time.process_time()
    try:
        return {"outcome": "finished", **trials.train(trial, *args, **kwargs)}
    except DivergedError:
        return {"outcome": "diverged", "val_accuracy": 0.0, "seconds": round(time.process_time() - started, 1)}


def confirm(
    space: Space,
    results: Sequence[Result],
    splits: Mapping[str, Path],
    data: Mapping[str, Mapping[str, str]],
    fresh: bool,
) -> list[Result]:
    """Train the best configurations of a search, and the current params, with other seeds.

    Args:
        space: the search space.
        results: results of the search.
        splits: folders of the training and the validation split, by name.
        data: the MD5 of each of their files.
        fresh: train all, even those that already have results.

    Raises:
        UserError: no trial but that of the current params has finished, or as for `fashion.trials.run`.
    """
    finished = [result for result in results if result.outcome == "finished" and result.number != CURRENT]
    if not finished:
        raise UserError(
            "no new configuration has finished training; raise --trials or --hours or, if trials failed, fix the "
            "cause and add --fresh"
        )
    best: list[Result] = []
    for result in sorted(finished, key=lambda result: (-result.val_accuracy, result.seconds)):
        if all(result.values != other.values for other in best):  # the sampler may propose one twice
            best.append(result)
    values = {CURRENT: space.current, **{result.number: result.values for result in best[:CONFIRMED]}}
    first = space.settings(space.current).seed
    code = [inspect.getsource(one) for one in (train, trials.train)]
    declared = [
        (number, Trial(f"trial {number}", space.model, seed, settings, key))
        for number in values
        for seed in range(first + 1, first + 1 + SEEDS)
        for settings in [space.settings(values[number], seed=seed)]
        for key in [networks.training_key(space.model, settings, data, *code)]
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
    """Return a summary per configuration, the best first."""
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


def recommended(summaries: Sequence[Summary]) -> Summary:
    """Return the best if it exceeds the current params, else the current params."""
    best, current = summaries[0], next(summary for summary in summaries if summary.number == CURRENT)
    return best if best.exceeds(current) else current
