"""The convolutional network, in the style of KellerJordan/cifar10-airbench.

A first convolution, then blocks of convolutions, each of which halves height and width, then global max pooling.
"""

from typing import Annotated

import keras
import numpy as np
from keras import layers
from pydantic import Field

from fashion.data.dataset import Split
from fashion.models.layers import DiracInitializer, FastConv2D, normalization, standardization, whitening_kernel
from fashion.models.optimizers import OUTPUT
from fashion.params import Fraction, Normalization, TrainingParams, Widths

KERNEL_SIZE = 3  # of every convolution, in pixels
WHITENING_PIXELS = 4_000_000  # enough to estimate the covariance of 3 x 3 patches


class Params(TrainingParams):
    """The network's own params, in addition to the shared ones."""

    whitening: bool
    filters: Widths
    convs_per_block: Annotated[int, Field(gt=0, le=100)]
    batch_normalization: Normalization
    dropout: Fraction

    def image_problems(self, image_shape: tuple[int, int, int]) -> list[str]:
        """Return a line for each key that does not fit images of that height, width and number of channels."""
        lines = super().image_problems(image_shape)
        size, images = min(image_shape[:2]), f"images of {image_shape[0]} x {image_shape[1]} pixels"
        if len(self.filters) > (blocks := size.bit_length() - 1):
            lines.append(
                f"filters: {images} are too small for {len(self.filters)} blocks, each of which halves them; "
                f"use at most {blocks}"
            )
        if self.whitening and size < KERNEL_SIZE:
            lines.append(
                f"whitening: {images} are smaller than the {KERNEL_SIZE} x {KERNEL_SIZE} patches it needs; "
                "set it to false"
            )
        return lines


def build(params: Params, train: Split) -> keras.Model:
    """Return the untrained network: pixels (uint8, (n, height, width, channels)) in, probabilities (n, classes) out."""
    inputs = keras.Input(train.image_shape, dtype="uint8")
    standardize = standardization(train.images)
    height, width, channels = train.image_shape
    filters = 2 * (KERNEL_SIZE**2 * channels - 1)  # as many as `whitening_kernel` has
    first = layers.Conv2D(filters, KERNEL_SIZE, padding="same", activation="relu", name="first")
    x = first(standardize(inputs))
    if params.whitening:
        sample = train.sample(max(1, WHITENING_PIXELS // (height * width)))
        first.set_weights([whitening_kernel(standardize(sample).numpy(), KERNEL_SIZE), np.zeros(filters)])
        first.trainable = False
    for filters in params.filters:
        x = block(x, filters, params)
    x = layers.GlobalMaxPooling2D()(x)
    x = layers.Dropout(params.dropout)(x)
    x = layers.Dense(train.num_classes, name=OUTPUT)(x)
    return keras.Model(inputs, layers.Softmax(dtype="float32")(x), name="cnn")


def block(x: keras.KerasTensor, filters: int, params: Params) -> keras.KerasTensor:
    """Return the output of a block: `convs_per_block` convolutions, with max pooling after the first."""
    for layer in range(params.convs_per_block):
        x = FastConv2D(filters, KERNEL_SIZE, padding="same", use_bias=False, kernel_initializer=DiracInitializer())(x)
        if layer == 0:
            x = layers.MaxPooling2D()(x)
        x = layers.ReLU()(normalization(params.batch_normalization)(x))
    return x
