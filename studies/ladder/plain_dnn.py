"""The plain dense network: Flatten, Dense with ReLU, softmax."""

import keras
from keras import layers

from fashion.data.dataset import Split
from fashion.models.optimizers import OUTPUT
from fashion.params import TrainingParams

UNITS = 128


class Params(TrainingParams):
    """The network has no params of its own."""


def build(params: Params, train: Split) -> keras.Model:  # noqa: ARG001 - the signature of all networks
    """Return the untrained network: pixels (uint8, (n, height, width, channels)) in, probabilities (n, classes) out."""
    return keras.Sequential(
        [
            keras.Input(train.image_shape, dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(UNITS, activation="relu"),
            layers.Dense(train.num_classes, name=OUTPUT),
            layers.Softmax(dtype="float32"),
        ],
        name="plain_dnn",
    )
