"""Compare the models of two snapshots, and those of one snapshot with each other."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any, Literal

import numpy as np

from fashion.errors import UserError
from fashion.evaluation import significance
from fashion.evaluation.predictions import Predictions
from fashion.evaluation.significance import Interval, McNemar
from fashion.review import data_changes, lock_diff, recipe_changes
from fashion.review.data_changes import DataChanges
from fashion.review.lock_diff import LockDiff
from fashion.review.recipe_changes import RecipeResult
from fashion.review.rules import Rules
from fashion.review.snapshot import Model, Snapshot, scored

Verdict = Literal["better", "worse", "within noise", "unchanged", "new", "removed", "not comparable"]
MOST_CHANGED = 5


@dataclass(frozen=True)
class PairedResult:
    """Two models on the same test set.

    Attributes:
        base, head: their predictions.
        accuracy: McNemar's test.
        loss: change in cross-entropy; None if one of the models gives no probabilities.
        calibration: change in calibration error, and its p-value; None likewise.
        recall: change by class.
    """

    base: Predictions
    head: Predictions
    accuracy: McNemar
    loss: Interval | None
    calibration: tuple[float, float] | None
    recall: Mapping[str, Interval]

    @cached_property
    def unchanged(self) -> bool:
        """Whether all predictions are equal."""
        return self.base.same_as(self.head)

    @cached_property
    def most_changed(self) -> list[int]:
        """Indices of the test examples whose probability of the actual class changed most.

        Without probabilities, those of examples whose predicted class changed.
        """
        moved = np.abs(self.head.probability - self.base.probability)
        if self.loss is None:
            moved = (self.head.predicted != self.base.predicted).astype(float)
        return [int(index) for index in np.argsort(-moved, kind="stable")[:MOST_CHANGED] if moved[index] > 0]


@dataclass(frozen=True)
class Comparison:
    """One model in base and in head, or two models of head.

    Attributes:
        base, head: None if there is no such model.
        paired: None if the two have no predictions for the same test set.
        verdict: on the accuracy.
        p_adjusted: p-value of McNemar's test, adjusted for the number of models tested.
        min_significant_change: smallest change in accuracy that would be significant, given the number of fixed and
            broken examples and the other models tested; None if none would.
        recipe: None if one of the models has no trials.
    """

    name: str
    base: Model | None
    head: Model | None
    paired: PairedResult | None
    verdict: Verdict
    p_adjusted: float
    min_significant_change: float | None
    recipe: RecipeResult | None


@dataclass(frozen=True)
class ReviewResult:
    """The result of a review.

    Attributes:
        models: each in base and in head.
        pairs: the models of head in pairs, the first in the place of base.
        same_test_set: whether the models of base and head were compared: on the same test set, with the same number and
            order of classes.
        test_set_growth: number of test examples that only head has; on them, nothing is compared.
        accuracies: test accuracy of each model of head on all of head's test set, where it is known.
        data: differences between the data.
        lock: differences between the two dvc.lock.
        rules: differences between the two sections `review` of params.yaml: key, value in base, value in head.
    """

    base: Snapshot
    head: Snapshot
    models: tuple[Comparison, ...]
    pairs: tuple[Comparison, ...]
    same_test_set: bool
    test_set_growth: int
    accuracies: Mapping[str, float]
    data: DataChanges
    lock: LockDiff
    rules: tuple[tuple[str, Any, Any], ...]

    @property
    def waivers(self) -> Mapping[str, str]:
        """Why regressions are accepted, by model: the waivers that base does not have."""
        known = self.base.rules.waivers if self.base.own_rules else {}
        return {name: reason for name, reason in self.head.rules.waivers.items() if known.get(name) != reason}


def compare(base: Snapshot, head: Snapshot) -> ReviewResult:
    """Compare the models of two snapshots by head's rules.

    If head's test set is base's with more examples, the models are compared on base's.

    Raises:
        UserError: predictions do not fit the test set.
    """
    before, after = base.rules.classes, head.rules.classes  # may be renamed, but not reordered
    same_classes = len(before) == len(after) and all(
        old == new or old not in after for old, new in zip(before, after, strict=True)
    )
    same_test_set = same_classes and base.test_set.same_as(head.test_set)
    rules = head.rules
    base = replace(base, models={name: scored(model, model.predictions, rules) for name, model in base.models.items()})
    accuracies = {name: model.metrics["accuracy"] for name, model in head.models.items() if "accuracy" in model.metrics}
    indices = None if same_test_set else base.test_set.indices_in(head.test_set)
    growth = 0
    if indices is not None and head.test_set.labels is not None and base.rules.classes == head.rules.classes:
        same_test_set, growth = True, len(head.test_set.labels) - len(indices)
        head = head.at(indices, base.test_set)
    pairs = combinations(head.models, 2)
    names = [name for name in rules.models | base.rules.models if name in head.models or name in base.models]
    return ReviewResult(
        base,
        head,
        models=_compare(
            {name: (base.models.get(name), head.models.get(name)) for name in names},
            rules,
            recipe_changes.compare(base, head) if same_test_set else {},
            same_test_set=same_test_set,
        ),
        pairs=_compare(
            {f"{first} → {second}": (head.models[first], head.models[second]) for first, second in pairs},
            rules,
            {},
            same_test_set=True,
        ),
        same_test_set=same_test_set,
        test_set_growth=growth,
        accuracies=accuracies,
        data=data_changes.compare(base.data, head.data),
        lock=lock_diff.compare(base.lock, head.lock),
        rules=lock_diff.differences(*(lock_diff.flat(s.rules.model_dump(), "review") for s in (base, head))),
    )


def _compare(
    models: Mapping[str, tuple[Model | None, Model | None]],
    rules: Rules,
    recipes: Mapping[str, RecipeResult],
    *,
    same_test_set: bool,
) -> tuple[Comparison, ...]:
    """Compare pairs of models."""
    pairs = {name: _pair(name, base, head, rules) if same_test_set else None for name, (base, head) in models.items()}
    tested = {name: pair.accuracy for name, pair in pairs.items() if pair and not pair.unchanged}
    adjusted = dict(zip(tested, significance.holm([test.p_value for test in tested.values()]), strict=True))
    found = []
    for name, (base, head) in models.items():
        pair, p_value, smallest = pairs[name], adjusted.get(name, 1.0), None
        if pair and name in tested:
            differing = tested[name].fixed + tested[name].broken
            others = [test.p_value for other, test in tested.items() if other != name]
            level = significance.holm_level(others, rules.significance)
            images = significance.min_significant_change(differing, level)
            smallest = images and images / len(pair.head.labels)
        verdict = _verdict(base, head, pair, significant=p_value < rules.significance)
        found.append(Comparison(name, base, head, pair, verdict, p_value, smallest, recipes.get(name)))
    return tuple(found)


def _pair(name: str, base: Model | None, head: Model | None, rules: Rules) -> PairedResult | None:
    before, after = (model.predictions if model else None for model in (base, head))
    if before is None or after is None:
        return None
    if not np.array_equal(before.labels, after.labels):
        raise UserError(f"{name}: the two models have predictions for different test examples; run `dvc repro`")
    labels, probabilities = after.labels, before.has_probabilities and after.has_probabilities
    return PairedResult(
        before,
        after,
        significance.mcnemar(before.correct, after.correct),
        significance.loss_change(before, after) if probabilities else None,
        significance.calibration_change(before, after, rules.calibration_bins) if probabilities else None,
        recall={
            name: significance.recall_change(before.correct[labels == label], after.correct[labels == label])
            for label, name in enumerate(rules.classes)
            if (labels == label).any()
        },
    )


def _verdict(base: Model | None, head: Model | None, pair: PairedResult | None, *, significant: bool) -> Verdict:
    if base is None:
        return "new"
    if head is None:
        return "removed"
    if pair is None:
        return "not comparable"
    if pair.unchanged:
        return "unchanged"
    if not significant:
        return "within noise"
    return "better" if pair.accuracy.fixed > pair.accuracy.broken else "worse"
