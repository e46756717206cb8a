"""Compare the models of two revisions of a project, and those of one revision with each other."""

import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd

from fashion.errors import UserError
from fashion.evaluation import significance, metrics
from fashion.evaluation.significance import Interval, McNemar
from fashion.evaluation.metrics import Labels, Probabilities
from fashion.params import Review, parse_review
from fashion.review import lock_diff
from fashion.review.lock_diff import Changes
from fashion.review.snapshot import Revision, behind, md5, stale

Verdict = Literal["better", "worse", "within noise", "unchanged", "new", "gone", "not comparable"]
METRICS = ("accuracy", "loss", "calibration_error")
MOST_CHANGED = 5


@dataclass(frozen=True)
class TestSet:
    """The test cases of a revision.

    Attributes:
        identity: equal for equal files; None if there is no such file.
        labels: the actual class of each case, None where the file is not at hand.
        images: their pictures, uint8 (n, height, width), None where there are none.
    """

    identity: str | None
    labels: Labels | None
    images: np.ndarray | None

    def same_as(self, other: "TestSet") -> bool:
        """Tell whether the cases are the same: in equal files, or with equal pictures and labels in files that differ.

        Without the pictures of both only the files can tell, as other cases may have the same labels.
        """
        if self.identity == other.identity:
            return True
        if self.images is None or other.images is None or self.labels is None or other.labels is None:
            return False
        return np.array_equal(self.images, other.images) and np.array_equal(self.labels, other.labels)


@dataclass(frozen=True)
class Model:
    """A model as one revision has it.

    Attributes:
        metrics: those of `METRICS` that are known.
        probabilities: of each class, for each test case; None where they are not at hand.
        history: a row per epoch with the columns epoch and val_accuracy, None where there is none.
    """

    metrics: Mapping[str, float]
    probabilities: Probabilities | None
    history: pd.DataFrame | None


@dataclass(frozen=True)
class Paired:
    """Two models on the same test cases.

    Attributes:
        base, head: their probabilities of each class, for each case.
        accuracy: which cases they answer differently, and McNemar's test.
        loss: its change.
        calibration: change of the calibration error, and the p-value of that.
        recall: changes by class.
    """

    base: Probabilities
    head: Probabilities
    accuracy: McNemar
    loss: Interval
    calibration: tuple[float, float]
    recall: Mapping[str, Interval]

    @cached_property
    def unchanged(self) -> bool:
        """Whether the two answer alike in everything."""
        return np.array_equal(self.base, self.head)

    @cached_property
    def most_changed(self) -> list[int]:
        """The cases whose probabilities differ most (in total variation); none if nothing does."""
        moved = np.abs(self.head.astype(float) - self.base).sum(axis=1)
        return [int(case) for case in np.argsort(-moved, kind="stable")[:MOST_CHANGED] if moved[case] > 0]


@dataclass(frozen=True)
class Comparison:
    """One model in base and in head, or two models of head.

    Attributes:
        base, head: None where there is no such model.
        paired: None where the two did not answer the same test cases, or what they answered is not at hand.
        verdict: what became of the model, by its accuracy.
        p_adjusted: p-value of McNemar's test, corrected for the number of models tested.
        smallest: the smallest change in accuracy that would have been significant with as many cases answered
            differently and as many models tested; None if none would.
        seeds: accuracies of the model in a study of several seeds.
    """

    name: str
    base: Model | None
    head: Model | None
    paired: Paired | None
    verdict: Verdict
    p_adjusted: float
    smallest: float | None
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Report:
    """All that a review says.

    Attributes:
        classes: their names.
        significance: level of McNemar's test.
        rules: what differs in the section `review` of params.yaml.
        models: each in base and in head.
        pairs: the models of head, two by two, the first in the place of base.
        truth: the test cases of head.
        same_test_set: whether those of base are the same.
        missing: artifacts that are not in the cache.
        stale: what differs from what the working tree's dvc.lock was written with, if that is head.
        failures: why the gate fails; empty if it does not.
    """

    base: Revision
    head: Revision
    classes: tuple[str, ...]
    significance: float
    models: tuple[Comparison, ...]
    pairs: tuple[Comparison, ...]
    changes: Changes
    rules: tuple[tuple[str, Any, Any], ...]
    truth: TestSet
    same_test_set: bool
    missing: tuple[str, ...]
    stale: tuple[str, ...]
    failures: tuple[str, ...]


