"""The plain convolutional network, that of the Keras tutorials: Conv2D with ReLU, MaxPooling, Dense layers, softmax."""

import keras
from keras import layers

from fashion.data.dataset import Split
from fashion.models.optimizers import OUTPUT
from fashion.params import TrainingParams


class Params(TrainingParams):
    """The network has no params of its own."""


def build(params: Params, train: Split) -> keras.Model:  # noqa: ARG001 - the signature of all networks
    """Return the untrained network: pixels (uint8, (n, height, width, channels)) in, probabilities (n, classes) out."""
    return keras.Sequential(
        [
            keras.Input(train.image_shape, dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(train.num_classes, name=OUTPUT),
            layers.Softmax(dtype="float32"),
        ],
        name="plain_cnn",
    )
