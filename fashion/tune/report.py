"""What a search found: a table of all trials, a figure, and the change to params.yaml."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fashion.evaluation.figures import COLOURS, GREY, INK
from fashion.tune.confirmation import SEEDS, Summary
from fashion.tune.space import CURRENT, Result, Space

LISTED = 5  # trials of the search that `markdown` lists


def table(results: Sequence[Result]) -> pd.DataFrame:
    """Return a row per trial: trial, seed, outcome, val_accuracy, trained_epochs, seconds, and a column per param.

    Lists are written as JSON.
    """
    return pd.DataFrame(
        {
            "trial": result.number,
            "seed": result.seed,
            "outcome": result.outcome,
            "val_accuracy": result.val_accuracy,
            "trained_epochs": result.epochs,
            "seconds": result.seconds,
            **{key: json.dumps(value) if isinstance(value, list) else value for key, value in result.values.items()},
        }
        for result in results
    )


def pareto_front(results: Sequence[Result]) -> list[Result]:
    """Return the results that are more accurate than every faster one, the fastest first."""
    front: list[Result] = []
    for result in sorted(results, key=lambda result: (result.seconds, -result.val_accuracy)):
        if not front or result.val_accuracy > front[-1].val_accuracy:
            front.append(result)
    return front


def draw(model: str, results: Sequence[Result], best: int) -> Figure:
    """Draw validation accuracy against processor time of the trials of a search, with their Pareto front."""
    finished = [result for result in results if result.outcome == "finished"]
    shown = [result.val_accuracy for result in finished]
    margin = max(0.002, 0.15 * (max(shown) - min(shown)))
    bottom, top = min(shown) - 2 * margin, max(shown) + margin
    drawn = [replace(result, val_accuracy=max(result.val_accuracy, bottom)) for result in results]
    groups: dict[str, tuple[list[Result], dict[str, Any]]] = {
        "stopped early (those below the axis are drawn on it)": (
            [result for result in drawn if result.outcome == "stopped early"],
            {"marker": "x", "color": GREY, "clip_on": False},
        ),
        "finished": (finished, {"marker": "o", "color": COLOURS[1]}),
        "current params": (
            [result for result in drawn if result.number == CURRENT],
            {"marker": "s", "color": INK, "s": 60, "clip_on": False},
        ),
        "recommended": (
            [result for result in results if result.number == best != CURRENT],
            {"marker": "*", "color": COLOURS[2], "s": 150},
        ),
    }
    figure = Figure(figsize=(7.2, 5.0), layout="constrained")
    ax = figure.subplots()
    ax.set_title(f"{model.upper()}: hyperparameter search")
    ax.step(*_points(pareto_front(finished)), where="post", color=COLOURS[1], label="Pareto front", linewidth=1)
    for label, (group, style) in groups.items():
        if group:
            ax.scatter(*_points(group), label=label, zorder=3, **style)
    ax.set_ylim(bottom, top)  # trials that were stopped may lie far below
    ax.set_xlabel("processor time (s); approximate, as trials ran side by side")
    ax.set_ylabel("validation accuracy")
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _points(results: Sequence[Result]) -> tuple[list[float], list[float]]:
    return [result.seconds for result in results], [result.val_accuracy for result in results]


def markdown(space: Space, results: Sequence[Result], summaries: Sequence[Summary]) -> str:
    """Return the best trials of the search and the confirmation as tables, and the recommendation."""
    values = {CURRENT: space.current, **{result.number: result.values for result in results}}
    finished = [result for result in results if result.outcome == "finished"]
    best = sorted(finished, key=lambda result: (-result.val_accuracy, result.seconds))[:LISTED]
    outcomes = [result.outcome for result in results]
    counts = ", ".join(f"{outcomes.count(one)} {one}" for one in dict.fromkeys(outcomes))
    header = ("", "| Trial | Validation accuracy | Processor time | Params |", "|---:|---:|---:|---|")
    return "\n".join(
        [
            f"Best trials of the search ({counts})",
            *header,
            *(
                f"| {result.number} | {result.val_accuracy:.2%} | {result.seconds:,.0f} s | "
                f"{space.describe(result.values)} |"
                for result in best
            ),
            "",
            f"Confirmation with {SEEDS} other seeds: mean and standard deviation",
            *header,
            *(
                f"| {summary.number} | {summary.mean:.2%} ± {100 * summary.deviation:.2f} | {summary.seconds:,.0f} s | "
                f"{space.describe(values[summary.number])} |"
                for summary in summaries
            ),
            "",
            recommendation(summaries),
        ]
    )


def recommendation(summaries: Sequence[Summary]) -> str:
    """Return which params to use, and why."""
    best, current = summaries[0], next(summary for summary in summaries if summary.number == CURRENT)
    if best is current:
        return "No confirmed configuration has a higher mean than the current params. Keep the current params."
    better = best.exceeds(current)
    return (
        f"Trial {best.number} is {100 * (best.mean - current.mean):.2f} percentage points better than the current "
        f"params, which is {'more' if better else 'not more'} than twice the standard error of the difference. "
        f"Training takes {best.seconds / current.seconds:.2f} times as long. "
        f"{'Use its params' if better else 'Keep the current params'}."
    )


def diff(before: str, after: str) -> str:
    """Return the difference between two texts of params.yaml as a patch."""
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), "a/params.yaml", "b/params.yaml")
    return "".join(lines)
