"""The schema of params.yaml.

It holds no default values: a value can only come from params.yaml, which DVC tracks by section, so no stage needs to
depend on this module. What a single network adds to `TrainingParams` is in its own file, fashion/models/NAME.py, and
`fashion.models.networks` checks it. `fashion.review.rules` checks the section `review`, and `fashion.tune.space` the
values in the section `tune`.
"""

import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, Strict, field_validator, model_validator

from fashion.errors import UserError
from fashion.validation import Name, StrictModel, matches, merged, raise_problems, read_yaml, validated


def _not_empty(items: tuple[str, ...]) -> tuple[str, ...]:
    if not items:
        raise ValueError("should not be empty")
    return items


def _class_names(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) < 2:
        raise ValueError("should name at least two classes")
    if len({unicodedata.normalize("NFC", name) for name in names}) < len(names):
        raise ValueError("names a class twice")
    return names


Classes = Annotated[tuple[Name, ...], Strict(False), Field(max_length=256), AfterValidator(_class_names)]
FileName = Annotated[str, matches(r"[^/\0\n]+", "a file name without a folder")]
ModelName = Annotated[str, matches("[a-z][a-z0-9_]*", "lower-case letters, digits and _, like a Python module")]
Sha256 = Annotated[str, matches("[0-9a-f]{64}", "64 hexadecimal digits in lower case")]
Source = Annotated[
    str, matches(r"https?://.+/|debian:.+|env:.+", "https://.../ (ending in /), debian:PACKAGE or env:VARIABLE")
]
Count = Annotated[int, Field(gt=0, le=1_000_000)]
Widths = Annotated[tuple[Annotated[int, Field(gt=0, le=65_536)], ...], Strict(False)]
Side = Annotated[int, Field(gt=0, le=1024)]
Pixels = Annotated[int, Field(ge=0, le=256)]
Bins = Annotated[int, Field(gt=0, le=100)]
Normalization = Literal["fused", "keras", "none"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Number = int | Annotated[float, Field(allow_inf_nan=False)]

MAX_CHOICES = 1000  # for a value to search; each is compared with all others


class DatasetParams(StrictModel):
    """The data set: its name, format, image size and classes.

    Attributes:
        name: of the data set.
        format: idx, or folder for one folder of image files per class.
        height: of the model input, in pixels.
        width: of the model input, in pixels.
        channels: of the model input: 1 (greyscale) or 3 (RGB).
        classes: names of the classes, in the order of the labels.
    """

    name: Name
    format: Literal["idx", "folder"]
    height: Side
    width: Side
    channels: Literal[1, 3]
    classes: Classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height and width of the model input, in pixels, and its number of channels."""
        return self.height, self.width, self.channels


class RawFile(StrictModel):
    """One uncompressed IDX file."""

    name: FileName
    length: Annotated[int, Field(gt=0)]
    sha256: Sha256


class RawFiles(StrictModel):
    """The four IDX files of a data set; the fetch stage writes each as KEY.idx."""

    train_images: RawFile
    train_labels: RawFile
    test_images: RawFile
    test_labels: RawFile


class FetchParams(StrictModel):
    """Where the data come from; for `dataset.format: idx`."""

    sources: Annotated[tuple[Source, ...], Strict(False), AfterValidator(_not_empty)]
    timeout: Annotated[float, Field(gt=0, le=3600)]
    retries: Annotated[int, Field(ge=0, le=10)]
    deadline: Annotated[float, Field(gt=0, le=86_400)]
    files: RawFiles


class FolderParams(StrictModel):
    """The folder of images; for `dataset.format: folder`.

    Attributes:
        folder: in the project's folder.
        unreadable: number of image files that may be unreadable.
        test_fraction: expected fraction of the images that becomes the test set; unused if the folder has a test set.
        seed: of the order of the images and the choice of the test images.
    """

    folder: FileName
    unreadable: Annotated[int, Field(ge=0)]
    test_fraction: Annotated[float, Field(gt=0, lt=1)]
    seed: Seed


class ValidationParams(StrictModel):
    """The validation split."""

    images: Count
    seed: Seed


class AuditParams(StrictModel):
    """The data audit."""

    near_duplicate_distance: Annotated[float, Field(ge=0, le=255)]


class AugmentationParams(StrictModel):
    """Random changes of the training images."""

    flip: bool
    translate: Pixels
    cutout: Pixels


class TestTimeAugmentationParams(StrictModel):
    """Changed copies of an image, over which a prediction averages."""

    mirror: bool
    translate: Pixels


class HardExampleParams(StrictModel):
    """Hard-example mining."""

    epoch_fraction: Annotated[float, Field(gt=0, le=1)]
    hard_fraction: Annotated[float, Field(ge=0, le=1)]
    refresh_every: Count


class TrainingParams(StrictModel):
    """The training of a model; the networks' `Params` add their own keys."""

    epochs: Count
    batch_size: Count
    hard_examples: HardExampleParams
    augmentation: AugmentationParams
    label_smoothing: Fraction
    class_weights: Literal["none", "balanced"]
    test_time_augmentation: TestTimeAugmentationParams
    optimizer: Literal["adam", "muon"]
    learning_rate: LearningRate
    adam_learning_rate: LearningRate
    momentum: Fraction
    warmup_fraction: Fraction
    final_learning_rate_fraction: Annotated[float, Field(ge=0, le=1)]
    precision: Literal["float32", "bfloat16", "auto"]
    seed: Seed

    def image_problems(self, image_shape: tuple[int, int, int]) -> list[str]:
        """Return a line for each key that does not fit images of that height, width and number of channels."""
        size, images = min(image_shape[:2]), f"images of {image_shape[0]} x {image_shape[1]} pixels"
        cutout = self.augmentation.cutout
        lines = [
            f"{section}.translate: {translate} pixels can move {images} out of view; use at most {size - 1}"
            for section in ("augmentation", "test_time_augmentation")
            if (translate := getattr(self, section).translate) >= size
        ]
        if cutout >= size:
            lines.append(
                f"augmentation.cutout: a {cutout}-pixel square is too large for {images}; use at most {size - 1}"
            )
        return lines


class EvaluationParams(StrictModel):
    """The metrics."""

    calibration_bins: Bins


class ExportParams(StrictModel):
    """The export of the trained models."""

    preprocessing: Literal["fashion-mnist", "resize"]
    representative_images: Count
    ood_rate: Fraction


class Range(StrictModel):
    """A range of numbers to search.

    Attributes:
        min: the smallest number.
        max: the largest number.
        log: whether to search on a logarithmic scale.
    """

    min: Number
    max: Number
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Range":
        if self.min >= self.max:
            raise ValueError("min should be less than max")
        if self.log and self.min <= 0:
            raise ValueError("with log, min should be greater than 0")
        return self


def _range_or_choices(value: Any) -> Range | list[Any]:
    """Report problems of the schema that fits the value, not of both."""
    if isinstance(value, Mapping):
        return Range.model_validate(value)
    if isinstance(value, list) and len(value) > MAX_CHOICES:
        raise ValueError(f"should have at most {MAX_CHOICES:,} choices")
    if not isinstance(value, list) or len(value) < 2 or any(one in value[:index] for index, one in enumerate(value)):
        raise ValueError("should be a list of at least two different choices, or a mapping with min and max")
    try:
        json.dumps(value)
    except TypeError as error:  # a date, for example
        raise ValueError(f"should have choices that JSON can express: {error}") from error
    return value


class Params(StrictModel):
    """The whole of params.yaml; each of `models` has the keys of `training`, overridden by its own."""

    dataset: DatasetParams
    fetch: FetchParams | FolderParams
    validation: ValidationParams
    audit: AuditParams
    training: TrainingParams
    models: Annotated[dict[ModelName, dict[str, Any]], Field(min_length=1)]
    evaluation: EvaluationParams
    export: ExportParams
    review: dict[str, Any]
    tune: dict[ModelName, dict[str, Annotated[Range | list[Any], PlainValidator(_range_or_choices)]]]

    @field_validator("fetch", mode="plain")
    @classmethod
    def _check_fetch(cls, values: Any) -> FetchParams | FolderParams:
        """Report problems of the schema that fits the keys, not of both."""
        is_folder = isinstance(values, Mapping) and "folder" in values
        return (FolderParams if is_folder else FetchParams).model_validate(values)


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        UserError: as for `read_yaml` or `check_params`.
    """
    return check_params(read_yaml(path), path.name)


def check_params(values: Any, name: str) -> Params:
    """Return the content of a params.yaml as `Params`.

    Raises:
        UserError: one line, starting with `name`, per key that is unknown, missing, of the wrong type or out of bounds.
    """
    params = validated(Params, values, name)
    dataset = params.dataset
    if isinstance(params.fetch, FolderParams) != (dataset.format == "folder"):
        expected = FolderParams if dataset.format == "folder" else FetchParams
        raise UserError(
            f"{name}: fetch: found the keys {', '.join(values['fetch'])}; dataset.format: {dataset.format} expects "
            f"{', '.join(expected.model_fields)}; `fashion dataset PATH` writes both sections"
        )
    if dataset.format == "idx" and dataset.channels != 1:
        raise UserError(f"{name}: dataset.channels: found {dataset.channels}, expected 1: IDX images are greyscale")
    shared = params.training.model_dump(mode="json")
    models = {model: merged(shared, own) for model, own in params.models.items()}
    problems = []
    for model, keys in models.items():
        try:
            check_shared_keys(keys, f"{name}: models.{model}")
        except UserError as error:
            problems.append(str(error))
    problems += [
        f"{name}: tune.{model}: there is no section models.{model}; remove this one"
        for model in params.tune
        if model not in models
    ]
    raise_problems(problems)
    return params.model_copy(update={"models": models})


def check_shared_keys(model: Mapping[str, Any], name: str) -> TrainingParams:
    """Return the keys of a model that all models have.

    Raises:
        UserError: as for `validated`.
    """
    return validated(TrainingParams, {key: model[key] for key in TrainingParams.model_fields}, name, separator=".")


def check_params_fit(image_shape: tuple[int, int, int], training_images: int, path: Path = Path("params.yaml")) -> None:
    """Check the params whose limits depend on the images, including those of later stages.

    Args:
        image_shape: height and width of the images, in pixels, and their number of channels.
        training_images: number of images in the training split.
        path: params.yaml.

    Raises:
        UserError: one line per key that does not fit, or as for `load_params`.
    """
    params = load_params(path)
    problems = [
        f"models.{name}.{line}"
        for name, model in params.models.items()
        for line in check_shared_keys(model, name).image_problems(image_shape)
    ]
    if params.export.preprocessing == "fashion-mnist" and image_shape[2] != 1:
        problems.append("export.preprocessing: fashion-mnist makes greyscale images; use resize")
    if params.export.representative_images > training_images:
        problems.append(
            f"export.representative_images: {params.export.representative_images:,} exceeds the {training_images:,} "
            "training images"
        )
    raise_problems(f"{path.name}: {problem}" for problem in problems)
