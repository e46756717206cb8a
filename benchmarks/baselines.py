"""Published networks to compare with, for the images in params.yaml, trained as their authors train them."""

import keras
import numpy as np
from keras import layers

from fashion.data.dataset import Split
from fashion.params import load_params


def tutorial() -> keras.Model:
    """Return the CNN of Keras tutorials; its training time is T_ref, the unit of all training times."""
    dataset = load_params().dataset
    return keras.Sequential(
        [
            keras.Input(dataset.image_shape),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(len(dataset.classes), activation="softmax"),
        ]
    )


def demo() -> keras.Model:
    """Return the network of https://github.com/iterative/demo-fashion-mnist (test accuracy there: 0.9071)."""
    dataset = load_params().dataset
    return keras.Sequential(
        [
            keras.Input(dataset.image_shape),
            layers.Conv2D(28, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.4),
            layers.Dense(len(dataset.classes), activation="softmax"),
        ]
    )


def train(network: keras.Model, batch_size: int, split: Split, seed: int) -> None:
    """Train for ten epochs with Adam at its default learning rate, on float32 arrays."""
    keras.utils.set_random_seed(seed)
    network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    network.fit(scaled(split.images), split.labels, batch_size=batch_size, epochs=10, verbose=0)


def scaled(images: np.ndarray) -> np.ndarray:
    """Return pixels (uint8) as float32 in [0, 1]."""
    return (images / 255).astype("float32")
