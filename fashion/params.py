"""The schema of params.yaml, and the only reader of it.

It holds no default values: a value can only come from params.yaml, which DVC tracks by section. That is why no stage
needs to depend on this module.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fashion.errors import UserError


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) < 2:
        raise ValueError("should name at least two classes")
    if len({unicodedata.normalize("NFC", name) for name in names}) < len(names):
        raise ValueError("names a class twice")
    return names


def _form(pattern: str, description: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"should be {description}")
        return text

    return AfterValidator(check)


def _not_empty(items: tuple[str, ...]) -> tuple[str, ...]:
    if not items:
        raise ValueError("should not be empty")
    return items


def _printable(name: str) -> str:
    if name != name.strip() or any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in name):
        raise ValueError("should be one line of printable text, without leading or trailing spaces")
    if "</script" in name.lower():
        raise ValueError("should not contain </script, which would end the page that `dvc plots` writes")
    return name


Name = Annotated[str, Field(min_length=1), AfterValidator(_printable)]
Classes = Annotated[tuple[Name, ...], Strict(False), Field(max_length=256), AfterValidator(_unique)]
FileName = Annotated[str, _form(r"[^/\0\n]+", "a file name without a folder")]
ModelName = Annotated[str, _form("[A-Za-z0-9_-]+", "letters, digits, _ and -")]
Sha256 = Annotated[str, _form("[0-9a-f]{64}", "64 hexadecimal digits in lower case")]
Source = Annotated[
    str, _form(r"https?://.+/|debian:.+|env:.+", "https://.../ (ending in /), debian:PACKAGE or env:VARIABLE")
]
Count = Annotated[int, Field(gt=0, le=1_000_000)]
Width = Annotated[int, Field(gt=0, le=65_536)]
Widths = Annotated[tuple[Width, ...], Strict(False)]
Bins = Annotated[int, Field(gt=0, le=1000)]
Normalization = Literal["fused", "keras", "none"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(ge=0, lt=1)]
LearningRate = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A part of params.yaml: every key is required, no other is allowed, and no value is converted."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


S = TypeVar("S", bound=Section)


class Dataset(Section):
    """What the images are of."""

    name: Name
    classes: Classes


class RawFile(Section):
    """One IDX file of the data set, as it is before compression."""

    name: FileName
    length: Annotated[int, Field(gt=0)]
    sha256: Sha256


class RawFiles(Section):
    """The four IDX files of a data set; the fetch stage writes each as KEY.idx."""

    train_images: RawFile
    train_labels: RawFile
    test_images: RawFile
    test_labels: RawFile


class Fetch(Section):
    """Where the data come from."""

    sources: Annotated[tuple[Source, ...], Strict(False), AfterValidator(_not_empty)]
    timeout: Annotated[float, Field(gt=0, le=3600)]
    retries: Annotated[int, Field(ge=0, le=10)]
    files: RawFiles


class Validation(Section):
    """The images set aside from the training images to choose by."""

    images: Count
    seed: Seed


class Audit(Section):
    """What the data audit looks for."""

    near_duplicate_distance: Annotated[float, Field(ge=0, le=255)]


class Augmentation(Section):
    """How the training images are changed at random."""

    flip: bool
    shift: Annotated[int, Field(ge=0, le=256)]
    cutout: Annotated[int, Field(ge=0, le=256)]


class Selection(Section):
    """Which of the training images an epoch sees."""

    share: Annotated[float, Field(gt=0, le=1)]
    hardest: Annotated[float, Field(ge=0, le=1)]
    every: Count


class Training(Section):
    """What every model's training is told."""

    selection: Selection
    augmentation: Augmentation
    label_smoothing: Share
    epochs: Count
    batch_size: Count
    optimizer: Literal["adam", "muon"]
    learning_rate: LearningRate
    adam_learning_rate: LearningRate
    momentum: Share
    warmup: Share
    averaging: Share
    precision: Literal["float32", "bfloat16", "auto"]
    seed: Seed


class Dnn(Training):
    """The dense network."""

    hidden_units: Widths
    dropout: Share
    batch_normalization: Normalization


class Cnn(Training):
    """The convolutional network."""

    whitening: bool
    filters: Widths
    depth: Annotated[int, Field(gt=0, le=100)]
    residual: bool
    dropout: Share
    batch_normalization: Normalization


class Evaluation(Section):
    """How the predictions are judged."""

    calibration_bins: Bins


