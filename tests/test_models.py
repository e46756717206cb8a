"""Every network in params.yaml: inputs and outputs, training, saving."""

import io
import re
import shutil
import sys
import zipfile
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from ruamel.yaml import YAML
from sklearn.utils.class_weight import compute_class_weight

from fashion.data.dataset import Split
from fashion.errors import UserError
from fashion.models import layers, networks, processor, saving, training
from fashion.models.flops import inference_flops
from fashion.params import TrainingParams
from fashion.validation import merged
from tests.conftest import MODELS, ROOT, SMALL_NETWORKS, draw_lines

TRAIN, VALIDATION = Split(*draw_lines(300, 1)), Split(*draw_lines(60, 2))
COLOUR_TRAIN, COLOUR_VALIDATION = Split(*draw_lines(300, 1, channels=3)), Split(*draw_lines(60, 2, channels=3))
SETTINGS = {
    "epochs": 4,
    "batch_size": 25,
    "hard_examples": {"epoch_fraction": 0.5, "hard_fraction": 0.5, "refresh_every": 1},
    "augmentation": {"flip": True, "translate": 1, "cutout": 4},
    "momentum": 0.6,
    "adam_learning_rate": 0.01,
    "warmup_fraction": 0.25,
    "precision": "float32",
}


def small_params(name: str) -> Any:
    """Return the params of a network in params.yaml, for a small network and a short training."""
    sections = YAML(typ="safe").load(ROOT / "params.yaml")
    values = merged(sections["training"], merged(sections["models"][name], SETTINGS))
    values |= {key: value for key, value in SMALL_NETWORKS.items() if key in values}
    return networks.load(name).Params.model_validate(values)


FIRST = MODELS[0]
NETWORK, PARAMS = networks.load(FIRST), small_params(FIRST)
NO_COPIES = PARAMS.test_time_augmentation.model_copy(update={"mirror": False, "translate": 0})
EACH = pytest.mark.parametrize("name", MODELS)


@pytest.mark.parametrize(("train", "validation"), [(TRAIN, VALIDATION), (COLOUR_TRAIN, COLOUR_VALIDATION)])
def test_input_and_output(train: Split, validation: Split) -> None:
    for name in MODELS:
        probabilities = networks.load(name).build(small_params(name), train).predict(validation.images, verbose=0)
        assert probabilities.shape == (60, 3)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


@EACH
def test_constant_images(name: str) -> None:
    grey = Split(np.full_like(TRAIN.images, 7), TRAIN.labels)
    with pytest.raises(UserError, match="every pixel of the training images is 7"):
        networks.load(name).build(small_params(name), grey)


def test_constant_channel() -> None:
    images = COLOUR_TRAIN.images.copy()
    images[..., 2] = 7
    standardized = layers.standardization(images)(images[:2]).numpy()
    np.testing.assert_array_equal(standardized[..., 2], 0)
    assert standardized[..., :2].std() > 0.5


def test_colour_images() -> None:
    _, history = training.train(NETWORK, PARAMS, COLOUR_TRAIN, COLOUR_VALIDATION)
    assert history["val_accuracy"].iloc[-1] > 0.5


@EACH
def test_repeated_training(name: str, tmp_path: Path) -> None:
    """Two trainings give the same bytes, and the model learns."""
    contents = []
    for path in (tmp_path / "one.keras", tmp_path / "two.keras"):
        model, history = training.train(networks.load(name), small_params(name), TRAIN, VALIDATION)
        saving.save(model, path)
        contents.append((path.read_bytes(), history.to_csv()))
    assert contents[0] == contents[1]
    assert history["val_accuracy"].iloc[-1] > 0.5  # three classes: guessing gives 0.33
    peak, half, low, end = history["learning_rate"]
    assert peak == pytest.approx(0.05)
    assert peak > half > low > end == pytest.approx(0, abs=1e-4)
    with zipfile.ZipFile(path) as file:
        assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert b"date_saved" not in file.read("metadata.json")
    np.testing.assert_array_equal(*(m.predict(VALIDATION.images, verbose=0) for m in (model, saving.load(path))))


