"""What a review reads from one revision: its rules, its test set and the results of its models."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int64
from pydantic import BaseModel, ValidationError

from fashion.dvc import Lock, folder_md5, git
from fashion.errors import UserError
from fashion.evaluation import metrics
from fashion.evaluation.predictions import Labels, Predictions
from fashion.evaluation.tables import MAX_ROWS, read_csv
from fashion.files import NPY_ERRORS
from fashion.review import revision, trials
from fashion.review.data_changes import Data, Folder
from fashion.review.revision import Revision
from fashion.review.rules import Rules, load_rules
from fashion.review.trials import Trials

AUDIT = "reports/audit.json"
MAX_JSON_BYTES = 2**20
METRICS = ("accuracy", "loss", "calibration_error")
HISTORY = {"epoch": np.int64, "val_accuracy": np.float64}  # columns and their types


@dataclass(frozen=True)
class TestSet:
    """The test set of a revision.

    Attributes:
        md5: of the output, as DVC computes it; None if unknown.
        sha256: as `fashion.evaluation.predictions.sha256` computes it; None if unknown.
        labels: (n,), the actual classes; None if they are missing here.
        images: uint8, (n, height, width, channels); None if there are none.
    """

    __test__ = False  # not a pytest class

    md5: str | None
    sha256: str | None
    labels: Labels | None
    images: np.ndarray | None

    def same_as(self, other: "TestSet") -> bool:
        """Return whether the two have the same hash, or equal images and labels.

        Equal labels without images are not enough: other examples may have the same labels.
        """
        hashes = ((self.md5, other.md5), (self.sha256, other.sha256))
        if any(mine is not None and mine == theirs for mine, theirs in hashes):
            return True
        if self.images is None or other.images is None or self.labels is None or other.labels is None:
            return False
        return np.array_equal(self.images, other.images) and np.array_equal(self.labels, other.labels)

    def indices_in(self, other: "TestSet") -> Int64[np.ndarray, "n"] | None:
        """Return the index of each example in another test set; None if that lacks one, or if images are missing."""
        theirs: dict[tuple[object, ...], list[int]] = {}
        for index, key in enumerate(other._examples()):
            theirs.setdefault(key, []).append(index)
        found = [theirs[key].pop() if theirs.get(key) else None for key in self._examples()]
        return np.array(found) if found and None not in found else None

    def _examples(self) -> list[tuple[object, ...]]:
        """Return a key per example, equal for examples with the same image and label."""
        if self.images is None or self.labels is None:
            return []
        pairs = zip(self.images, self.labels.tolist(), strict=True)
        return [(image.shape, blake2b(image.tobytes()).digest(), label) for image, label in pairs]


@dataclass(frozen=True)
class Model:
    """The results of one model in one revision.

    Attributes:
        metrics: those of `METRICS` that are known, and balanced_accuracy and macro_f1, if the classes of the test set
            are unequal in size.
        predictions: for the test set; None if they are missing here.
        test_set: SHA-256 of the test set, if the metrics name it.
        history: a row per epoch with the columns epoch and val_accuracy; None if there is none.
        trials: those of a study that trains the model with several seeds; None if the rules name no such study, or the
            predictions are missing.
    """

    metrics: Mapping[str, float]
    predictions: Predictions | None
    test_set: str | None
    history: pd.DataFrame | None
    trials: Trials | None


@dataclass(frozen=True)
class Snapshot:
    """One revision.

    Attributes:
        commit: its hash; None for the working tree.
        models: those that the revision has, by name.
        missing: outputs that a review needs and that neither the revision nor the cache has.
        stale: what has changed since dvc.lock was written; empty for a commit.
        rebuilt: whether the pipeline was run again to read it.
        own_rules: whether its own rules were used; else those of the other revision.
    """

    name: str
    commit: str | None
    rules: Rules
    lock: Lock
    data: Data
    test_set: TestSet
    models: Mapping[str, Model]
    missing: tuple[str, ...]
    stale: tuple[str, ...]
    rebuilt: bool
    own_rules: bool

    def at(self, indices: Int64[np.ndarray, "n"], test_set: TestSet) -> "Snapshot":
        """Return the snapshot restricted to `test_set`, whose examples are at `indices` of its own test set."""
        models = {}
        for name, model in self.models.items():
            trials = model.trials
            if trials and trials.correct is not None:
                trials = replace(trials, correct=trials.correct[:, indices])
            predictions = model.predictions and model.predictions.take(indices)
            models[name] = scored(replace(model, metrics={}, trials=trials), predictions, self.rules)
        return replace(self, models=models, test_set=test_set)


def scored(model: Model, predictions: Predictions | None, rules: Rules) -> Model:
    """Return the model with these predictions and their metrics; without predictions, return it unchanged."""
    if predictions is None:
        return model
    matrix = metrics.confusion_matrix(predictions)
    values = {"accuracy": float(predictions.correct.mean())}
    if len(set(matrix.sum(axis=1).tolist())) > 1:
        values |= {"balanced_accuracy": metrics.balanced_accuracy(matrix), "macro_f1": metrics.macro_f1(matrix)}
    if predictions.has_probabilities:
        values["loss"] = metrics.cross_entropy(predictions)
        values["calibration_error"] = metrics.calibration_error(predictions, rules.calibration_bins)
    return replace(model, predictions=predictions, metrics=values)


def take(root: Path, base: str | None, head: str | None, *, rebuild: bool) -> tuple[Snapshot, Snapshot]:
    """Read the two revisions of a review; return base and head.

    Args:
        root: the project's folder.
        base: revision to compare with; by default the commit where head left the base branch.
        head: revision to review; by default the working tree.
        rebuild: whether to run the pipeline of a commit again if its outputs are missing.

    Raises:
        UserError: there is no such revision, head has no rules, a revision has no dvc.lock, or a file does not
            have the expected format.
    """
    if not (root / "params.yaml").is_file():
        raise UserError(f"{root.absolute()} has no params.yaml; run this in the project's folder")
    git(root, "rev-parse", "--git-dir")  # fails with Git's own message if Git refuses to read the repository
    after = revision.commit(root, head) if head else revision.working_tree(root)
    rules = load_rules(after)
    if rules is None:
        raise UserError(f"params.yaml of {after.name} has no section `review`; docs/review.md of fashion describes it")
    before = revision.commit(root, base) if base else revision.merge_base(after, rules.base_branch)
    try:
        base_rules = load_rules(before)
    except UserError:  # written for another version of this package
        base_rules = None
    base_snapshot = read(before, base_rules or rules, rebuild=rebuild, own_rules=base_rules is not None)
    return base_snapshot, read(after, rules, rebuild=rebuild)


def read(source: Revision, rules: Rules, *, rebuild: bool, own_rules: bool = True) -> Snapshot:
    """Read a revision.

    Raises:
        UserError: as for `take`.
    """
    missing = tuple(path for path in rules.files if source.lacks(path))
    if rebuild and missing and source.commit:
        with revision.rebuilt(source) as copy:
            return read(copy, rules, rebuild=False, own_rules=own_rules)
    test_set = _test_set(source, rules)
    read_models = {
        name: _model(source, name, test_set.labels, rules)
        for name, files in rules.models.items()
        if own_rules or source.recorded(files.predictions) is not None  # else it is older than the first review
    }
    models = {name: model for name, model in read_models.items() if model}
    named = {model.test_set for model in models.values()}
    return Snapshot(
        source.name,
        source.commit,
        rules,
        source.lock,
        _data(source),
        replace(test_set, sha256=named.pop() if len(named) == 1 else None),
        models,
        missing=missing,
        stale=() if source.commit else tuple(revision.stale(source.root)),
        rebuilt=source.rebuilt,
        own_rules=own_rules,
    )


def _data(source: Revision) -> Data:
    class Audit(BaseModel):
        images: dict[str, dict[str, int]] = {}

    try:
        audit = Audit.model_validate(_json(source.file(AUDIT)))
    except ValidationError:  # of another project, or written by another version of this package
        audit = Audit()
    except (ValueError, RecursionError) as error:
        raise UserError(f"cannot read {AUDIT} of {source.name}: {error}") from error
    folders = {
        path: Folder(md5, count, source.cached_listing(md5))
        for path, (md5, count) in source.lock.folders.items()
        if source.file(f"{path}.dvc") is not None
    }
    return Data(audit.images, folders)


def _test_set(source: Revision, rules: Rules) -> TestSet:
    files = source.listing(rules.test_set)
    digest = folder_md5(files) if files else source.recorded(rules.test_set)
    labels, images = (_array(source, f"{rules.test_set}/{name}.npy") for name in ("labels", "images"))
    if labels is None:
        other = (files and "labels.npy" not in files) or source.file(rules.test_set) is not None
        if other and rules.test_set in rules.files:
            raise UserError(
                f"{rules.test_set} of {source.name}: expected a folder with labels.npy (review.test_set), as "
                "predictions are .npy files"
            )
        return TestSet(digest, None, None, None)
    classes = len(rules.classes)
    if (
        labels.ndim != 1
        or not len(labels)
        or labels.dtype.kind not in "ui"
        or not (0 <= labels.min() <= labels.max() < classes)
    ):
        raise UserError(
            f"{rules.test_set}/labels.npy of {source.name}: expected shape (n,) and integers from 0 to {classes - 1}, "
            f"found {labels.dtype} of shape {labels.shape}"
            + (f" from {labels.min()} to {labels.max()}" if labels.size and labels.dtype.kind in "ui" else "")
        )
    if len(labels) > MAX_ROWS:
        raise UserError(f"{rules.test_set} of {source.name}: {len(labels):,} examples; the limit is {MAX_ROWS:,}")
    if images is not None and (
        images.ndim != 4 or len(images) != len(labels) or images.shape[3] not in (1, 3) or images.dtype != np.uint8
    ):
        raise UserError(
            f"{rules.test_set}/images.npy of {source.name}: expected uint8 of shape ({len(labels)}, height, width, "
            f"1 or 3), found {images.dtype} of shape {images.shape}"
        )
    return TestSet(digest, None, labels, images)


def _array(source: Revision, path: str) -> np.ndarray | None:
    """Read a .npy file, None if there is none."""
    content = source.read(path)
    return None if content is None else parse_array(content, f"{path} of {source.name}")


def parse_array(content: bytes, name: str) -> np.ndarray:
    """Return the array in a .npy file.

    Raises:
        UserError: the file `name` is damaged, or has pickled objects.
    """
    try:
        return np.lib.format.read_array(io.BytesIO(content))
    except NPY_ERRORS as error:
        raise UserError(f"{name} is not a .npy file: {error}") from error


def _model(source: Revision, name: str, labels: Labels | None, rules: Rules) -> Model | None:
    """Read a model; None if the revision has none of that name. Predictions in the .npy format need `labels`."""
    files = rules.models[name]
    written, history = (source.read(path) if path else None for path in (files.metrics, files.history))
    predictions = _predictions(source, files.predictions, labels, rules)
    if written is None and predictions is None and source.recorded(files.predictions) is None:
        return None
    try:
        values = _json(written)
        model = Model(
            {metric: float(values[metric]) for metric in METRICS if metric in values},
            None,
            None if values.get("test_set") is None else str(values["test_set"]),
            None if history is None else read_csv(history, HISTORY)[list(HISTORY)],
            trials.read(source, files.seeds, name, files.predictions, len(predictions.labels))
            if files.seeds and predictions
            else None,
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise UserError(f"cannot read the results of {name} in {source.name}: {error!r}") from error
    return scored(model, predictions, rules)


def _json(content: bytes | None) -> dict[str, Any]:
    """Return the object in a JSON file, an empty one if there is no file.

    Raises:
        ValueError: it is too long, or has something else.
        RecursionError: it is nested too deeply.
    """
    if content is not None and len(content) > MAX_JSON_BYTES:
        raise ValueError(f"{len(content):,} bytes of JSON; the limit is {MAX_JSON_BYTES:,}")
    values = {} if content is None else json.loads(content)
    if not isinstance(values, dict):
        raise ValueError(f"expected a JSON object, found {type(values).__name__}")
    return values


def _predictions(source: Revision, path: str, labels: Labels | None, rules: Rules) -> Predictions | None:
    """Read predictions; None if they, or labels that they need, are missing here."""
    name = f"{path} of {source.name}"
    if path.endswith(".csv"):
        content = source.read(path)
        found = None if content is None else Predictions.parse(content, rules.classes, name)
        if found and labels is not None and len(found.labels) != len(labels):
            raise UserError(
                f"{name}: {len(found.labels):,} examples, but {rules.test_set} has {len(labels):,}; run `dvc repro`"
            )
        return found
    probabilities = _array(source, path)
    if probabilities is None or labels is None:
        return None
    expected = (len(labels), len(rules.classes))
    if (
        probabilities.dtype.kind != "f"
        or probabilities.shape != expected
        or not (probabilities >= 0).all()
        or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3)
    ):
        raise UserError(
            f"{name}: expected probabilities of shape {expected}, floats of at least 0 whose rows sum to 1, found "
            f"{probabilities.dtype} of shape {probabilities.shape}; run `dvc repro`"
        )
    return Predictions.of(probabilities, labels, rules.classes)
