"""Answers to images: how likely each class is, and whether that means anything."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from fashion.errors import UserError
from fashion.serving.artifacts import Artifacts
from fashion.serving.familiarity import Familiarity
from fashion.serving.litert import Network


def exported(artifacts: Artifacts) -> list[str]:
    """Return the names of a project's exported models."""
    return sorted(path.split("/")[1] for path in artifacts.recorded if path.endswith("/model.tflite"))


@dataclass(frozen=True)
class Answers:
    """What a model says of images.

    Attributes:
        probabilities: of each class; rows sum to 1.
        features: what the last layer sees.
        familiar: whether the image is like those that the model was trained on; if not, the rest means little.
    """

    probabilities: Float32[np.ndarray, "n classes"]
    features: Float32[np.ndarray, "n features"]
    familiar: Bool[np.ndarray, "n"]


class Classifier:
    """An exported model of the pipeline. Not for several threads at once.

    Attributes:
        classes: their names, in the order of the probabilities.
        image_shape: height and width of the images that it takes, in pixels.
    """

    def __init__(self, artifacts: Artifacts, model: str) -> None:
        """Load the model of that name.

        Raises:
            UserError: there is no such model, or a file of it is missing or was altered.
        """
        names = exported(artifacts)
        if model not in names:
            raise UserError(f"no exported model {model}; there are: {', '.join(names) or 'none; run `dvc repro`'}")
        path = f"models/{model}/model.tflite"
        self._network = Network(artifacts.read(path), path)
        self.classes, self.image_shape = self._network.classes, self._network.image_shape
        self._familiarity = Familiarity.load(artifacts.read(f"models/{model}/familiarity.npz"))

    def __call__(self, images: UInt8[np.ndarray, "n height width"]) -> Answers:
        """Answer at least one image."""
        probabilities, features = self._network(images)
        return Answers(probabilities, features, self._familiarity.familiar(images, features))