def train(**changes: Any) -> Any:
    return training.train(NETWORK, PARAMS.model_copy(update={"epochs": 2, **changes}), TRAIN, VALIDATION)


def test_does_not_fit_the_images() -> None:
    """Also with params that are not in params.yaml."""
    augmentation = PARAMS.augmentation.model_copy(update={"cutout": 20})
    with pytest.raises(UserError, match="cutout: a 20-pixel square is too large for images of 20 x 24 pixels"):
        train(augmentation=augmentation)


def test_almost_all_steps_warm_up() -> None:
    _, history = train(warmup_fraction=0.99, epochs=1, batch_size=300)
    assert np.isfinite(history.to_numpy()).all()


def test_training_loss_and_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training metrics are measured like those of validation: at the epoch's end, on unaugmented images."""
    augmentation = PARAMS.augmentation.model_copy(update={"translate": 10})
    params = PARAMS.model_copy(update={"augmentation": augmentation, "class_weights": "balanced"})
    _, history = training.train(NETWORK, params, TRAIN, TRAIN)
    np.testing.assert_allclose(history["loss"], history["val_loss"], rtol=1e-5)
    np.testing.assert_allclose(history["accuracy"], history["val_accuracy"], rtol=1e-5)
    monkeypatch.setattr(training, "SAMPLE", 60)
    _, smaller = training.train(NETWORK, params, TRAIN, VALIDATION)
    assert (smaller["loss"] != history["loss"]).all()
    np.testing.assert_allclose(smaller["loss"], history["loss"], rtol=0.5)


@EACH
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("translate", [0, 3])
def test_test_time_augmentation(name: str, mirror: bool, translate: int) -> None:
    """Logits are averaged over the changed copies of an image."""
    network, params = networks.load(name), small_params(name)
    plain = training.build_and_compile(network, params, TRAIN)
    plain.get_layer("output").set_weights([5 * values for values in plain.get_layer("output").get_weights()])
    settings = NO_COPIES.model_copy(update={"mirror": mirror, "translate": translate})
    model = training.with_test_time_augmentation(plain, settings)
    model.set_weights(plain.get_weights())

    height, width = VALIDATION.image_shape[:2]
    views = [VALIDATION.images] * (2 if translate else 1)
    if translate:
        padded = np.pad(VALIDATION.images, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="edge")
        views += [padded[:, top : top + height, top : top + width] for top in (0, 6)]
    if mirror:
        views += [view[:, :, ::-1] for view in views]
    expected = np.exp(np.mean([np.log(plain.predict(view, verbose=0)) for view in views], axis=0))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict(VALIDATION.images, verbose=0), expected, rtol=1e-3, atol=1e-6)
    cost = (3 if translate else 1) * (2 if mirror else 1)
    assert inference_flops(model) == pytest.approx(cost * inference_flops(plain), rel=0.1)


def test_history_without_test_time_augmentation() -> None:
    histories = []
    for mirror in (False, True):
        settings = NO_COPIES.model_copy(update={"mirror": mirror})
        model, history = train(test_time_augmentation=settings)
        histories.append(history)
        predictions = model.predict(VALIDATION.images[:, :, ::-1], verbose=0)
        assert np.allclose(model.predict(VALIDATION.images, verbose=0), predictions, atol=1e-5) == mirror
    pd.testing.assert_frame_equal(*histories)


def test_inference_flops() -> None:
    model = keras.Sequential([keras.Input((4, 5, 1)), keras.layers.Conv2D(3, 3, padding="same", use_bias=False)])
    assert inference_flops(model) == 2 * 4 * 5 * 3 * 9


def test_seed() -> None:
    first, second = (train(seed=seed, epochs=1)[1] for seed in (1, 2))
    assert (first["loss"] != second["loss"]).all()


