"""Answers to pictures, by the names that people give them."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fashion.data import dataset
from fashion.errors import UserError
from fashion.serving import photos
from fashion.serving.classifier import Classifier

STANDARD_INPUT = "-"
SHOWN = 3  # classes of an answer


@dataclass(frozen=True)
class Picture:
    """Something to answer.

    Attributes:
        name: for people.
        seen: what the model sees of it.
        actual: number of its class, if it is known.
    """

    name: str
    seen: UInt8[np.ndarray, "height width"]
    actual: int | None = None


@dataclass(frozen=True)
class Prediction:
    """The answer to a picture.

    Attributes:
        picture: what was asked.
        ranking: every class and its probability, the most likely first.
        familiar: whether the picture is like those that the model was trained on; if not, the rest means little.
        actual: the class that it is, if it is known.
    """

    picture: Picture
    ranking: tuple[tuple[str, float], ...]
    familiar: bool
    actual: str | None

    def __str__(self) -> str:
        first, *others = (f"{label} {probability:.1%}" for label, probability in self.ranking[:SHOWN])
        unsure = "" if self.familiar else "not sure, it is unlike the training images: "
        known = "" if self.actual is None else f" (actual: {self.actual})"
        return f"{self.picture.name}: {unsure}{first}, then {', '.join(others)}{known}"

    def as_json(self) -> dict[str, Any]:
        """Return it for programs; `actual` is `None` where it is not known."""
        label, confidence = self.ranking[0]
        return {
            "image": self.picture.name,
            "label": label,
            "confidence": round(confidence, 6),
            "familiar": self.familiar,
            "actual": self.actual,
            "probabilities": {name: round(probability, 6) for name, probability in self.ranking},
        }


def test_pictures(root: Path, indices: Sequence[int], classifier: Classifier) -> list[Picture]:
    """Return test images of the project at `root`, for a model of it.

    Raises:
        UserError: there are no test images, none of such an index, or others than the model is for.
    """
    if not indices:
        return []
    test = dataset.load(root / "data" / "test.npz")
    if (test.image_shape, test.class_count) != (classifier.image_shape, len(classifier.classes)):
        raise UserError("the test images are not those of the model's data set; `dvc repro` brings both up to date")
    for index in indices:
        if not 0 <= index < len(test.images):
            raise UserError(f"no test image {index}; they are numbered from 0 to {len(test.images) - 1}")
    return [Picture(f"test image {index}", test.images[index], int(test.labels[index])) for index in indices]


def read_picture(name: str, shape: tuple[int, int], background: photos.Background | None) -> Picture:
    """Read a file, or standard input for `-`, and prepare what it shows for a model that sees so many pixels.

    Raises:
        UserError: as for `photos.prepare`, or there is no such file.
    """
    shown = os.fsencode(name).decode(errors="backslashreplace")  # a name of bytes that are no text
    try:
        if name == STANDARD_INPUT:
            content = sys.stdin.buffer.read(photos.MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                size = os.fstat(file.fileno()).st_size or photos.MAX_BYTES  # a pipe has none
                content = file.read(min(size, photos.MAX_BYTES) + 1)
        return Picture(shown, photos.prepare(content, shape, background))
    except IsADirectoryError as error:
        raise UserError(f"{shown}: a directory; name the pictures in it: {shown.rstrip('/')}/*") from error
    except OSError as error:
        raise UserError(f"{shown}: {error.strerror or error}") from error
    except UserError as error:
        raise UserError(f"{shown}: {error}") from error


def predict(classifier: Classifier, pictures: Sequence[Picture]) -> Iterator[Prediction]:
    """Yield the answer to each of at least one picture."""
    answers = classifier(np.stack([picture.seen for picture in pictures]))
    classes = classifier.classes
    orders = np.argsort(-answers.probabilities, axis=1, kind="stable").tolist()
    for picture, probabilities, order, familiar in zip(
        pictures, answers.probabilities.tolist(), orders, answers.familiar.tolist(), strict=True
    ):
        yield Prediction(
            picture,
            tuple((classes[label], probabilities[label]) for label in order),
            familiar,
            None if picture.actual is None else classes[picture.actual],
        )
