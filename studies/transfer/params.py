"""The schema of params.yaml."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, Strict

from fashion.params import Count, Fraction, LearningRate, Side, TrainingParams
from fashion.study import Seeds
from fashion.validation import Name, StrictModel

Images = Count | Literal["all"]
Strengths = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Strict(False), Field(min_length=1)]


class Probe(StrictModel):
    """The linear probe."""

    C: Strengths


class Fit(StrictModel):
    """Training of a classifier and of layers below it."""

    epochs: Count
    min_steps: Count
    batch_size: Count
    learning_rate: LearningRate
    warmup_fraction: Fraction
    weight_decay: Fraction
    label_smoothing: Fraction


class FitRandom(Fit):
    """Training of the whole network."""

    image_size: Side


class Variant(StrictModel):
    """A method with a number of images.

    Attributes:
        method: see methods.py.
        images: number of training images per class.
        seeds: those of the study, if not given.
    """

    method: Literal["probe", "finetuned", "random", "cnn", "dnn"]
    images: Images
    seeds: Seeds | None = None


class Study(StrictModel):
    """The whole of params.yaml.

    Attributes:
        seeds: of each variant; at least two, for standard deviations.
        backbone: a key of `BACKBONES` in backbones.py.
        image_size: height and width that the images are resized to, in pixels.
        probe: settings of this method, like the following.
        finetuned: see methods.py.
        random: see methods.py.
        own: what changes in the sections models.cnn and models.dnn of the project's params.yaml.
        variants: by name.
    """

    seeds: Annotated[Seeds, Field(min_length=2)]
    backbone: str
    image_size: Side
    probe: Probe
    finetuned: Fit
    random: FitRandom
    own: dict[str, Any]
    variants: dict[Name, Variant]


@dataclass(frozen=True)
class Settings:
    """The settings of a trial.

    Attributes:
        images: number of training images per class.
        training: settings of the method or, for one of the project's networks, its params.
    """

    images: Images
    training: Probe | Fit | TrainingParams