def test_divergence() -> None:
    def build(params: Any, train: Split) -> keras.Model:
        model = NETWORK.build(params, train)
        output = model.get_layer("output")
        output.set_weights([np.full_like(weight, np.nan) for weight in output.get_weights()])
        return model

    network = ModuleType("broken")
    network.build = build  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=rf"{FIRST}: training diverged in epoch 1 .*; lower its learning_rate"):
        training.train(network, PARAMS, TRAIN, VALIDATION)


def test_log() -> None:
    with redirect_stdout(io.StringIO()) as output:
        train()
    lines = output.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == [f"{FIRST} epoch {n}/2" for n in (1, 2)]
    assert all("val_accuracy 0." in line for line in lines)


class Terminal(io.StringIO):
    """Stands in for a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    train(epochs=5)
    assert re.search(
        rf"{FIRST}: +\d+%\|.*\| [\d.]+k?/750 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+k? images/s\]", terminal.getvalue()
    )


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_load_no_model(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.keras"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.keras: not a Keras model .* run `dvc repro`"):
        saving.load(path)


def test_load_no_code(tmp_path: Path) -> None:
    keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x)]).save(tmp_path / "model.keras")
    with pytest.raises(UserError, match="Lambda"):
        saving.load(tmp_path / "model.keras")


@pytest.mark.skipif(not {"dnn", "cnn"} <= set(MODELS), reason="these two networks only")
def test_number_of_parameters() -> None:
    dense, normal = (480 * 16, 16 * 3 + 3), 3  # an offset, a moving mean and a moving variance
    assert networks.load("dnn").build(small_params("dnn"), TRAIN).count_params() == sum(dense) + normal * 16
    first, blocks = 9 * 16 + 16, (9 * 16 * 4, 9 * 4 * 4, 9 * 4 * 8, 9 * 8 * 8)
    cnn = networks.load("cnn").build(small_params("cnn"), TRAIN)
    assert cnn.count_params() == first + sum(blocks) + normal * (4 + 4 + 8 + 8) + 8 * 3 + 3


@pytest.mark.skipif("cnn" not in MODELS, reason="the CNN only")
def test_cnn_image_size() -> None:
    params = small_params("cnn").model_copy(update={"filters": (4,) * 5, "whitening": True})
    assert [line.split(":")[0] for line in params.image_problems((20, 24, 1))] == ["filters"]
    assert [line.split(":")[0] for line in params.image_problems((2, 2, 1))] == [
        "augmentation.cutout",
        "filters",
        "whitening",
    ]


@pytest.mark.skipif("cnn" not in MODELS, reason="the CNN only")
def test_cnn_of_tiny_images() -> None:
    """Without whitening, images may be smaller than a kernel."""
    params = small_params("cnn").model_copy(update={"filters": (4,), "whitening": False})
    images = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)
    model = networks.load("cnn").build(params, Split(images, np.arange(3, dtype=np.uint8)))
    assert model.output_shape == (None, 3)


def test_class_weights() -> None:
    """A rare class gains recall; the validation loss is unweighted."""
    unequal = TRAIN.take(np.flatnonzero((TRAIN.labels < 2) | (np.arange(300) % 10 == 2)))
    whole_epochs = PARAMS.hard_examples.model_copy(update={"epoch_fraction": 1.0})
    loss, recall = {}, {}
    for choice in ("none", "balanced"):
        changes = {"class_weights": choice, "hard_examples": whole_epochs, "test_time_augmentation": NO_COPIES}
        params = PARAMS.model_copy(update=changes)
        model, history = training.train(NETWORK, params, unequal, VALIDATION)
        predicted = model.predict(VALIDATION.images, verbose=0)
        unweighted = keras.losses.CategoricalCrossentropy(label_smoothing=params.label_smoothing)
        expected = float(unweighted(np.eye(3, dtype=np.float32)[VALIDATION.labels], predicted))
        assert history["val_loss"].iloc[-1] == pytest.approx(expected, rel=1e-4)
        loss[choice] = history["loss"].iloc[0]
        recall[choice] = (predicted[VALIDATION.labels == 2].argmax(axis=1) == 2).mean()
    assert loss["none"] != loss["balanced"]
    assert recall["none"] < recall["balanced"]


def test_class_weights_as_in_scikit_learn() -> None:
    labels = np.repeat([0, 1, 2], [7, 2, 1]).astype(np.uint8)
    split = Split(TRAIN.images[: len(labels)], labels)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    balanced = PARAMS.model_copy(update={"class_weights": "balanced"})
    assert training.class_weights(balanced, split) == pytest.approx(dict(enumerate(expected)))
    assert training.class_weights(PARAMS, split) is None


WITH_ACTIVATION = [keras.layers.Dense(3, activation="softmax", name="output")]


@pytest.mark.parametrize("last", [WITH_ACTIVATION, [keras.layers.Dense(3), keras.layers.Softmax()]])
def test_wrong_last_layers(last: list[keras.layers.Layer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Test-time augmentation and the export would take probabilities for logits."""

    def build(_params: TrainingParams, train: Split) -> keras.Model:
        return keras.Sequential([keras.Input(train.image_shape), keras.layers.Flatten(), *last])

    network = ModuleType("fashion.models.mine")
    monkeypatch.setattr(network, "build", build, raising=False)
    with pytest.raises(UserError, match=r"^fashion\.models\.mine: found the last layers .*, expected Dense\(classes, "):
        training.build_and_compile(network, PARAMS, TRAIN)


