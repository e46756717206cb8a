"""Networks pretrained on ImageNet, behind one interface."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import keras
from keras import layers

from fashion.errors import UserError
from studies.transfer import efficientnet

Weights = Literal["imagenet"] | None


@dataclass(frozen=True)
class Backbone:
    """A network that extracts features from photographs.

    Attributes:
        build: returns the network for square images of a size in pixels, with pretrained or random weights: scaled
            pixels (n, size, size, 3) in, features (n, features) out.
        scale: factor for pixels (0 to 255).
        offset: added to the scaled pixels.
        last_frozen: the last layer that fine-tuning does not train; all later layers depend on its output alone.
    """

    build: Callable[[int, Weights], keras.Model]
    scale: float
    offset: float
    last_frozen: str


def _efficientnet_lite0(size: int, weights: Weights) -> keras.Model:
    return efficientnet.pretrained(size) if weights else efficientnet.build(size)


BACKBONES = {
    "efficientnet_lite0": Backbone(_efficientnet_lite0, 1 / 128, -127 / 128, "block11"),
}


def split(name: str, image_shape: tuple[int, int, int], size: int, weights: Weights) -> tuple[keras.Model, keras.Model]:
    """Return a backbone in two parts, of which fine-tuning trains the second.

    Args:
        name: of the backbone.
        image_shape: height, width and number of channels (1 or 3) of the images.
        size: height and width that the images are resized to.
        weights: pretrained or random.

    Returns:
        The frozen part: raw pixels (uint8, (n, height, width, channels)) in, feature maps (n, h, w, filters) out. The
        trainable part: feature maps in, features (n, features) out.

    Raises:
        UserError: there is no such backbone, or its weights are missing.
    """
    if name not in BACKBONES:
        raise UserError(f"there is no backbone {name}; choose one of {', '.join(BACKBONES)}")
    backbone = BACKBONES[name]
    network = backbone.build(size, weights)
    maps = network.get_layer(backbone.last_frozen).output
    images = keras.Input(image_shape, dtype="uint8")
    resized = layers.Resizing(size, size)(images)
    colour = resized if image_shape[-1] == 3 else layers.Concatenate()([resized, resized, resized])
    pixels = layers.Rescaling(backbone.scale, backbone.offset)(colour)
    frozen = keras.Model(images, keras.Model(network.input, maps, name="backbone")(pixels), name="frozen")
    return frozen, keras.Model(maps, network.output, name="trainable")