class Export(Section):
    """How the trained models are exported."""

    int8_images: Count
    unfamiliar: Share


class ReviewedModel(Section):
    """Where a model's results are, relative to the project, and what is asked of it.

    Attributes:
        predictions: probabilities of each class for each test case, (n, classes) (.npy).
        metrics: a JSON object; read where the predictions are not at hand.
        history: a row per epoch with the columns epoch and val_accuracy (.csv); None if there is none.
        seeds: pattern of the metrics files of a study that trained it with several seeds; None if there is none.
        floor: accuracy below which the gate fails.
    """

    predictions: Name
    metrics: Name
    history: Name | None
    seeds: Name | None
    floor: Annotated[float, Field(ge=0, le=1)]


class Review(Section):
    """What a review of a change compares, and when its gate fails.

    Attributes:
        main: the branch that changes are compared with.
        truth: labels (n,) of the test cases and, if there are pictures, images (n, height, width) (.npz).
        classes: their names, or in the file the key that has them.
        calibration_bins: equal intervals of confidence, for the calibration error.
        significance: level of McNemar's test, after Holm's correction for the number of models.
    """

    main: Name
    truth: Name
    classes: Classes
    calibration_bins: Bins
    significance: Annotated[float, Field(gt=0, lt=1)]
    models: dict[ModelName, ReviewedModel]

    @property
    def files(self) -> list[str]:
        """The artifacts that a review needs of each revision."""
        return [self.truth, *(model.predictions for model in self.models.values())]


class Params(Section):
    """The whole of params.yaml."""

    dataset: Dataset
    fetch: Fetch
    validation: Validation
    audit: Audit
    dnn: Dnn
    cnn: Cnn
    evaluation: Evaluation
    export: Export
    review: Review


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        UserError: as for `read_yaml`, or one line per key that is unknown, missing, of the wrong type or out of bounds.
    """
    values = read_yaml(path)
    reported = frozenset(
        ("review", key) for key, other in _references(values).items() if _look_up(values, other) != other
    )
    return _checked(Params, _resolved(values), str(path), reported=reported)


def misfits(settings: Training, image_shape: tuple[int, int]) -> list[str]:
    """Return a line for each of a model's params that does not fit images of that height and width, in pixels."""
    height, width = image_shape
    size = min(height, width)
    images = f"images of {height} x {width} pixels"
    shift, cutout = settings.augmentation.shift, settings.augmentation.cutout
    lines = []
    if shift >= size:
        lines.append(f"augmentation.shift: {shift} pixels can move {images} out of view; use at most {size - 1}")
    if cutout >= size:
        lines.append(f"augmentation.cutout: a {cutout}-pixel square is too large for {images}; use at most {size - 1}")
    if isinstance(settings, Cnn):
        blocks = size.bit_length() - 1
        if len(settings.filters) > blocks:
            lines.append(
                f"filters: {images} are too small for {len(settings.filters)} blocks, each of which halves them; "
                f"use at most {blocks}"
            )
        if settings.whitening and size < 3:
            lines.append(f"whitening: {images} are smaller than the 3 x 3 patches it needs; set it to false")
    return lines


def check_params_fit(image_shape: tuple[int, int], training_images: int, path: Path = Path("params.yaml")) -> None:
    """Check the params whose limits depend on the images, also those of later stages.

    Args:
        image_shape: height and width of the images, in pixels.
        training_images: how many there are, without those set aside for validation.
        path: params.yaml.

    Raises:
        UserError: one line per key that does not fit, or as for `load_params`.
    """
    params = load_params(path)
    models = {"dnn": params.dnn, "cnn": params.cnn}
    problems = [f"{name}.{line}" for name, model in models.items() for line in misfits(model, image_shape)]
    if params.export.int8_images > training_images:
        problems.append(
            f"export.int8_images: {params.export.int8_images:,} exceeds the {training_images:,} training images"
        )
    if problems:
        raise UserError("\n".join(f"params.yaml: {problem}" for problem in problems))


def parse_review(text: str, name: str) -> Review | None:
    """Check the section `review` of a params.yaml, whatever else that holds; None if it has no such section.

    Args:
        text: the whole of the file.
        name: of the file, for messages.

    Raises:
        UserError: as for `load_params`.
    """
    values = _resolved(parse_yaml(text, name))
    if not isinstance(values, dict) or "review" not in values:
        return None
    return _checked(Review, values["review"], name, "review")