@pytest.mark.parametrize(
    ("capabilities", "policy"),
    [([(8, 0)], "mixed_bfloat16"), ([(9, 0), (7, 5)], "float32"), ([None], "float32")],
)
def test_precision_of_gpus(
    monkeypatch: pytest.MonkeyPatch, capabilities: list[tuple[int, int] | None], policy: str
) -> None:
    """With GPUs, `auto` depends on them and not on the processor."""
    details = [{} if capability is None else {"compute_capability": capability} for capability in capabilities]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(range(len(details))))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", details.__getitem__)
    assert training.dtype_policy("auto") == policy
    assert training.dtype_policy("float32") == "float32"


def test_precision_of_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """One machine decides what `auto` is, so that all nodes compute in the same precision."""
    for precision, available in (("bfloat16", True), ("float32", False)):
        monkeypatch.setattr(processor, "has_bfloat16", lambda available=available: available)
        all_params = [PARAMS.model_copy(update={"precision": one}) for one in ("auto", "float32", "bfloat16")]
        fixed = [training.fix_precision(params).precision for params in all_params]
        assert fixed == [precision, "float32", "bfloat16"]


def test_training_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It follows the code that a network uses: not that of the other networks, unless it imports them."""
    shutil.copytree(Path(networks.__file__).parent, tmp_path / "models")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.py").touch()
    monkeypatch.setattr(networks, "__file__", str(tmp_path / "models" / "networks.py"))

    def key() -> str:
        return networks.training_key(FIRST, PARAMS, {})

    def append(file: str, text: str) -> None:
        with (tmp_path / file).open("a") as code:
            code.write(text)

    append("models/other.py", '\nclass Params(TrainingParams):\n    """Of another network."""\n')
    keys = [key()]
    append("models/other.py", "# changed\n")
    assert key() == keys[0]
    append("models/imported.py", "\nclass Params(TrainingParams):\n    pass\n\nfrom fashion.models.other import *\n")
    append(f"models/{FIRST}.py", "from fashion.models import imported\n")
    keys.append(key())
    append("models/other.py", "# changed\n")
    keys.append(key())
    append("models/layers.py", "# changed\n")
    keys.append(key())
    append("data/dataset.py", "# changed\n")
    keys.append(key())
    monkeypatch.setattr(keras, "__version__", "another")
    keys.append(key())
    assert len(set(keys)) == len(keys)
