"""EfficientNet-Lite0 is what it was published as, with its weights in the right places; others fit its interface."""

from pathlib import Path

import keras
import numpy as np
import pytest

from fashion.errors import UserError
from fashion.models import saving
from studies.transfer import backbones, checkpoint, efficientnet
from studies.transfer.backbones import BACKBONES

SIZE = 64
# Of pixels(64): what PyTorch answers with the package `efficientnet-lite-pytorch`, the first five of the 1,000 logits.
LOGITS_OF_THE_PORT = [
    [-2.0019, 0.1570, 0.2393, 0.3417, 0.4232],
    [-2.1399, 0.4395, -0.4992, 0.6059, 0.7399],
    [-1.9189, -0.2714, -0.0633, 0.5371, 0.4873],
]


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return checkpoint.read(efficientnet.content())


def pixels(size: int) -> np.ndarray:
    return np.random.default_rng(size).uniform(-1, 1, (3, size, size, 3)).astype(np.float32)


def logits(size: int, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return the answers of the pretrained network to `pixels(size)`, with the classifier that it was trained with."""
    features: np.ndarray = efficientnet.pretrained(size).predict(pixels(size), verbose=0)
    return np.asarray(features @ arrays["_fc.weight"].T + arrays["_fc.bias"])


def test_answers_are_those_recorded_of_the_port(arrays: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(logits(SIZE, arrays)[:, :5], LOGITS_OF_THE_PORT, atol=2e-4, rtol=0)


@pytest.mark.parametrize("size", [64, 96, 224])
def test_answers_are_those_of_the_port(size: int, arrays: dict[str, np.ndarray]) -> None:
    """The oracle is PyTorch with the package `efficientnet-lite-pytorch`, neither of which the project installs."""
    torch = pytest.importorskip("torch")
    original = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0").eval()
    original.load_state_dict(torch.load(efficientnet.path()))
    given = np.ascontiguousarray(pixels(size).transpose(0, 3, 1, 2))
    with torch.no_grad():
        answers = original(torch.frombuffer(bytearray(given), dtype=torch.float32).reshape(given.shape))
    np.testing.assert_allclose(logits(size, arrays), np.array(answers.tolist()), atol=1e-4, rtol=0)


def test_every_array_but_the_classifiers_has_its_place(arrays: dict[str, np.ndarray]) -> None:
    network = efficientnet.build(SIZE)
    weights = {name: array for name, array in arrays.items() if not name.endswith("num_batches_tracked")}
    classifier = arrays["_fc.weight"].size + arrays["_fc.bias"].size
    assert network.count_params() == sum(array.size for array in weights.values()) - classifier == 3_413_024
    efficientnet.place(network, arrays)
    for name, array in weights.items():
        layer, _, kind = name.rpartition(".")
        if layer != "_fc":
            kinds = {"running_mean": "moving_mean", "running_var": "moving_variance", "bias": "beta"}
            normal = isinstance(network.get_layer(layer), keras.layers.BatchNormalization)
            placed = getattr(network.get_layer(layer), kinds.get(kind, "gamma" if normal else "kernel")).numpy()
            assert sorted(placed.ravel()) == sorted(array.ravel()), name


def test_arrays_that_do_not_fit_are_refused(arrays: dict[str, np.ndarray]) -> None:
    network = efficientnet.build(SIZE)
    with pytest.raises(UserError, match=r"no place for the weights _blocks\.16\._bn0\.weight"):
        efficientnet.place(network, {**arrays, "_blocks.16._bn0.weight": np.zeros(3)})
    with pytest.raises(UserError, match=r"do not fit the network: '_conv_stem\.weight'"):
        efficientnet.place(network, {name: array for name, array in arrays.items() if name != "_conv_stem.weight"})
    with pytest.raises(UserError, match=r"do not fit the network: .*shape"):
        efficientnet.place(network, {**arrays, "_bn1.bias": np.zeros(3, np.float32)})


def test_weights_that_are_missing_or_others_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "weights.pth"
    monkeypatch.setattr(efficientnet, "path", lambda: place)
    with pytest.raises(UserError, match=r"lacks .*; remove"):
        efficientnet.content()
    place.write_bytes(b"short")
    with pytest.raises(UserError, match=r"has 5 bytes, not 18,826,032; remove"):
        efficientnet.content()
    place.write_bytes(bytes(efficientnet.LENGTH))
    with pytest.raises(UserError, match=r"has the SHA-256 [0-9a-f]{64}, not 57934424"):
        efficientnet.content()
    monkeypatch.undo()
    monkeypatch.setattr(efficientnet, "PACKAGE", "no-such-package")
    with pytest.raises(UserError, match="the package no-such-package is missing"):
        efficientnet.content()


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_takes_grey_images_in_two_parts(name: str, tmp_path: Path) -> None:
    backbone = BACKBONES[name]
    keras.utils.set_random_seed(1)
    parts = backbones.split(backbone, (28, 28), SIZE, None)
    images = np.random.default_rng(1).integers(0, 256, (2, 28, 28)).astype(np.uint8)
    maps = parts.front.predict(images, verbose=0)
    features = parts.tail.predict(maps, verbose=0)
    assert features.shape == (2, 1280)
    assert maps[0].size < 5 * SIZE * SIZE  # few enough to be kept of every image
    assert parts.front.count_params() > 0
    assert parts.tail.count_params() > 1_000_000
    assert {layer.name for layer in parts.front.layers}.isdisjoint(layer.name for layer in parts.tail.layers)

    enlarged = keras.ops.image.resize(images[..., None].astype(np.float32), (SIZE, SIZE)).numpy()
    keras.utils.set_random_seed(1)
    whole = backbone.build(SIZE, None)
    expected = whole.predict(np.repeat(enlarged, 3, axis=-1) * backbone.scale + backbone.offset, verbose=0)
    np.testing.assert_allclose(features, expected, atol=1e-5, rtol=1e-4)

    saving.save(parts.front, tmp_path / "front.keras")
    np.testing.assert_array_equal(saving.load(tmp_path / "front.keras").predict(images, verbose=0), maps)


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_v2_b0"])
def test_pixels_are_prepared_as_keras_prepares_them(name: str) -> None:
    module = {"mobilenet_v2": keras.applications.mobilenet_v2}.get(name, keras.applications.efficientnet_v2)
    values = np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1)
    expected = module.preprocess_input(values.copy())
    np.testing.assert_allclose(values * BACKBONES[name].scale + BACKBONES[name].offset, expected, atol=1e-6)
