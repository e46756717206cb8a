"""Exported models that classify images: probabilities, features and out-of-distribution detection."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import Bool, Float32

from fashion.data.dataset import Images
from fashion.dvc import Lock, read_output
from fashion.errors import UserError, one_line
from fashion.export.litert import LiteRTModel
from fashion.export.ood import OODDetector
from fashion.yaml_limits import CONVERSION_ERRORS, check_limits


@dataclass(frozen=True)
class Predictions:
    """The predictions of a model for n images.

    Attributes:
        probabilities: of each class; every row sums to 1.
        features: the inputs of the model's last layer.
        in_distribution: whether an image is like the training images; if it is not, its prediction is unreliable.
    """

    probabilities: Float32[np.ndarray, "n classes"]
    features: Float32[np.ndarray, "n features"]
    in_distribution: Bool[np.ndarray, "n"]


class Classifier:
    """An exported model with its out-of-distribution detector. Not thread-safe.

    Attributes:
        path: of the model, relative to the project's folder.
        classes: the class names, in the order of the probabilities.
        preprocessing: the method that makes a model input from an image file, for `preprocessing.preprocess`.
        image_shape: height, width and number of channels of the input images.
    """

    def __init__(self, root: Path, lock: Lock, model: str | None = None) -> None:
        """Load a model.

        Args:
            root: folder of the project.
            lock: its dvc.lock.
            model: name of the model; by default the last of `exported_models`.

        Raises:
            UserError: there is no such model, or one of its files is missing or was altered.
        """
        names = exported_models(root, lock)
        model = model or names[-1]
        if model not in names:
            raise UserError(
                f"no exported model {model}; available: {', '.join(names)}; `make` exports the models of params.yaml"
            )
        self.path = f"models/{model}/model.tflite"
        self._model = LiteRTModel(read_output(root, lock, self.path), self.path)
        self._detector = OODDetector.from_bytes(read_output(root, lock, f"models/{model}/ood.npz"))
        self.classes, self.preprocessing = self._model.classes, self._model.preprocessing
        self.image_shape = self._model.image_shape

    def __call__(self, images: Images) -> Predictions:
        """Return the predictions for at least one image."""
        probabilities, features = self._model(images)
        return Predictions(probabilities, features, self._detector.in_distribution(images, features))


def exported_models(root: Path, lock: Lock) -> list[str]:
    """Return the names of the exported models, at least one, in the order of params.yaml.

    Raises:
        UserError: there are none, or params.yaml cannot be read.
    """
    path = root / "params.yaml"
    try:
        check_limits(content := path.read_bytes(), path.as_posix())
        models = yaml.load(content, yaml.CSafeLoader)["models"]  # load_params would import pydantic, slowly
        names = [name for name in models if f"models/{name}/model.tflite" in lock.outputs]
    except (OSError, yaml.YAMLError, *CONVERSION_ERRORS) as error:
        raise UserError(f"cannot read the section `models` of {path}: {one_line(error)}") from error
    if not names:
        raise UserError("no exported models; run `dvc repro`")
    return names
