"""Compare the recipes of two snapshots, by the trials of their models."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fashion.evaluation import recipes, significance
from fashion.evaluation.recipes import CorrectBySeed, RecipeChange
from fashion.review.lock_diff import differences
from fashion.review.snapshot import Snapshot

RecipeVerdict = Literal["better", "worse", "within noise", "unchanged", "not comparable", "not measured"]


@dataclass(frozen=True)
class RecipeResult:
    """The recipe of a model in base and in head.

    Attributes:
        base, head: which test images each trial classifies correctly; None if the recipe was not measured.
        change: None if the recipes cannot be compared, or if all trials are equal.
        p_adjusted: p-value, adjusted for the number of recipes tested.
        problems: why the recipes cannot be compared, and what to do.
    """

    base: CorrectBySeed | None
    head: CorrectBySeed | None
    change: RecipeChange | None
    verdict: RecipeVerdict
    p_adjusted: float
    problems: tuple[str, ...]


def compare(base: Snapshot, head: Snapshot) -> dict[str, RecipeResult]:
    """Compare the recipes of the changed models for which both snapshots name a study, by head's rules."""
    rules, found = head.rules, {}
    tested: dict[str, tuple[CorrectBySeed, CorrectBySeed]] = {}
    for name in (name for name in head.models if name in base.models):
        before, after = base.models[name].trials, head.models[name].trials
        if not before or not after:
            continue
        old, new = base.models[name].predictions, head.models[name].predictions
        if old and new and old.same_as(new):
            continue  # the review shows no recipe of an unchanged model, so it must not count in Holm's correction
        if rules.judge == "model" and not before.recorded and not after.recorded:
            continue  # a project without a study
        verdict: RecipeVerdict = "not measured"
        problems = _unusable(name, base) + _unusable(name, head)
        if before.correct is not None and after.correct is not None:
            if before.correct.shape[1] != after.correct.shape[1]:
                continue  # the predictions differ in number, too; that error is reported
            equal = np.array_equal(before.correct, after.correct)
            problems += _incomparable(before.settings, after.settings, "of the study differs between base and head")
            if equal:
                unseen = "changed, but the study does not depend on it"
                problems += _incomparable(before.unknown, after.unknown, unseen)
            verdict = "not comparable" if problems else "unchanged"
            if not problems and not equal:
                tested[name] = before.correct, after.correct
        found[name] = RecipeResult(before.correct, after.correct, None, verdict, 1.0, tuple(problems))
    p_values = {name: recipes.compare(*pair).p_value for name, pair in tested.items()}
    for (name, pair), p_value in zip(tested.items(), significance.holm([*p_values.values()]), strict=True):
        others = [value for other, value in p_values.items() if other != name]
        change = recipes.compare(*pair, significance.holm_level(others, rules.significance))
        verdict = "better" if change.accuracy.change > 0 else "worse"
        verdict = verdict if p_value < rules.significance else "within noise"
        found[name] = RecipeResult(*pair, change, verdict, p_value, ())
    return found


def _unusable(name: str, snapshot: Snapshot) -> list[str]:
    """Return why the trials of a model cannot be used, if they cannot."""
    trials = snapshot.models[name].trials
    if not trials or not trials.problem:
        return []
    there = " on that branch, commit the result, and merge it into yours" if snapshot.commit else ""
    return [f"not measured in {snapshot.name}: {trials.problem}; {trials.remedy}{there}"]


def _incomparable(base: Mapping[str, Any], head: Mapping[str, Any], reason: str) -> list[str]:
    """Return a sentence with the names of all that differs, if anything does."""
    changed = ", ".join(name for name, *_ in differences(base, head))
    return [f"{changed} {reason}"] if changed else []
