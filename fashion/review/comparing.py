"""Compare the models of two revisions of a project, and those of one revision with each other."""

import hashlib
import io
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd

from fashion.errors import UserError
from fashion.evaluation import comparison, metrics
from fashion.evaluation.comparison import Interval, McNemar
from fashion.evaluation.metrics import Labels, Probabilities
from fashion.params import Review, ReviewedModel
from fashion.review import changes
from fashion.review.changes import Changes
from fashion.review.revision import Revision

Verdict = Literal["better", "worse", "within noise", "unchanged", "new", "gone", "not comparable"]
METRICS = ("accuracy", "loss", "calibration_error")
MOST_CHANGED = 5


@dataclass(frozen=True)
class Truth:
    """The test cases of a revision.

    Attributes:
        identity: equal for equal files; None if there is no such file.
        labels: the actual class of each case, None where the file is not at hand.
        images: their pictures, uint8 (n, height, width), None where there are none.
    """

    identity: str | None
    labels: Labels | None
    images: np.ndarray | None


@dataclass(frozen=True)
class Model:
    """A model as one revision has it.

    Attributes:
        metrics: those of `METRICS` that are known.
        probabilities: of each class, for each test case; None where they are not at hand.
        history: a row per epoch, None where there is none.
    """

    metrics: Mapping[str, float]
    probabilities: Probabilities | None
    history: pd.DataFrame | None


