"""Layers that Keras lacks or has in a slower form, and those that the networks share."""

from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float, UInt8

from fashion.errors import UserError

Images = UInt8[np.ndarray, "n height width"]


@keras.saving.register_keras_serializable("fashion")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch normalisation of the last axis, in the single kernel that TensorFlow has for it.

    Keras 3 writes it as a chain of elementwise operations, each of which reads and writes the whole activation. The
    results agree up to rounding, and the moving variance follows the unbiased variance of the batch. Activations may
    be bfloat16; weights and statistics stay float32.
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Normalise `inputs`, (n, ..., channels), by the batch's statistics in training, else by the moving ones."""
        channels = inputs.shape[-1]
        images = inputs if len(inputs.shape) == 4 else tf.reshape(inputs, (-1, 1, 1, channels))
        statistics = {} if training else {"mean": self.moving_mean, "variance": self.moving_variance}
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            images,
            self.gamma if self.scale else tf.ones(channels),
            self.beta if self.center else tf.zeros(channels),
            epsilon=self.epsilon,
            is_training=training,
            **statistics,
        )
        if training:
            for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(self.momentum * moving + (1 - self.momentum) * value)
        return outputs if images is inputs else tf.reshape(outputs, (-1, *inputs.shape[1:]))


def normalization(kind: Literal["fused", "keras", "none"]) -> keras.layers.Layer:
    """Return a batch normalisation that ReLU can follow: with an offset and without a scale."""
    match kind:
        case "fused":
            return FusedBatchNormalization(momentum=0.6, scale=False)
        case "keras":
            return keras.layers.BatchNormalization(momentum=0.6, scale=False)
        case "none":
            return keras.layers.Activation("linear")


def standardization(images: Images) -> keras.layers.Layer:
    """Return a layer that turns pixels (uint8) into numbers that have mean 0 and standard deviation 1 over `images`.

    Raises:
        UserError: all pixels are alike.
    """
    mean, deviation = float(images.mean()), float(images.std())
    if deviation == 0:
        raise UserError(f"every pixel of the training images is {images.flat[0]}, so there is nothing to learn")
    return keras.layers.Rescaling(1 / deviation, -mean / deviation)


def whitening_kernel(
    pixels: Float[np.ndarray, "n height width"], size: int
) -> Float[np.ndarray, "size size 1 filters"]:
    """Return filters that turn patches of `size` x `size` pixels into uncorrelated features of equal variance.

    They are the eigenvectors of the patches' covariance, each divided by its standard deviation, without the weakest,
    which is mostly noise; and their negatives, so that the ReLU after them loses nothing: 2 (size * size - 1) in all.
    From David Page's cifar10-fast (https://github.com/davidcpage/cifar10-fast), as cifar10-airbench has it.
    """
    patches = np.lib.stride_tricks.sliding_window_view(pixels, (size, size), axis=(1, 2)).reshape(-1, size * size)
    variances, directions = np.linalg.eigh(patches.T @ patches / len(patches))
    filters = (directions / np.sqrt(variances + 5e-4))[:, 1:]  # in the order of variance, the smallest first
    return np.concatenate([filters, -filters], axis=1).reshape(size, size, 1, -1)


@keras.saving.register_keras_serializable("fashion")
class PassOn(keras.initializers.Initializer):
    """Starts a convolution as one that passes its inputs on, channel by channel, and has random filters beyond them.

    A network of such layers is close to one that is less deep, and learns faster at first (the Dirac initialisation of
    Zagoruyko and Komodakis, arXiv:1706.00388, as cifar10-airbench has it).
    """

    def __call__(self, shape: tuple[int, int, int, int], dtype: str | None = None) -> tf.Tensor:
        """Return a kernel of `shape`, (height, width, inputs, outputs)."""
        height, width, inputs, outputs = shape
        kernel = np.array(keras.initializers.GlorotUniform()(shape))
        same = np.arange(min(inputs, outputs))
        kernel[:, :, :, same] = 0
        kernel[height // 2, width // 2, same, same] = 1
        return tf.constant(kernel, dtype)
