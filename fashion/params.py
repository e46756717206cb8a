"""The schema of params.yaml, and the only reader of it.

It holds no default values: a value can only come from params.yaml, which DVC tracks by section. That is why no stage
needs to depend on this module.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, Strict, StringConstraints, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fashion.errors import UserError

Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Source = Annotated[str, StringConstraints(pattern="^(https?://.+/|debian:.+|env:.+)$")]
Units = Annotated[tuple[Annotated[int, Field(gt=0)], ...], Strict(False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """A part of params.yaml: every key is required, no other is allowed, and no value is converted."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Dataset(Section):
    """What the images are of."""

    name: str
    classes: Annotated[tuple[str, ...], Strict(False), Field(min_length=2, max_length=256)]


class RawFile(Section):
    """One IDX file of the data set, as it is before compression."""

    name: str
    length: Annotated[int, Field(gt=0)]
    sha256: Sha256


class RawFiles(Section):
    """The four IDX files of a data set."""

    train_images: RawFile
    train_labels: RawFile
    test_images: RawFile
    test_labels: RawFile


class Fetch(Section):
    """Where the data come from."""

    sources: Annotated[tuple[Source, ...], Strict(False), Field(min_length=1)]
    timeout: Annotated[float, Field(gt=0)]
    retries: Annotated[int, Field(ge=0, le=10)]
    files: RawFiles


class Validation(Section):
    """The images set aside from the training images to choose by."""

    images: Annotated[int, Field(gt=0)]
    seed: Seed


class Audit(Section):
    """What the data audit looks for."""

    near_duplicate_distance: Annotated[float, Field(ge=0, le=255)]


class Training(Section):
    """What every model's training is told."""

    epochs: Annotated[int, Field(gt=0)]
    batch_size: Annotated[int, Field(gt=0)]
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    seed: Seed


class Dnn(Training):
    """The dense network."""

    hidden_units: Units


class Cnn(Training):
    """The convolutional network."""

    filters: Annotated[Units, Field(min_length=1)]
    kernel_size: Annotated[int, Field(gt=0)]
    dense_units: Units


class Evaluation(Section):
    """How the predictions are judged."""

    calibration_bins: Annotated[int, Field(gt=0)]


class Params(Section):
    """The whole of params.yaml."""

    dataset: Dataset
    fetch: Fetch
    validation: Validation
    audit: Audit
    dnn: Dnn
    cnn: Cnn
    evaluation: Evaluation


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        UserError: the file cannot be read, or one line per key that is unknown, missing, of the wrong type, out of
            bounds, or read differently by YAML 1.1 (PyYAML) and YAML 1.2 (DVC).
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.safe_load(text)
        values_of_dvc = YAML(typ="safe").load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    except (yaml.YAMLError, YAMLError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    problems = list(_disagreements(values, values_of_dvc))
    if not problems:
        try:
            return Params.model_validate(values)
        except ValidationError as error:
            problems = [_explain(details) for details in error.errors()]
    raise UserError("\n".join(f"{path}: {problem}" for problem in problems))


def _disagreements(ours: Any, dvcs: Any, key: str = "") -> Iterator[str]:
    """Yield a line for each scalar that the two versions of YAML read differently, `1e-3` and `on` among them."""
    if isinstance(ours, dict) and isinstance(dvcs, dict) and ours.keys() == dvcs.keys():
        for name in ours:
            yield from _disagreements(ours[name], dvcs[name], f"{key}.{name}" if key else str(name))
    elif isinstance(ours, list) and isinstance(dvcs, list) and len(ours) == len(dvcs):
        for index, (our, dvc) in enumerate(zip(ours, dvcs, strict=True)):
            yield from _disagreements(our, dvc, f"{key}.{index}")
    elif type(ours) is not type(dvcs) or ours != dvcs:
        yield (
            f"{key}: PyYAML reads {ours!r} and DVC reads {dvcs!r}; write it so that both agree "
            "(a number as 0.001 or 1.0e-3, a text in quotes, true or false)"
        )


def _explain(details: Any) -> str:
    key = ".".join(str(part) for part in details["loc"]) or "(top level)"
    match details["type"]:
        case "missing":
            return f"{key}: missing"
        case "extra_forbidden":
            return f"{key}: unknown key"
        case _:
            return f"{key}: {details['msg'].replace('Input should', 'should')}, found {details['input']!r}"
