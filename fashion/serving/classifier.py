"""Answers to images: how likely each class is, and whether that means anything."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from fashion.errors import UserError
from fashion.serving.artifacts import Artifacts
from fashion.serving.familiarity import Familiarity
from fashion.serving.litert import Network


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

    def __init__(self, root: Path, model: str) -> None:
        """Load the model of that name from the project in the folder `root`.

        Raises:
            UserError: there is no such model, or a file of it is missing or was altered.
        """
        artifacts = Artifacts(root)
        path = f"models/{model}/model.tflite"
        if path not in artifacts.recorded:
            names = sorted(path.split("/")[1] for path in artifacts.recorded if path.endswith("/model.tflite"))
            raise UserError(f"no exported model {model}; there are: {', '.join(names) or 'none; run `dvc repro`'}")
        self._network = Network(artifacts.read(path), path)
        self.classes, self.image_shape = self._network.classes, self._network.image_shape
        self._familiarity = Familiarity.load(artifacts.read(f"models/{model}/familiarity.npz"))

    def __call__(self, images: UInt8[np.ndarray, "n height width"]) -> Answers:
        """Answer at least one image."""
        probabilities, features = self._network(images)
        return Answers(probabilities, features, self._familiarity.familiar(images, features))
