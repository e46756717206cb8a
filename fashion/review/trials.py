"""The trials of a model: what its recipe gives with several seeds, from a study of the same revision."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from fashion.dvc import Lock, md5
from fashion.errors import UserError
from fashion.evaluation.recipes import MIN_SEEDS, CorrectBySeed
from fashion.review.lock_diff import flat
from fashion.review.revision import Revision

LISTED = 3


@dataclass(frozen=True)
class Trials:
    """The trials of one model in one revision.

    Attributes:
        accuracies: test accuracy of each; empty if there are none.
        correct: (trials, n), whether each classifies each test image correctly; None if that is unknown.
        problem: why they do not measure the recipe of the revision; empty if they do.
        command: measures the recipe.
    """

    accuracies: tuple[float, ...]
    correct: CorrectBySeed | None
    problem: str
    command: str

    @property
    def measured(self) -> CorrectBySeed | None:
        """`correct` if the trials measure the recipe of the revision, else None."""
        return None if self.problem else self.correct

    def at(self, indices: np.ndarray) -> "Trials":
        """Return the trials restricted to some of the test images."""
        if self.correct is None:
            return self
        correct = self.correct[:, indices]
        return replace(self, correct=correct, accuracies=tuple(correct.mean(axis=1).tolist()))


def read(source: Revision, path: str, name: str, predictions: str, images: int | None) -> Trials:
    """Read the trials of a model.

    They measure the recipe of the revision if every dependency and param that their stage shares with the pipeline of
    the model has the same value in dvc.lock.

    Args:
        source: the revision.
        path: of the trials: .csv with the columns variant, seed, accuracy and errors.
        name: of the model, the variant of its trials.
        predictions: path of the model's predictions.
        images: number of test images; None if unknown.

    Raises:
        UserError: the file is not such a table.
    """
    content = source.read(path)
    place, lock, output = source.record(path)
    stage = lock.maker(output) if lock else ""
    command = f"dvc repro {stage if stage and not place else f'{place or PurePosixPath(path).parent}/dvc.yaml'}"
    if content is None:
        return Trials((), None, f"there is no {path}", command)
    try:
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
        table = table[table["variant"] == name]
        accuracies = tuple(table["accuracy"].astype(float))
        correct = _correct(table, images) if "errors" in table and images else None
    except (ValueError, KeyError, IndexError) as error:
        raise UserError(f"{path} of {source.name} is not a table of trials: {error!r}") from error
    problem = ""
    if len(accuracies) < MIN_SEEDS:
        problem = f"{path} has {len(accuracies)} trials of it, expected at least {MIN_SEEDS}"
    elif correct is None:
        problem = f"{path} does not say which test images each trial misclassifies"
    elif lock is None or source.recorded(path) != md5(content):
        problem = f"{path} is not what dvc.lock records"
    elif changed := list(_changed(lock, stage, source.lock, predictions)):
        more = f" and {len(changed) - LISTED} more" if len(changed) > LISTED else ""
        problem = f"changed since the trials: {', '.join(changed[:LISTED])}{more}"
    return Trials(accuracies, correct, problem, command)


def _correct(table: pd.DataFrame, images: int) -> CorrectBySeed | None:
    """Return which images each trial classifies correctly; None if the errors do not fit the accuracies."""
    correct = np.ones((len(table), images), bool)
    for row, errors in zip(correct, table["errors"], strict=True):
        row[np.array(errors.split(), int)] = False
    return correct if np.allclose(correct.mean(axis=1), table["accuracy"].astype(float), atol=1e-6) else None


def _changed(lock: Lock, study: str, pipeline: Lock, predictions: str) -> Iterator[str]:
    """Yield the dependencies and params that a study shares with the pipeline of a model and that differ."""
    stages = pipeline.upstream(predictions)
    known = {path: digest for stage in stages for path, digest in pipeline.inputs(stage).items()}
    yield from (path for path, digest in lock.inputs(study).items() if known.get(path, digest) != digest)
    for file, values in lock.params(study).items():
        sections = {key: value for stage in stages for key, value in pipeline.params(stage).get(file, {}).items()}
        yield from (f"{file}: {key}" for key, value in values.items() if not _agree(key, value, sections))


def _agree(key: str, value: Any, sections: Mapping[str, Any]) -> bool:
    """Return whether a section of a study has the values of the pipeline, as far as that reads the same keys."""
    if key in sections:
        return bool(sections[key] == value)
    leaves = flat(sections)
    return all(leaves.get(leaf, given) == given for leaf, given in flat(value, key).items())
