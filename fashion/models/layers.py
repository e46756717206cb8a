"""Layers that the networks share, some of them faster than Keras' own."""

from collections.abc import Callable, Sequence
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float

from fashion.data.dataset import Images, histogram, mean_and_deviation
from fashion.errors import UserError
from fashion.models import processor

NARROW = 8  # pixels; bfloat16 images up to this width are interleaved
INTERLEAVED = 32  # images at a time; FastConv2D explains the number


@keras.saving.register_keras_serializable("fashion")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation of the last axis in TensorFlow's fused kernel.

    Keras 3 runs a chain of elementwise operations, each of which reads and writes the whole activation. The results
    agree up to rounding, and the moving variance is that of the unbiased batch variance. Activations may be bfloat16;
    weights and statistics stay float32.
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


@keras.saving.register_keras_serializable("fashion")
class FastConv2D(keras.layers.Conv2D):
    """A convolution that trains faster on CPUs, with `padding="same"`, `use_bias=False` and an odd kernel.

    On small images, TensorFlow computes one of the gradients slowly. In float32, it is that of the inputs; here it is a
    convolution with the mirrored kernel. In bfloat16 on processors with AMX, it is that of the kernel: AMX multiplies
    tiles of 32 columns, which a narrow image leaves mostly empty, so 32 images are interleaved. (Test another number
    before you use it: with 20 images of 14 pixels, oneDNN 3.7 reads uninitialised memory.) The results agree up to
    rounding. In all other cases, it is Keras' layer.
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Convolve `inputs`, (n, height, width, channels). Only in training, so that exports have Keras' graph."""
        options = self.padding, self.use_bias, self.activation, self.data_format, self.groups
        plain = options == ("same", False, keras.activations.linear, "channels_last", 1)
        plain = plain and all(size % 2 for size in self.kernel_size) and {*self.strides, *self.dilation_rate} == {1}
        narrow = 0 < (inputs.shape[2] or 0) <= NARROW
        slow = inputs.dtype == "float32" or (inputs.dtype == "bfloat16" and narrow and processor.uses_amx())
        if not (training and plain and slow):
            return super().call(inputs)
        return _convolution(inputs, tf.convert_to_tensor(self.kernel))


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _convolution(images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Sequence[tf.Tensor]]]:
    def gradient(upstream: tf.Tensor) -> Sequence[tf.Tensor]:
        once = [1, 1, 1, 1]
        if images.dtype == tf.bfloat16:
            by_images = tf.compat.v1.nn.conv2d_backprop_input(tf.shape(images), kernel, upstream, once, "SAME")
            dilations = [1, 1, INTERLEAVED, 1]
            by_kernel = tf.compat.v1.nn.conv2d_backprop_filter(
                _interleaved(images), kernel.shape, _interleaved(upstream), once, "SAME", dilations=dilations
            )
        else:
            mirrored = tf.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))
            by_images = tf.nn.conv2d(upstream, mirrored, strides=1, padding="SAME")
            by_kernel = tf.compat.v1.nn.conv2d_backprop_filter(images, kernel.shape, upstream, once, "SAME")
        return by_images, by_kernel

    return tf.nn.conv2d(images, kernel, strides=1, padding="SAME"), gradient


def _interleaved(images: tf.Tensor) -> tf.Tensor:
    """Return images `INTERLEAVED` times as wide, in which the columns of `INTERLEAVED` images alternate.

    A kernel with that dilation sees one image at a time. Zeros complete the batch; they add nothing to the gradient.
    """
    missing = -tf.shape(images)[0] % INTERLEAVED
    filled = tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])
    return tf.batch_to_space(filled, [1, INTERLEAVED], [[0, 0], [0, 0]])


def normalization(kind: Literal["fused", "keras", "none"]) -> keras.layers.Layer:
    """Return a batch normalisation with an offset and no scale, to be followed by ReLU; "none" is the identity."""
    match kind:
        case "fused":
            return FusedBatchNormalization(momentum=0.6, scale=False)
        case "keras":
            return keras.layers.BatchNormalization(momentum=0.6, scale=False)
        case "none":
            return keras.layers.Activation("linear")


def standardization(images: Images) -> keras.layers.Layer:
    """Return a layer that scales each channel of pixels (uint8) to mean 0 and standard deviation 1 over `images`.

    A channel whose pixels are all equal becomes 0.

    Raises:
        UserError: this is so in every channel.
    """
    mean, deviation = mean_and_deviation(histogram(images))
    if not deviation.any():
        raise UserError(
            f"every pixel of the training images is {', '.join(map(str, images[0, 0, 0]))}: there is nothing to learn "
            "from; use other images"
        )
    deviation = np.where(deviation == 0, 1, deviation)
    return keras.layers.Rescaling((1 / deviation).tolist(), (-mean / deviation).tolist())


def whitening_kernel(
    pixels: Float[np.ndarray, "n height width channels"], size: int
) -> Float[np.ndarray, "size size channels filters"]:
    """Return filters that map patches of `size` x `size` pixels to uncorrelated features of equal variance.

    The filters are the eigenvectors of the patches' covariance, each divided by its standard deviation, except the
    weakest, which is mostly noise; and their negatives, so that no information is lost in the ReLU that follows:
    2 (size * size * channels - 1) filters. From David Page's cifar10-fast
    (https://github.com/davidcpage/cifar10-fast), as in cifar10-airbench.
    """
    channels = pixels.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (size, size), axis=(1, 2))
    patches = np.moveaxis(windows, 3, -1).reshape(-1, size * size * channels)
    variances, directions = np.linalg.eigh(patches.T @ patches / len(patches))
    filters = (directions / np.sqrt(variances + 5e-4))[:, 1:]  # in the order of variance, the smallest first
    return np.concatenate([filters, -filters], axis=1).reshape(size, size, channels, -1)


@keras.saving.register_keras_serializable("fashion")
class DiracInitializer(keras.initializers.Initializer):
    """Dirac initialisation: the first filters copy the input channels; the others are Glorot uniform.

    Source: Zagoruyko and Komodakis, arXiv:1706.00388, as in cifar10-airbench.
    """

    def __call__(self, shape: tuple[int, int, int, int], dtype: str | None = None) -> tf.Tensor:
        """Return a kernel of `shape`, (height, width, inputs, outputs)."""
        height, width, inputs, outputs = shape
        kernel = np.array(keras.initializers.GlorotUniform()(shape))
        same = np.arange(min(inputs, outputs))
        kernel[:, :, :, same] = 0
        kernel[height // 2, width // 2, same, same] = 1
        return tf.constant(kernel, dtype)