def declared(revision: Revision) -> Review | None:
    """Return what a revision's params.yaml says of the review, None if it says nothing."""
    content = revision.read("params.yaml")
    return None if content is None else parse_review(content.decode(), f"params.yaml of {revision.name}")


def lacks_artifacts(revision: Revision) -> bool:
    """Tell whether something that a review needs of a revision is not in the cache."""
    review = declared(revision)
    return review is not None and any(revision.lacks(path) for path in review.files)


def compare(base: Revision, head: Revision) -> Report:
    """Compare the models of two revisions, by the rules that head declares.

    Raises:
        UserError: head declares nothing, a revision has no dvc.lock, or a file is not what it is declared to be.
    """
    review = declared(head)
    if review is None:
        raise UserError(f"params.yaml of {head.name} has no section `review`, which names the models to compare")
    try:
        before = declared(base) or review
    except UserError:  # the rules of another version of this package
        before = review
    truths = [_truth(revision, rules) for revision, rules in ((base, before), (head, review))]
    if truths[1].identity is None:
        raise UserError(f"{head.name} has no {review.truth}, which params.yaml names as `review.truth`")
    same_test_set = truths[0].same_as(truths[1])
    if same_test_set:  # then the one that is at hand serves both
        truths = [next((truth for truth in truths if truth.labels is not None), truths[0])] * 2
    names = list(review.models | before.models)
    models = [
        {name: _model(revision, rules, name, truth) for name in names}
        for revision, rules, truth in ((base, before, truths[0]), (head, review, truths[1]))
    ]
    compared = _compare(
        {name: (models[0][name], models[1][name]) for name in names if models[0][name] or models[1][name]},
        truths[1] if same_test_set else None,
        review,
        {name: _seeds(head, model.seeds) for name, model in review.models.items()},
    )
    present = {name: model for name, model in models[1].items() if model}
    lock_changes = changes.compare(base.lock, head.lock)  # which refuses a lock that is none
    differing = () if head.commit else tuple(stale(head.root))
    pairs = {f"{one} → {other}": (present[one], present[other]) for one, other in combinations(present, 2)}
    return Report(
        base,
        head,
        review.classes,
        review.significance,
        models=compared,
        pairs=_compare(pairs, truths[1], review, {}),
        changes=lock_changes,
        rules=changes.differences(*(changes.flat(rules.model_dump(), "review") for rules in (before, review))),
        truth=truths[1],
        same_test_set=same_test_set,
        missing=tuple(
            f"{path} of {revision.name}"
            for revision, rules in ((base, before), (head, review))
            for path in rules.files
            if revision.lacks(path)
        ),
        stale=differing,
        failures=tuple(_failures(compared, review, same_test_set, differing)),
    )


