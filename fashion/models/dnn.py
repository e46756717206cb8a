"""The dense network: every pixel is a feature, and nothing is known of where it lies."""

import keras
from keras import layers

from fashion.params import Dnn


def build(params: Dnn, image_shape: tuple[int, int], class_count: int) -> keras.Model:
    """Return the untrained network: raw pixels (uint8, (n, height, width)) in, probabilities (n, class_count) out."""
    model = keras.Sequential(name="dnn")
    model.add(keras.Input(image_shape, dtype="uint8"))
    model.add(layers.Rescaling(1 / 255))
    model.add(layers.Flatten())
    for units in params.hidden_units:
        model.add(layers.Dense(units, activation="relu"))
    model.add(layers.Dense(class_count, activation="softmax"))
    return model
