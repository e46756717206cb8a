"""Networks that have learned from ImageNet, behind one interface."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np
from jaxtyping import UInt8
from keras import layers

from studies.transfer import efficientnet

Images = UInt8[np.ndarray, "n height width"]
Weights = Literal["imagenet"] | None


@dataclass(frozen=True)
class Backbone:
    """A network that turns photographs into features.

    Attributes:
        build: returns it for images of a height and width in pixels, pretrained on ImageNet or with random weights:
            preprocessed pixels (n, size, size, 3) in, features (n, features) out.
        scale: what preprocessing multiplies pixels (0 to 255) by.
        offset: what it adds then.
        last_frozen: the layer that ends the part which fine-tuning leaves as it is; all that follows must follow from
            its output alone.
    """

    build: Callable[[int, Weights], keras.Model]
    scale: float
    offset: float
    last_frozen: str


@dataclass(frozen=True)
class Parts:
    """A backbone for the project's images, in two parts.

    Attributes:
        front: raw pixels (uint8, n x height x width) in, maps (n x h x w x filters) out: what `last_frozen` gives.
        tail: maps in, features (n, features) out.
    """

    front: keras.Model
    tail: keras.Model


def _of_keras(application: Callable[..., keras.Model]) -> Callable[[int, Weights], keras.Model]:
    def build(size: int, weights: Weights) -> keras.Model:
        return application(include_top=False, pooling="avg", weights=weights, input_shape=(size, size, 3))

    return build


def _efficientnet_lite0(size: int, weights: Weights) -> keras.Model:
    return efficientnet.pretrained(size) if weights else efficientnet.build(size)


BACKBONES = {
    "efficientnet_lite0": Backbone(_efficientnet_lite0, 1 / 128, -127 / 128, "block11"),
    "mobilenet_v2": Backbone(_of_keras(keras.applications.MobileNetV2), 1 / 127.5, -1, "block_12_add"),
    "efficientnet_v2_b0": Backbone(_of_keras(keras.applications.EfficientNetV2B0), 1, 0, "block5e_add"),
}


def split(backbone: Backbone, image_shape: tuple[int, int], size: int, weights: Weights) -> Parts:
    """Return a backbone for grey images of a height and width, which it enlarges to `size` x `size` pixels."""
    network = backbone.build(size, weights)
    maps = network.get_layer(backbone.last_frozen).output
    images = keras.Input(image_shape, dtype="uint8")
    enlarged = layers.Resizing(size, size)(layers.Reshape((*image_shape, 1))(images))
    pixels = layers.Rescaling(backbone.scale, backbone.offset)(layers.Concatenate()([enlarged, enlarged, enlarged]))
    front = keras.Model(images, keras.Model(network.input, maps, name="frozen")(pixels), name="front")
    return Parts(front, keras.Model(maps, network.output, name="tail"))