def _truth(revision: Revision, review: Review) -> TestSet:
    content = revision.read(review.truth)
    if content is None:
        return TestSet(revision.recorded(review.truth), None, None)
    try:
        with np.load(io.BytesIO(content)) as arrays:
            labels, images = arrays["labels"], arrays.get("images")
    except (ValueError, TypeError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{review.truth} of {revision.name} is not an .npz file with labels: {error}") from error
    classes = len(review.classes)
    if (
        labels.ndim != 1
        or not len(labels)
        or labels.dtype.kind not in "ui"
        or not (0 <= labels.min() <= labels.max() < classes)
    ):
        raise UserError(
            f"{review.truth} of {revision.name}: expected a row of labels, whole numbers from 0 to {classes - 1}, "
            f"found {labels.dtype} of shape {labels.shape}"
            + (f" from {labels.min()} to {labels.max()}" if labels.size else "")
        )
    return TestSet(md5(content), labels, images)


def _model(revision: Revision, review: Review, name: str, truth: TestSet) -> Model | None:
    """Return a model as the revision has it, None if it has none."""
    if name not in review.models:
        return None
    files = review.models[name]
    written, predicted, history = (
        revision.read(path) if path else None for path in (files.metrics, files.predictions, files.history)
    )
    if written is None and predicted is None and revision.recorded(files.predictions) is None:
        return None
    try:
        values = {} if written is None else json.loads(written)
        known = {metric: float(values[metric]) for metric in METRICS if metric in values}
        probabilities = None if predicted is None else np.lib.format.read_array(io.BytesIO(predicted))
        curve = None if history is None else pd.read_csv(io.BytesIO(history))[["epoch", "val_accuracy"]]
    except (ValueError, TypeError, KeyError, EOFError) as error:
        raise UserError(f"results of {name} of {revision.name} cannot be read ({error}); run `dvc repro`") from error
    if probabilities is not None and truth.labels is not None:
        expected = (len(truth.labels), len(review.classes))
        if probabilities.shape != expected or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
            raise UserError(
                f"{files.predictions} of {revision.name}: expected probabilities of shape {expected} whose rows sum to "
                f"1, found shape {probabilities.shape}; run `dvc repro`"
            )
        known = {
            "accuracy": float((probabilities.argmax(axis=1) == truth.labels).mean()),
            "loss": metrics.cross_entropy(probabilities, truth.labels),
            "calibration_error": metrics.calibration_error(probabilities, truth.labels, review.calibration_bins),
        }
    return Model(known, probabilities, curve)


def _compare(
    models: Mapping[str, tuple[Model | None, Model | None]],
    truth: TestSet | None,
    review: Review,
    seeds: Mapping[str, tuple[float, ...]],
) -> tuple[Comparison, ...]:
    """Compare models two by two; `truth` is None if they did not answer the same test cases."""
    pairs = {name: _pair(*pair, truth, review) for name, pair in models.items()}
    tested = {name: pair.accuracy for name, pair in pairs.items() if pair and not pair.unchanged}
    adjusted = dict(zip(tested, comparison.holm([test.p_value for test in tested.values()]), strict=True))
    found = []
    for name, (base, head) in models.items():
        p_value, smallest = adjusted.get(name, 1.0), None
        if name in tested and truth and truth.labels is not None:
            differing = tested[name].fixed + tested[name].broken
            surplus = comparison.min_significant_change(differing, review.significance / len(tested))
            smallest = surplus and surplus / len(truth.labels)
        verdict = _verdict(base, head, pairs[name], significant=p_value < review.significance)
        found.append(Comparison(name, base, head, pairs[name], verdict, p_value, smallest, seeds.get(name, ())))
    return tuple(found)


def _pair(base: Model | None, head: Model | None, truth: TestSet | None, review: Review) -> Paired | None:
    before, after = (model.probabilities if model else None for model in (base, head))
    if before is None or after is None or truth is None or truth.labels is None:
        return None
    labels = truth.labels
    right_before, right_after = (probabilities.argmax(axis=1) == labels for probabilities in (before, after))
    return Paired(
        before,
        after,
        comparison.mcnemar(right_before, right_after),
        comparison.loss_change(before, after, labels),
        comparison.calibration_change(before, after, labels, review.calibration_bins),
        recall={
            name: comparison.share_change(right_before[labels == label], right_after[labels == label])
            for label, name in enumerate(review.classes)
            if (labels == label).any()
        },
    )


def _verdict(base: Model | None, head: Model | None, pair: Paired | None, *, significant: bool) -> Verdict:
    if base is None:
        return "new"
    if head is None:
        return "gone"
    if pair is None:
        return "not comparable"
    if pair.unchanged:
        return "unchanged"
    if not significant:
        return "within noise"
    return "better" if pair.accuracy.fixed > pair.accuracy.broken else "worse"


def _seeds(revision: Revision, pattern: str | None) -> tuple[float, ...]:
    """Return the accuracies in the metrics files that match a pattern."""
    contents = [revision.read(path) for path in revision.paths(pattern)] if pattern else []
    values = (json.loads(content) for content in contents if content)
    return tuple(value["accuracy"] for value in values if "accuracy" in value)


def _failures(
    models: Iterable[Comparison], review: Review, same_test_set: bool, differing: Sequence[str]
) -> Iterator[str]:
    if differing:
        yield behind(differing)
    if not same_test_set:
        yield (
            "the test cases of the two revisions differ or cannot be compared, so no model can be tested: "
            "a person must judge"
        )
    for model in models:
        if model.verdict == "worse" and model.paired:
            yield (
                f"{model.name} is significantly worse: {model.paired.accuracy.broken} test cases broken, "
                f"{model.paired.accuracy.fixed} fixed, p = {model.p_adjusted:.2g} (limit {review.significance:g})"
            )
        if model.verdict == "not comparable" and same_test_set:
            yield f"{model.name} cannot be tested, as predictions are missing"
        if model.head is None:
            yield f"{model.name} is gone"
            continue
        accuracy, floor = model.head.metrics.get("accuracy"), review.models[model.name].floor
        if accuracy is None:
            yield f"{model.name}: its accuracy is not known; run `dvc repro`"
        elif accuracy < floor:
            yield f"{model.name} has an accuracy of {accuracy:.2%}, below its floor of {floor:.2%}"
