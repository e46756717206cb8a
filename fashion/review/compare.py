"""Compare the models of two snapshots, and those of one snapshot with each other."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any, Literal

import numpy as np

from fashion.evaluation import significance
from fashion.evaluation.metrics import Labels, Probabilities, balanced_accuracy, confusion_matrix, macro_f1
from fashion.evaluation.significance import Interval, McNemar
from fashion.review import data_changes, lock_diff
from fashion.review.data_changes import DataChanges
from fashion.review.lock_diff import LockDiff
from fashion.review.rules import Rules
from fashion.review.snapshot import Model, Snapshot, TestSet

Verdict = Literal["better", "worse", "within noise", "unchanged", "new", "removed", "not comparable"]
MOST_CHANGED = 5


@dataclass(frozen=True)
class PairedResult:
    """Two models on the same test set.

    Attributes:
        base, head: (n, classes), their predictions.
        accuracy: McNemar's test.
        loss: change in cross-entropy.
        calibration: change in calibration error, and its p-value.
        recall: change by class.
    """

    base: Probabilities
    head: Probabilities
    accuracy: McNemar
    loss: Interval
    calibration: tuple[float, float]
    recall: Mapping[str, Interval]

    @cached_property
    def unchanged(self) -> bool:
        """Whether all predictions are equal."""
        return np.array_equal(self.base, self.head)

    @cached_property
    def most_changed(self) -> list[int]:
        """Indices of the test examples whose probabilities differ most, in total variation."""
        moved = np.abs(self.head.astype(float) - self.base).sum(axis=1)
        return [int(index) for index in np.argsort(-moved, kind="stable")[:MOST_CHANGED] if moved[index] > 0]


@dataclass(frozen=True)
class Comparison:
    """One model in base and in head, or two models of head.

    Attributes:
        base, head: None if there is no such model.
        paired: None if the two have no predictions for the same test set.
        verdict: on the accuracy.
        p_adjusted: p-value of McNemar's test, adjusted for the number of models tested.
        min_significant_change: smallest change in accuracy that would be significant with as many test examples
            predicted differently and as many models tested; None if none would.
    """

    name: str
    base: Model | None
    head: Model | None
    paired: PairedResult | None
    verdict: Verdict
    p_adjusted: float
    min_significant_change: float | None


@dataclass(frozen=True)
class ReviewResult:
    """The result of a review.

    Attributes:
        models: each in base and in head.
        pairs: the models of head in pairs, the first in the place of base.
        same_test_set: whether the models of base and head were compared on the same test set.
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
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.head.rules.classes

    @property
    def test_set(self) -> TestSet:
        """The test set of head."""
        return self.head.test_set


def compare(base: Snapshot, head: Snapshot) -> ReviewResult:
    """Compare the models of two snapshots by head's rules.

    If head's test set is base's with more examples, the models are compared on base's.

    Raises:
        UserError: predictions do not fit the test set.
    """
    same_test_set = base.test_set.same_as(head.test_set)
    if same_test_set:  # one of the two files may be missing here
        test_set = head.test_set if head.test_set.labels is not None else base.test_set
        base, head = base.on(test_set), head.on(test_set)
    accuracies = {name: model.metrics["accuracy"] for name, model in head.models.items() if "accuracy" in model.metrics}
    indices = None if same_test_set else base.test_set.indices_in(head.test_set)
    growth = 0
    if indices is not None and head.test_set.labels is not None and base.rules.classes == head.rules.classes:
        same_test_set, growth = True, len(head.test_set.labels) - len(indices)
        head = head.at(indices, base.test_set)
    base, head = _with_macro_metrics(base), _with_macro_metrics(head)
    rules, labels = head.rules, head.test_set.labels
    present = {
        name: replace(model, seeds=()) for name, model in head.models.items()
    }  # the seeds of one model do not apply to a pair
    names = [name for name in rules.models | base.rules.models if name in head.models or name in base.models]
    return ReviewResult(
        base,
        head,
        models=_compare(
            {name: (base.models.get(name), head.models.get(name)) for name in names},
            labels if same_test_set else None,
            rules,
        ),
        pairs=_compare(
            {f"{first} → {second}": (present[first], present[second]) for first, second in combinations(present, 2)},
            labels,
            rules,
        ),
        same_test_set=same_test_set,
        test_set_growth=growth,
        accuracies=accuracies,
        data=data_changes.compare(base.data, head.data),
        lock=lock_diff.compare(base.lock, head.lock),
        rules=lock_diff.differences(*(lock_diff.flat(s.rules.model_dump(), "review") for s in (base, head))),
    )


def _with_macro_metrics(snapshot: Snapshot) -> Snapshot:
    """Add balanced accuracy and macro F1 to the metrics, if the classes of the test set are unequal in size."""
    labels = snapshot.test_set.labels
    if labels is None or len(set(np.bincount(labels, minlength=len(snapshot.rules.classes)).tolist())) == 1:
        return snapshot
    models = {}
    for name, model in snapshot.models.items():
        added = {}
        if model.predictions is not None:
            matrix = confusion_matrix(model.predictions, labels)
            added = {"balanced_accuracy": balanced_accuracy(matrix), "macro_f1": macro_f1(matrix)}
        models[name] = replace(model, metrics={**model.metrics, **added})
    return replace(snapshot, models=models)


def _compare(
    models: Mapping[str, tuple[Model | None, Model | None]], labels: Labels | None, rules: Rules
) -> tuple[Comparison, ...]:
    """Compare pairs of models; `labels` are None if there is no common test set."""
    pairs = {name: _pair(base, head, labels, rules) for name, (base, head) in models.items()}
    tested = {name: pair.accuracy for name, pair in pairs.items() if pair and not pair.unchanged}
    adjusted = dict(zip(tested, significance.holm([test.p_value for test in tested.values()]), strict=True))
    found = []
    for name, (base, head) in models.items():
        p_value, smallest = adjusted.get(name, 1.0), None
        if name in tested and labels is not None:
            differing = tested[name].fixed + tested[name].broken
            images = significance.min_significant_change(differing, rules.significance / len(tested))
            smallest = images and images / len(labels)
        verdict = _verdict(base, head, pairs[name], significant=p_value < rules.significance)
        found.append(Comparison(name, base, head, pairs[name], verdict, p_value, smallest))
    return tuple(found)


def _pair(base: Model | None, head: Model | None, labels: Labels | None, rules: Rules) -> PairedResult | None:
    before, after = (model.predictions if model else None for model in (base, head))
    if before is None or after is None or labels is None:
        return None
    correct_before, correct_after = (predictions.argmax(axis=1) == labels for predictions in (before, after))
    return PairedResult(
        before,
        after,
        significance.mcnemar(correct_before, correct_after),
        significance.loss_change(before, after, labels),
        significance.calibration_change(before, after, labels, rules.calibration_bins),
        recall={
            name: significance.recall_change(correct_before[labels == label], correct_after[labels == label])
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
