"""The backbones: EfficientNet-Lite0 is the published network, and all have the same interface."""

from pathlib import Path

import keras
import numpy as np
import pytest

from fashion.errors import UserError
from studies.transfer import backbones, checkpoint, efficientnet
from studies.transfer.backbones import BACKBONES

SIZE = 64
# The first five of the 1,000 logits of the PyTorch package `efficientnet-lite-pytorch` for pixels(64)
PYTORCH_LOGITS = [
    [-2.0019, 0.1570, 0.2393, 0.3417, 0.4232],
    [-2.1399, 0.4395, -0.4992, 0.6059, 0.7399],
    [-1.9189, -0.2714, -0.0633, 0.5371, 0.4873],
]


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return checkpoint.read(efficientnet.content())


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return efficientnet.pretrained(SIZE)


def pixels(size: int) -> np.ndarray:
    return np.random.default_rng(size).uniform(-1, 1, (3, size, size, 3)).astype(np.float32)


def logits(network: keras.Model, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return the logits for random pixels, with the pretrained classifier."""
    features = np.asarray(network(pixels(network.input_shape[1])))
    return np.asarray(features @ arrays["_fc.weight"].T + arrays["_fc.bias"])


def test_recorded_logits(network: keras.Model, arrays: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(logits(network, arrays)[:, :5], PYTORCH_LOGITS, atol=2e-4, rtol=0)


def test_all_weights_are_used(network: keras.Model, arrays: dict[str, np.ndarray]) -> None:
    weights = {
        name: array
        for name, array in arrays.items()
        if not name.endswith("num_batches_tracked") and not name.startswith("_fc.")
    }
    assert network.count_params() == sum(array.size for array in weights.values()) == 3_413_024
    kinds = {"running_mean": "moving_mean", "running_var": "moving_variance", "bias": "beta"}
    for name, array in weights.items():
        layer, _, kind = name.rpartition(".")
        normalization = isinstance(network.get_layer(layer), keras.layers.BatchNormalization)
        attribute = kinds.get(kind, "gamma" if normalization else "kernel")
        values = getattr(network.get_layer(layer), attribute).numpy()
        np.testing.assert_array_equal(np.sort(values, axis=None), np.sort(array, axis=None), name)


def test_arrays_that_do_not_fit(network: keras.Model, arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(UserError, match=r"no layer for the weights _blocks\.16\._bn0\.weight"):
        efficientnet.set_weights(network, {**arrays, "_blocks.16._bn0.weight": np.zeros(3)})
    with pytest.raises(UserError, match=r"do not fit the network: '_conv_stem\.weight'"):
        efficientnet.set_weights(
            network, {name: array for name, array in arrays.items() if name != "_conv_stem.weight"}
        )
    with pytest.raises(UserError, match=r"do not fit the network: .*shape"):
        efficientnet.set_weights(network, {**arrays, "_bn1.bias": np.zeros(3, np.float32)})


def test_missing_or_altered_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    monkeypatch.setattr(efficientnet, "path", lambda: path)
    with pytest.raises(UserError, match=r"lacks .*; remove"):
        efficientnet.content()
    path.write_bytes(b"altered")
    with pytest.raises(UserError, match=r"has the SHA-256 [0-9a-f]{64}, expected 57934424"):
        efficientnet.content()
    monkeypatch.undo()
    monkeypatch.setattr(efficientnet, "PACKAGE", "no-such-package")
    with pytest.raises(UserError, match="the package no-such-package is missing"):
        efficientnet.content()


def test_unknown_backbone() -> None:
    with pytest.raises(UserError, match="no backbone resnet; choose one of efficientnet_lite0"):
        backbones.split("resnet", (28, 28, 1), SIZE, None)


@pytest.mark.parametrize("name", BACKBONES)
def test_two_parts(name: str) -> None:
    backbone = BACKBONES[name]
    keras.utils.set_random_seed(1)
    frozen, trainable = backbones.split(name, (28, 28, 1), SIZE, None)
    images = np.random.default_rng(1).integers(0, 256, (2, 28, 28, 1)).astype(np.uint8)
    maps = np.asarray(frozen(images, training=False))  # Keras' Resizing would turn the training mode on
    features = np.asarray(trainable(maps, training=False))
    assert features.shape == (2, 1280)
    assert maps[0].size < 5 * SIZE * SIZE  # small enough to store for every image
    assert frozen.count_params() > 0
    assert trainable.count_params() > 1_000_000
    assert {layer.name for layer in frozen.layers}.isdisjoint(layer.name for layer in trainable.layers)

    resized = keras.ops.image.resize(images.astype(np.float32), (SIZE, SIZE)).numpy()
    keras.utils.set_random_seed(1)
    whole = backbone.build(SIZE, None)
    expected = np.asarray(whole(np.repeat(resized, 3, axis=-1) * backbone.scale + backbone.offset, training=False))
    np.testing.assert_allclose(features / expected.max(), expected / expected.max(), atol=0.02)
