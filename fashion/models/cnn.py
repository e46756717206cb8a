"""The convolutional network: the same small patterns are looked for everywhere in the image."""

import keras
from keras import layers

from fashion.errors import UserError
from fashion.params import Cnn


def build(params: Cnn, image_shape: tuple[int, int], class_count: int) -> keras.Model:
    """Return the untrained network: raw pixels (uint8, (n, height, width)) in, probabilities (n, class_count) out.

    Raises:
        UserError: the images are too small for so many convolutions and poolings.
    """
    model = keras.Sequential(name="cnn")
    model.add(keras.Input(image_shape, dtype="uint8"))
    model.add(layers.Rescaling(1 / 255))
    model.add(layers.Reshape((*image_shape, 1)))
    for filters in params.filters:
        if min(model.output_shape[1:3]) <= params.kernel_size:
            raise UserError(
                f"params.yaml: cnn.filters: images of {image_shape[0]} x {image_shape[1]} pixels are too small for "
                f"{len(params.filters)} convolutions of {params.kernel_size} x {params.kernel_size} pixels, each "
                "followed by a pooling; use fewer"
            )
        model.add(layers.Conv2D(filters, params.kernel_size, activation="relu"))
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    for units in params.dense_units:
        model.add(layers.Dense(units, activation="relu"))
    model.add(layers.Dense(class_count, activation="softmax"))
    return model
