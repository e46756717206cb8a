"""Predictions for test images and image files, by name: the work of `fashion predict`."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fashion.data import dataset, images
from fashion.dvc import Lock
from fashion.errors import UserError
from fashion.serving import preprocessing
from fashion.serving.classifier import Classifier

STANDARD_INPUT = "-"
TOP_K = 3  # classes in the text of a prediction


@dataclass(frozen=True)
class InputImage:
    """An image to classify.

    Attributes:
        name: the name to report it by.
        pixels: the model input.
        actual: the index of its class, if known.
    """

    name: str
    pixels: dataset.Image
    actual: int | None = None


@dataclass(frozen=True)
class Prediction:
    """The prediction for an image.

    Attributes:
        image: the image.
        ranking: all classes with their probabilities, highest first.
        in_distribution: whether the image is like the training images; if it is not, the prediction is unreliable.
        actual: its class, if known.
    """

    image: InputImage
    ranking: tuple[tuple[str, float], ...]
    in_distribution: bool
    actual: str | None

    def __str__(self) -> str:
        first, *others = (f"{label} {probability:.1%}" for label, probability in self.ranking[:TOP_K])
        warning = "" if self.in_distribution else "out of distribution: "
        actual = "" if self.actual is None else f" (actual: {self.actual})"
        return f"{self.image.name}: {warning}{first}, then {', '.join(others)}{actual}"

    def as_json(self) -> dict[str, Any]:
        """Return the prediction as a JSON object; `actual` is None if unknown."""
        label, confidence = self.ranking[0]
        return {
            "image": self.image.name,
            "label": label,
            "confidence": round(confidence, 6),
            "in_distribution": self.in_distribution,
            "actual": self.actual,
            "probabilities": {name: round(probability, 6) for name, probability in self.ranking},
        }


def load_test_images(root: Path, lock: Lock, indices: Sequence[int], classifier: Classifier) -> list[InputImage]:
    """Load test images of the project in the folder `root`, whose dvc.lock is `lock`.

    Raises:
        UserError: an index is out of range, or the test set is missing or does not fit the model.
    """
    if not indices:
        return []
    lock.check_made_from(classifier.path, "data/train")
    test = dataset.load(root / "data" / "test")
    if (test.image_shape, test.num_classes) != (classifier.image_shape, len(classifier.classes)):
        raise UserError("data/test and the model are from different data sets; run `dvc repro`")
    for index in indices:
        if not 0 <= index < len(test.images):
            raise UserError(f"no test image {index}; the indices are 0 to {len(test.images) - 1}")
    return [InputImage(f"test image {index}", test.images[index], int(test.labels[index])) for index in indices]


def load_image(name: str, classifier: Classifier, background: preprocessing.Background | None) -> InputImage:
    """Load and preprocess an image file; `-` is standard input.

    Args:
        name: path of the file.
        classifier: the model to preprocess it for.
        background: as for `preprocessing.preprocess`.

    Raises:
        UserError: as for `preprocessing.preprocess`, or the file cannot be read.
    """
    if not name:
        raise UserError("an empty file name; pass an image file")
    shown = images.printable(name)
    try:
        if name == STANDARD_INPUT:
            if sys.stdin is None:
                raise UserError("standard input is closed; pipe an image into it, or pass a file")
            content = sys.stdin.buffer.read(images.MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                size = os.fstat(file.fileno()).st_size or images.MAX_BYTES  # 0 for a pipe
                content = file.read(min(size, images.MAX_BYTES) + 1)
        pixels = preprocessing.preprocess(content, classifier.image_shape, classifier.preprocessing, background)
        return InputImage(shown, pixels)
    except IsADirectoryError as error:
        raise UserError(f"{shown}: is a directory; pass its files: {shown.rstrip('/')}/*") from error
    except OSError as error:
        raise UserError(f"{shown}: {error.strerror or error}") from error
    except UserError as error:
        raise UserError(f"{shown}: {error}") from error


def predict(classifier: Classifier, images: Sequence[InputImage]) -> list[Prediction]:
    """Return the prediction for each of at least one image."""
    predictions = classifier(np.stack([image.pixels for image in images]))
    classes = classifier.classes
    rankings = np.argsort(-predictions.probabilities, axis=1, kind="stable").tolist()
    return [
        Prediction(
            image,
            tuple((classes[label], probabilities[label]) for label in ranking),
            in_distribution,
            None if image.actual is None else classes[image.actual],
        )
        for image, probabilities, ranking, in_distribution in zip(
            images, predictions.probabilities.tolist(), rankings, predictions.in_distribution.tolist(), strict=True
        )
    ]