@dataclass(frozen=True)
class Test:
    """Two models on the same test cases.

    Attributes:
        base, head: their probabilities of each class, for each case.
        accuracy: which cases they answer differently, and McNemar's test.
        smallest: the smallest change in accuracy that would have been significant by itself, with as many cases
            answered differently; None if none would.
        changes: of loss and calibration error.
        recall: changes by class.
    """

    base: Probabilities
    head: Probabilities
    accuracy: McNemar
    smallest: float | None
    changes: Mapping[str, Interval]
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
        test: None where the two cannot be tested.
        p_adjusted: p-value of the test, corrected for the number of models tested.
        significance: level of the test.
        seed_deviation: standard deviation of the accuracy over the seeds of a study, None without one.
    """

    name: str
    base: Model | None
    head: Model | None
    test: Test | None
    p_adjusted: float
    significance: float
    seed_deviation: float | None = None

    @property
    def verdict(self) -> Verdict:
        """What became of the model, by its accuracy."""
        if self.base is None:
            return "new"
        if self.head is None:
            return "gone"
        if self.test is None:
            return "not comparable"
        if self.test.unchanged:
            return "unchanged"
        if self.p_adjusted >= self.significance:
            return "within noise"
        return "better" if self.test.accuracy.fixed > self.test.accuracy.broken else "worse"


@dataclass(frozen=True)
class Report:
    """All that a review says.

    Attributes:
        models: each in base and in head.
        pairs: the models of head, two by two, the first in the place of base.
        truth: the test cases of head.
        same_truth: whether those of base are the same.
        missing: artifacts that neither the cache nor a remote holds.
        stale: code and params that are not those head's dvc.lock was written with.
        failures: why the gate fails; empty if it does not.
    """

    base: Revision
    head: Revision
    models: tuple[Comparison, ...]
    pairs: tuple[Comparison, ...]
    changes: Changes
    truth: Truth
    same_truth: bool
    missing: tuple[str, ...]
    stale: tuple[str, ...]
    failures: tuple[str, ...]


def compare(base: Revision, head: Revision, declared: Review) -> Report:
    """Compare the declared models of two revisions.

    Raises:
        UserError: a revision has no dvc.lock, or a file is not what it is declared to be.
    """
    truths = [_truth(revision, declared.truth) for revision in (base, head)]
    same_truth = truths[0].identity == truths[1].identity is not None
    if same_truth:  # then the one that is at hand serves both
        truths = [next((truth for truth in truths if truth.labels is not None), truths[0])] * 2
    before, after = (
        {name: _model(revision, model, truth, declared) for name, model in declared.models.items()}
        for revision, truth in zip((base, head), truths, strict=True)
    )
    models = _compare(
        {name: (before[name], after[name]) for name in declared.models if before[name] or after[name]},
        truths[1] if same_truth else None,
        declared,
        {name: _seed_deviation(head, model) for name, model in declared.models.items()},
    )
    present = [name for name in declared.models if after[name]]
    pairs = {f"{one} → {other}": (after[one], after[other]) for one, other in combinations(present, 2)}
    return Report(
        base,
        head,
        models=models,
        pairs=_compare(pairs, truths[1], declared, {}),
        changes=changes.compare(base.lock, head.lock),
        truth=truths[1],
        same_truth=same_truth,
        missing=tuple(f"{path} of {end.name}" for end in (base, head) for path in declared.files if end.lacks(path)),
        stale=tuple(head.stale()),
        failures=tuple(
            line for model in models for line in _failures(model, declared.models[model.name].floor, same_truth)
        ),
    )


def _truth(revision: Revision, path: str) -> Truth:
    content = revision.read(path)
    if content is None:
        return Truth(revision.recorded(path), None, None)
    identity = revision.recorded(path) or hashlib.md5(content, usedforsecurity=False).hexdigest()
    try:
        with np.load(io.BytesIO(content)) as arrays:
            return Truth(identity, arrays["labels"], arrays.get("images"))
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"{path} of {revision.name}: not an .npz file with labels ({error})") from error


def _model(revision: Revision, declared: ReviewedModel, truth: Truth, review: Review) -> Model | None:
    """Return a model as the revision has it, None if it has none."""
    written, predicted, history = (
        revision.read(path) if path else None for path in (declared.metrics, declared.predictions, declared.history)
    )
    if written is None and predicted is None and revision.recorded(declared.predictions) is None:
        return None
    try:
        values = {} if written is None else json.loads(written)
        probabilities = None if predicted is None else np.load(io.BytesIO(predicted))
        curves = None if history is None else pd.read_csv(io.BytesIO(history))
    except ValueError as error:
        raise UserError(f"results of {revision.name} cannot be read ({error}); run `dvc repro`") from error
    known = {name: float(values[name]) for name in METRICS if name in values}
    if probabilities is not None and truth.labels is not None:
        expected = (len(truth.labels), len(review.classes))
        if probabilities.shape != expected:
            raise UserError(
                f"{declared.predictions} of {revision.name}: expected probabilities of shape {expected}, found "
                f"{probabilities.shape}; run `dvc repro`"
            )
        known = {
            "accuracy": float((probabilities.argmax(axis=1) == truth.labels).mean()),
            "loss": metrics.cross_entropy(probabilities, truth.labels),
            "calibration_error": metrics.calibration_error(probabilities, truth.labels, review.calibration_bins),
        }
    return Model(known, probabilities, curves)


def _compare(
    models: Mapping[str, tuple[Model | None, Model | None]],
    truth: Truth | None,
    review: Review,
    seed_deviations: Mapping[str, float | None],
) -> tuple[Comparison, ...]:
    """Compare models two by two; `truth` is None if they did not answer the same test cases."""
    tests = {name: _test(*pair, truth, review) for name, pair in models.items()}
    tested = {name: test for name, test in tests.items() if test}
    adjusted = dict(zip(tested, comparison.holm([test.accuracy.p_value for test in tested.values()]), strict=True))
    return tuple(
        Comparison(name, *pair, tests[name], adjusted.get(name, 1.0), review.significance, seed_deviations.get(name))
        for name, pair in models.items()
    )


def _test(base: Model | None, head: Model | None, truth: Truth | None, review: Review) -> Test | None:
    before, after = (model.probabilities if model else None for model in (base, head))
    if before is None or after is None or truth is None or truth.labels is None:
        return None
    right_before, right_after = (probabilities.argmax(axis=1) == truth.labels for probabilities in (before, after))
    accuracy = comparison.mcnemar(right_before, right_after)
    surplus = comparison.smallest_significant_change(accuracy.fixed + accuracy.broken, review.significance)
    intervals = comparison.loss_and_calibration_changes(before, after, truth.labels, review.calibration_bins)
    return Test(
        before,
        after,
        accuracy,
        smallest=None if surplus is None else surplus / len(truth.labels),
        changes=dict(zip(METRICS[1:], intervals, strict=True)),
        recall={
            name: comparison.share_change(right_before[truth.labels == label], right_after[truth.labels == label])
            for label, name in enumerate(review.classes)
        },
    )


def _seed_deviation(revision: Revision, model: ReviewedModel) -> float | None:
    contents = [revision.read(path) for path in revision.paths(model.seeds)] if model.seeds else []
    accuracies = [json.loads(content)["accuracy"] for content in contents if content]
    return statistics.stdev(accuracies) if len(accuracies) > 1 else None


def _failures(model: Comparison, floor: float, same_truth: bool) -> list[str]:
    lines = []
    if model.verdict == "not comparable" and same_truth:
        lines.append(f"{model.name} cannot be tested, as predictions are missing; `dvc pull` or --rebuild gets them")
    if model.verdict == "worse" and model.test:
        lines.append(
            f"{model.name} is significantly worse: {model.test.accuracy.broken} test cases broken, "
            f"{model.test.accuracy.fixed} fixed, p = {model.p_adjusted:.2g} (limit {model.significance:g})"
        )
    if model.head is None:
        return lines
    accuracy = model.head.metrics.get("accuracy")
    if accuracy is None:
        lines.append(f"{model.name}: its accuracy is not known; run `dvc repro` or `dvc pull`")
    elif accuracy < floor:
        lines.append(f"{model.name} has an accuracy of {accuracy:.2%}, below its floor of {floor:.2%}")
    return lines
