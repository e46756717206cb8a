"""The results of a model with several seeds, from a study of the same revision."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from fashion.dvc import Lock, md5
from fashion.errors import UserError
from fashion.evaluation.recipes import CorrectBySeed, correct_by_seed
from fashion.evaluation.tables import read_csv
from fashion.review.revision import Revision
from fashion.validation import look_up

MIN_SEEDS = 3  # fewer give no usable estimate of a variance
MAX_TRIALS = 1000
MAX_RESULTS = 10_000_000  # trials times test images
LISTED = 3


@dataclass(frozen=True)
class Trials:
    """The trials of one model in one revision.

    Attributes:
        correct: (trials, n), which test images each trial classifies correctly; None if the trials cannot be used.
        problem: why they cannot be used; empty if they can.
        remedy: what to do about it.
        settings: MD5 of the study's own files, such as its params.yaml, by path.
        unknown: what the pipeline of the model depends on and the study does not: files and params, with their values.
        recorded: whether a dvc.lock records them.
    """

    correct: CorrectBySeed | None
    problem: str = ""
    remedy: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    unknown: Mapping[str, Any] = field(default_factory=dict)
    recorded: bool = True


def read(source: Revision, path: str, name: str, predictions: str, images: int) -> Trials:
    """Read the trials of a model.

    They count if every dependency and param that their stage shares with the pipeline of the model has the same value
    in dvc.lock.

    Args:
        source: the revision.
        path: of the trials: .csv with the columns variant, seed, accuracy and errors.
        name: of the model, the variant of its trials.
        predictions: path of the model's predictions.
        images: number of test images.

    Raises:
        UserError: the file is what dvc.lock records, but not such a table.
    """
    content, record = source.read(path), source.record(path)
    folder = PurePosixPath(path).parent
    if record is None:
        return Trials(None, f"no dvc.lock records {path}", f"run `dvc repro {folder}/dvc.yaml`", recorded=False)
    place, lock, output = record
    study = lock.maker(output)
    run = f"run `dvc repro {f'{place}/dvc.yaml' if place else study}`"
    if content is None:
        return Trials(None, f"{path} is missing", f"restore it with `git checkout` or `dvc pull`, or {run}")
    if path == output and lock.outputs[output] != md5(content):
        return Trials(None, f"{path} is not what dvc.lock records", run)
    stages = source.lock.upstream(predictions)
    known = {file: digest for stage in stages for file, digest in source.lock.inputs(stage).items()}
    if changed := list(_changed(lock, study, source.lock, stages, known)):
        more = f" and {len(changed) - LISTED} more" if len(changed) > LISTED else ""
        return Trials(None, f"{', '.join(changed[:LISTED])}{more} changed after the trials", run)
    inputs = lock.inputs(study)
    if not inputs.keys() & known.keys():
        problem = f"the stages of {path} and {predictions} have no dependency in common"
        return Trials(None, problem, "declare all their dependencies")
    correct, problem = parse(content, path, source.name, name, images)
    if correct is None:
        return Trials(None, problem, run)
    return Trials(
        correct,
        settings={file: inputs[file] for file in inputs.keys() - known.keys() if PurePosixPath(file).parent == folder},
        unknown={file: known[file] for file in known.keys() - inputs.keys() - source.lock.outputs.keys()}
        | {
            f"{file}: {key}": value
            for stage in stages
            for file, values in source.lock.params(stage).items()
            for key, value in values.items()
            if not any(f"{key}.".startswith(f"{studied}.") for studied in lock.params(study).get(file, {}))
        },
    )


def parse(content: bytes, path: str, revision: str, name: str, images: int) -> tuple[CorrectBySeed | None, str]:
    """Parse a table of trials.

    Args:
        content: of the file.
        path: of the file, for messages.
        revision: name of the revision, for messages.
        name: of the model, the variant of its trials.
        images: number of test images.

    Returns:
        Which test images each trial classifies correctly or, if that is unknown, None and the reason.

    Raises:
        UserError: it is not a table of trials.
    """
    try:
        table = read_csv(content, str)
        table = table[table["variant"] == name]
        if len(table) > MAX_TRIALS:
            raise ValueError(f"{len(table):,} trials of {name}; the limit is {MAX_TRIALS:,}")
        if (results := len(table) * images) > MAX_RESULTS:
            raise ValueError(f"{results:,} predictions in the trials of {name}; the limit is {MAX_RESULTS:,}")
        if "errors" not in table:
            return None, f"{path} has no `errors` column"
        if "seed" in table and table["seed"].duplicated().any():
            return None, f"{path} has two trials of {name} with the same seed; list each seed once"
        if (table["accuracy"] == "").any():
            return None, f"{path} lacks the test accuracy of trials of {name}"
        correct = correct_by_seed(list(table["errors"]), images)
        accuracies = table["accuracy"].astype(float)
    except (KeyError, OverflowError, ValueError) as error:
        raise UserError(f"{path} of {revision} is not a table of trials: {error!r}") from error
    if len(correct) < MIN_SEEDS:
        return None, f"{path} has {len(correct)} trials of {name}, at least {MIN_SEEDS} are needed"
    if not np.allclose(correct.mean(axis=1), accuracies, atol=1e-4):
        return None, f"errors and accuracies in {path} disagree"
    return correct, ""


def _changed(
    lock: Lock, study: str, pipeline: Lock, stages: list[str], known: Mapping[str, str | None]
) -> Iterator[str]:
    """Yield the dependencies and params that a study shares with the pipeline of a model and that differ."""
    yield from (path for path, digest in lock.inputs(study).items() if known.get(path, digest) != digest)
    for file, values in lock.params(study).items():
        sections = {key: value for stage in stages for key, value in pipeline.params(stage).get(file, {}).items()}
        yield from (
            f"{file}: {key}"
            for key, value in values.items()
            if any(not _agree(key, value, other, section) for other, section in sections.items())
        )


def _agree(key: str, value: Any, other: str, section: Any) -> bool:
    """Return whether two values of params.yaml agree, if one key is the other or a section around it."""
    if len(key) > len(other):
        key, value, other, section = other, section, key, value
    if key != other and not other.startswith(f"{key}."):
        return True
    return bool((value if key == other else look_up(value, other[len(key) + 1 :])) == section)