def _resolved(values: Any) -> Any:
    """Return params with the keys that the section `review` names, such as `dataset.classes`, replaced by their values.

    YAML's own way to say so, an alias, is one that `dvc exp run --set-param` cannot write back.
    """
    named = _references(values)
    if not named:
        return values
    return {**values, "review": {**values["review"], **{key: _look_up(values, path) for key, path in named.items()}}}


def _references(values: Any) -> dict[str, str]:
    """Return the keys of the section `review` that name another key, with its dotted path."""
    review = values.get("review") if isinstance(values, dict) else None
    if not isinstance(review, dict):
        return {}
    return {key: review[key] for key in ("classes", "calibration_bins") if isinstance(review.get(key), str)}


def _look_up(values: Any, path: str) -> Any:
    """Return the value at a dotted path, or the path if there is none."""
    for key in path.split("."):
        if not isinstance(values, dict) or key not in values:
            return path
        values = values[key]
    return values


def _checked(
    section: type[S], values: Any, name: str, *key: str, reported: frozenset[tuple[str, str]] = frozenset()
) -> S:
    """Return the checked section; `reported` are keys whose problems are those of another key."""
    try:
        return section.model_validate(values)
    except ValidationError as error:
        lines = (
            _explain({**details, "loc": (*key, *details["loc"])})
            for details in error.errors()
            if (*key, *details["loc"])[:2] not in reported
        )
        raise UserError("\n".join(f"{name}: {line}" for line in lines)) from error


def read_yaml(path: Path) -> Any:
    """Read a file of params.

    Raises:
        UserError: the file cannot be read, or as for `parse_yaml`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> Any:
    """Return what the text of a file of params says.

    Raises:
        UserError: it is not YAML, or one line per value that is read differently by YAML 1.1 (PyYAML) and YAML 1.2
            (DVC).
    """
    try:
        values = yaml.safe_load(text)
        values_of_dvc = YAML(typ="safe").load(text)
    except (yaml.YAMLError, YAMLError, ValueError) as error:
        raise UserError(f"{name} is not YAML: {' '.join(str(error).split())}") from error
    if problems := [_advise(*difference) for difference in _differences(values, values_of_dvc)]:
        raise UserError("\n".join(f"{name}: {problem}" for problem in problems))
    return values


def change(section: S, changes: Mapping[str, Any]) -> S:
    """Return `section` with other values for some of its keys; a nested section takes a mapping of such changes.

    Raises:
        UserError: one line per key that is unknown, of the wrong type or out of bounds.
    """
    try:
        return type(section).model_validate(_merged(section.model_dump(), changes))
    except ValidationError as error:
        raise UserError("\n".join(_explain(details) for details in error.errors())) from error


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    nested = {key: _merged(values[key], new) for key, new in changes.items() if isinstance(values.get(key), dict)}
    return {**values, **changes, **nested}


def _differences(ours: Any, dvcs: Any, key: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    """Yield the key and both readings of each scalar that the two versions of YAML read differently."""
    if isinstance(ours, dict) and isinstance(dvcs, dict):
        for name in ours | dvcs:
            if name in ours and name in dvcs:
                yield from _differences(ours[name], dvcs[name], (*key, name))
            elif name in ours:  # a key, and not a value, that is read differently: `on:`
                yield (*key, name), name, "another key"
    elif isinstance(ours, list) and isinstance(dvcs, list):
        for index, (our, dvc) in enumerate(zip(ours, dvcs, strict=True)):
            yield from _differences(our, dvc, (*key, index))
    elif repr(ours) != repr(dvcs):
        yield key, ours, dvcs


def _advise(key: tuple[Any, ...], ours: Any, dvcs: Any) -> str:
    return (
        f"{_dotted(key)}: PyYAML reads {ours!r} and DVC reads {dvcs!r}; write it so that both agree "
        "(a number as 0.001 or 1.0e-3, a text in quotes, true or false)"
    )


def _explain(details: ErrorDetails) -> str:
    match details["type"]:
        case "missing":
            problem = "missing"
        case "extra_forbidden":
            problem = "unknown key"
        case _:
            problem = f"{re.sub('^(Value error, |Input )', '', details['msg'])}, found {details['input']!r}"
    return f"{_dotted(details['loc'])}: {problem}"


def _dotted(key: tuple[Any, ...]) -> str:
    return ".".join(map(str, key)) or "(top level)"
