"""The convolutional network: small patterns, and then patterns of patterns, wherever in the image they are.

Its shape is that of KellerJordan/cifar10-airbench: a first layer that is computed and not learned, then blocks of
convolutions, each with half the height and width of the one before, and of every last pattern the strongest response.
"""

import keras
import numpy as np
from keras import layers

from fashion.data.dataset import Split
from fashion.models.layers import PassOn, normalization, standardization, whitening_kernel
from fashion.models.optimizers import OUTPUT
from fashion.params import Cnn

SIZE = 3  # of every convolution, in pixels
WHITENING_IMAGES = 5000  # enough for the covariance of a few pixels


def build(params: Cnn, train: Split) -> keras.Model:
    """Return the untrained network: raw pixels (uint8, (n, height, width)) in, probabilities (n, classes) out.

    Every block halves height and width; at least one pixel must be left.
    """
    height, width = train.image_shape
    inputs = keras.Input((height, width), dtype="uint8")
    standardize = standardization(train.images)
    x = layers.Reshape((height, width, 1))(standardize(inputs))
    kernel = whitening_kernel(standardize(train.images[:WHITENING_IMAGES]).numpy(), SIZE)
    first = layers.Conv2D(kernel.shape[-1], SIZE, padding="same", activation="relu", name="first")
    x = first(x)
    if params.whitening:
        first.set_weights([kernel, np.zeros(kernel.shape[-1])])
        first.trainable = False
    for filters in params.filters:
        x = block(x, filters, params)
    x = layers.GlobalMaxPooling2D()(x)
    x = layers.Dropout(params.dropout)(x)
    x = layers.Dense(train.class_count, name=OUTPUT)(x)
    return keras.Model(inputs, layers.Softmax(dtype="float32")(x), name="cnn")


def block(x: keras.KerasTensor, filters: int, params: Cnn) -> keras.KerasTensor:
    """Return the features of a block: `params.depth` convolutions, the first of which halves height and width."""
    for layer in range(params.depth):
        before = x
        x = layers.Conv2D(filters, SIZE, padding="same", use_bias=False, kernel_initializer=PassOn())(x)
        if layer == 0:
            x = layers.MaxPooling2D()(x)
        x = layers.ReLU()(normalization(params.batch_normalization)(x))
        if params.residual and layer > 0:
            x = layers.Add()([before, x])
    return x
