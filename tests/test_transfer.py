"""The transfer study, with a small network and small images."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fashion.data import dataset
from fashion.data.dataset import Split
from fashion.errors import UserError
from fashion.evaluation.significance import mcnemar
from fashion.files import read_json, write_json
from fashion.models import saving
from fashion.models.layers import FusedBatchNormalization
from fashion.validation import read_yaml
from studies.transfer import assemble, evaluate_all, features, methods, summary, train_own, train_transfer, trials
from studies.transfer.backbones import BACKBONES, Backbone
from studies.transfer.methods import METHODS, Inputs
from tests.conftest import ROOT, draw_lines

DIRECTORY = ROOT / "studies" / "transfer"
TRAIN, VALIDATION, TEST = Split(*draw_lines(240, 1)), Split(*draw_lines(90, 2)), Split(*draw_lines(60, 3))
COMPARISON = {
    "base": "cnn",
    "head": "finetuned",
    "differences": {"10": {"mean": -0.012, "std": 0.003}},
    "seeds": {},
}
SETTINGS = {
    "epochs": 2,
    "min_steps": 7,
    "batch_size": 20,
    "learning_rate": 0.01,
    "warmup_fraction": 0.1,
    "weight_decay": 0.0001,
    "label_smoothing": 0.1,
}
STUDY = {
    "all": {
        "backbone": "efficientnet_lite0",
        "image_size": 32,
        "seeds": [1, 2],
        "single_seed": ["finetuned-all", "dnn-30"],
    },
    "probe": {"C": [0.1, 0.0001, 1.0]},
    "finetuned": SETTINGS | {"epochs": 8},
    "random": SETTINGS | {"image_size": 24, "epochs": 1, "min_steps": 2},
    "own": {
        "min_images": 100,
        "changes": {
            "hard_examples": {"epoch_fraction": 1.0},
            "augmentation": {"flip": False, "translate": 0},
            "optimizer": "adam",
            "batch_size": 50,
            "epochs": 1,
            "hidden_units": [8],
        },
    },
}


def run(main: Callable[[], None], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["stage", *map(str, arguments)])
    main()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the files of a small backbone in two parts."""
    folder = tmp_path_factory.mktemp("parts")
    keras.utils.set_random_seed(1)
    layers = keras.layers
    frozen = [layers.Rescaling(1 / 128, -127 / 128), layers.Conv2D(4, 4, 2)]
    trainable = [
        layers.DepthwiseConv2D(3, name="depthwise"),
        layers.Conv2D(8, 1, name="pointwise"),
        FusedBatchNormalization(momentum=1.0, name="normalization"),
        layers.ReLU(6),
        layers.GlobalMaxPooling2D(),
    ]
    shape, dtype = TRAIN.image_shape, "uint8"
    for name, stack in (("frozen", frozen), ("trainable", trainable)):
        outputs = inputs = keras.Input(shape, dtype=dtype)
        for layer in stack:
            outputs = layer(outputs)
        model = keras.Model(inputs, outputs, name=name)
        saving.save(model, folder / f"{name}.keras")
        shape, dtype = model.output_shape[1:], "float32"
    return folder / "frozen.keras", folder / "trainable.keras"


@pytest.fixture(scope="module")
def inputs(parts: tuple[Path, Path]) -> Inputs:
    """Return what the methods train with."""
    frozen, trainable = (saving.load(part) for part in parts)
    arrays = TRAIN.images, TRAIN.images[:, :, ::-1], VALIDATION.images
    train_maps, mirrored_maps, validation_maps = (np.asarray(frozen(images)).astype("f2") for images in arrays)
    train_features, validation_features = (
        np.asarray(trainable(maps.astype("f4"))).astype("f2") for maps in (train_maps, validation_maps)
    )
    computed = train_maps, mirrored_maps, validation_maps, train_features, validation_features
    return Inputs(TRAIN, VALIDATION, *computed, parts[1], STUDY)


@pytest.fixture(scope="module")
def finetuned(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a fine-tuned network."""
    folder = tmp_path_factory.mktemp("trials") / "finetuned-all"
    trials.run(folder, {"finetuned": partial(methods.finetune, inputs)}, TRAIN.labels, STUDY)
    return folder


def test_subset() -> None:
    indices = trials.subset(TRAIN.labels, "7", seed=1)
    np.testing.assert_array_equal(np.bincount(TRAIN.labels[indices]), [7, 7, 7])
    assert len(set(indices)) == 21
    np.testing.assert_array_equal(indices, trials.subset(TRAIN.labels, "7", seed=1))
    assert set(indices) != set(trials.subset(TRAIN.labels, "7", seed=2))
    np.testing.assert_array_equal(trials.subset(TRAIN.labels, "all", seed=1), np.arange(240))


@pytest.mark.parametrize("images", ["81", "0", "-3", "many", "1.5"])
def test_invalid_subset(images: str) -> None:
    with pytest.raises(UserError, match="use 1 to 80, or all"):
        trials.subset(TRAIN.labels, images, seed=1)


def test_features(
    parts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(features, "BATCH_SIZE", 25)  # so that the last batch is smaller
    dataset.save(TEST, tmp_path / "test")
    written = [tmp_path / name for name in ("maps.npy", "features.npy", "cost.json", "mirrored.npy")]
    run(features.main, monkeypatch, *parts, tmp_path / "test", *written[:3], "--mirrored", written[3])
    frozen, trainable = (saving.load(part) for part in parts)
    for path, images in ((written[0], TEST.images), (written[3], TEST.images[:, :, ::-1])):
        maps = np.load(path)
        assert maps.dtype == np.float16
        np.testing.assert_allclose(maps, frozen(images), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.load(written[1]), trainable(frozen(TEST.images)), rtol=1e-2, atol=1e-2)
    assert np.load(written[1]).dtype == np.float16
    assert set(read_json(written[2])) == {"maps", "features", "mirrored"}
    output = capfd.readouterr()
    assert "mirrored: 60 images" in output.out
    assert "AutoGraph" not in output.err


def test_probe_is_the_best_logistic_regression(inputs: Inputs) -> None:
    indices = trials.subset(TRAIN.labels, "30", seed=1)
    model, accuracy = methods.probe(inputs, indices, 1)
    train, validation = (values.astype(np.float32) for values in (inputs.train_features, inputs.validation_features))
    fitted = {
        strength: make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000)).fit(
            train[indices], TRAIN.labels[indices]
        )
        for strength in inputs.study["probe"]["C"]
    }
    scores = {strength: pipeline.score(validation, VALIDATION.labels) for strength, pipeline in fitted.items()}
    assert len(set(scores.values())) > 1
    best = fitted[max(scores, key=scores.__getitem__)]
    probabilities = np.asarray(model(validation))
    np.testing.assert_allclose(probabilities, best.predict_proba(validation), atol=5e-3)
    assert accuracy == pytest.approx(max(scores.values()))
    assert accuracy == pytest.approx((probabilities.argmax(axis=1) == VALIDATION.labels).mean())


def test_fine_tuning(inputs: Inputs, finetuned: Path) -> None:
    before, after = saving.load(inputs.trainable), saving.load(finetuned / "1.keras")
    change = {
        name: [
            np.abs(new - old).max()
            for old, new in zip(before.get_layer(name).get_weights(), after.get_layer(name).get_weights(), strict=True)
        ]
        for name in ("depthwise", "pointwise", "normalization")
    }
    assert max(change["depthwise"]) == 0
    assert 0 < change["pointwise"][0] < 1  # from the pretrained weights
    assert min(change["normalization"]) > 0  # its statistics too, although their momentum was 1
    probabilities = np.asarray(after(inputs.validation_maps.astype(np.float32)))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert not hasattr(after, "optimizer")
    (row,) = read_json(finetuned / "trials.json")
    assert row["val_accuracy"] == pytest.approx((probabilities.argmax(axis=1) == VALIDATION.labels).mean(), abs=1e-6)
    assert row["val_accuracy"] > 0.6  # chance is 0.33


def test_fine_tuning_is_reproducible(inputs: Inputs, finetuned: Path, tmp_path: Path) -> None:
    folder = tmp_path / "finetuned-all"
    trials.run(folder, {"finetuned": partial(methods.finetune, inputs)}, TRAIN.labels, STUDY)
    assert (folder / "1.keras").read_bytes() == (finetuned / "1.keras").read_bytes()


def test_mirrored_inputs(inputs: Inputs) -> None:
    indices, mirrored = np.array([5, 2, 5]), np.array([False, True, True])
    maps, images = inputs.maps(indices, mirrored), inputs.images(indices, mirrored)
    assert maps.dtype == np.float32
    np.testing.assert_array_equal(maps[0], inputs.train_maps[5].astype(np.float32))
    np.testing.assert_array_equal(maps[1:], inputs.mirrored_maps[[2, 5]].astype(np.float32))
    np.testing.assert_array_equal(images[0], TRAIN.images[5])
    np.testing.assert_array_equal(images[1:], TRAIN.images[[2, 5], :, ::-1])


def test_order_of_images(inputs: Inputs) -> None:
    """Every image occurs equally often, mirrored half of the time."""
    order: list[int] = []
    flips: list[bool] = []

    def load(indices: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        order.extend(indices)
        flips.extend(mirrored)
        return np.zeros((len(indices), 1), np.float32)

    vector = keras.Input((1,))
    indices = np.arange(0, 240, 3)
    methods._fit(keras.Model(vector, keras.layers.ReLU()(vector)), "finetuned", load, inputs, indices, seed=1)
    assert len(order) == 8 * len(indices)
    assert set(np.bincount(order, minlength=240)[indices]) == {8}
    assert 0.4 < np.mean(flips) < 0.6


def small_network(size: int, weights: str | None) -> keras.Model:
    assert weights is None
    pixels = keras.Input((size, size, 3))
    maps = keras.layers.Conv2D(4, 4, 2, name="maps")(pixels)
    normalized = FusedBatchNormalization(momentum=0.99, name="normalization")(keras.layers.Conv2D(8, 3)(maps))
    return keras.Model(pixels, keras.layers.GlobalMaxPooling2D()(normalized))


def test_random_weights(inputs: Inputs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(BACKBONES, "efficientnet_lite0", Backbone(small_network, 1 / 128, -127 / 128, "maps"))
    model, accuracy = methods.train_random(inputs, trials.subset(TRAIN.labels, "10", seed=1), 1)
    momenta = [layer.momentum for layer in methods._layers(model) if layer.name == "normalization"]
    assert momenta == [methods.MOMENTUM]
    saving.save(model, tmp_path / "model.keras")
    probabilities = saving.load(tmp_path / "model.keras").predict(VALIDATION.images, verbose=0)
    assert probabilities.shape == (90, 3)
    assert accuracy == pytest.approx((probabilities.argmax(axis=1) == VALIDATION.labels).mean())


def test_training_stages(inputs: Inputs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, split in (("train", TRAIN), ("validation", VALIDATION)):
        dataset.save(split, tmp_path / name)
    for name in train_transfer.COMPUTED:
        np.save(tmp_path / f"{name}.npy", getattr(inputs, name))
    splits = [tmp_path / name for name in ("train", "validation")]
    computed = [tmp_path / f"{name}.npy" for name in train_transfer.COMPUTED]
    for module in (train_transfer, train_own):
        monkeypatch.setattr(module, "read_yaml", lambda _path: STUDY)
    run(train_transfer.main, monkeypatch, *splits, *computed, inputs.trainable, tmp_path / "trials" / "probe-30")
    run(train_own.main, monkeypatch, *splits, tmp_path / "trials" / "dnn-30")
    for name, seeds in (("probe-30", [1, 2]), ("dnn-30", [1])):
        folder = tmp_path / "trials" / name
        assert [trial["seed"] for trial in read_json(folder / "trials.json")] == seeds
        assert {path.name for path in folder.iterdir()} == {"trials.json", *(f"{seed}.keras" for seed in seeds)}
    with pytest.raises(UserError, match="no method cnn; choose one of probe, finetuned, random"):
        run(train_transfer.main, monkeypatch, *splits, *computed, inputs.trainable, tmp_path / "trials" / "cnn-30")


def test_assembled_model(
    parts: tuple[Path, Path], finetuned: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(assemble.main, monkeypatch, parts[0], finetuned / "1.keras", tmp_path / "finetuned" / "model.keras")
    model = saving.load(tmp_path / "finetuned" / "model.keras")
    assert model.name == "finetuned"
    frozen, tuned = saving.load(parts[0]), saving.load(finetuned / "1.keras")
    np.testing.assert_allclose(model(TEST.images), tuned(frozen(TEST.images)), atol=1e-5)


def test_evaluation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The accuracy of a model that always predicts the same class is the frequency of that class."""
    arrays = {"cnn-100": TEST.images, "finetuned-100": np.zeros((60, 3, 3, 2)), "probe-all": np.zeros((60, 5))}
    for predicted, (name, array) in enumerate(arrays.items()):
        dense = keras.layers.Dense(3, activation="softmax", kernel_initializer="zeros")
        model = keras.Sequential([keras.Input(array.shape[1:]), keras.layers.Flatten(), dense])
        dense.bias.assign(np.eye(3)[predicted])
        seeds = (1,) if name == "probe-all" else (1, 2)
        for seed in seeds:
            saving.save(model, tmp_path / "trials" / name / f"{seed}.keras")
        rows = [{"seed": seed, "val_accuracy": 0.5, "seconds": 1.0} for seed in seeds]
        write_json(tmp_path / "trials" / name / "trials.json", rows)
    test = TEST.take(np.r_[0:60:3, 1:60:3, 1:20:3, 2:5])
    dataset.save(test, tmp_path / "test")
    np.save(tmp_path / "maps.npy", arrays["finetuned-100"][: len(test.labels)].astype(np.float16))
    np.save(tmp_path / "features.npy", arrays["probe-all"][: len(test.labels)].astype(np.float16))
    names = ("trials", "test", "maps.npy", "features.npy", "results.csv", "comparison.json")
    run(evaluate_all.main, monkeypatch, *(tmp_path / name for name in names))

    results = pd.read_csv(tmp_path / "results.csv", dtype={"images": str}).set_index(["method", "images", "seed"])
    frequencies = np.bincount(test.labels) / len(test.labels)
    for row, frequency in zip(
        (("cnn", "100", 2), ("finetuned", "100", 2), ("probe", "all", 1)), frequencies, strict=True
    ):
        assert results.loc[row, "accuracy"] == pytest.approx(frequency)
    comparison = read_json(tmp_path / "comparison.json")
    assert comparison["differences"] == {"100": {"mean": pytest.approx(frequencies[1] - frequencies[0]), "std": 0}}
    fixed, broken = int((test.labels == 1).sum()), int((test.labels == 0).sum())
    assert fixed != broken
    tests = comparison["seeds"]
    assert {seed: (test["fixed"], test["broken"]) for seed, test in tests.items()} == {
        "1": (fixed, broken),
        "2": (fixed, broken),
    }
    single = mcnemar(np.repeat([True, False], [broken, fixed]), np.repeat([False, True], [broken, fixed]))
    assert tests["1"]["p_value"] == pytest.approx(min(1, 2 * single.p_value))  # Holm's adjustment of two equal tests


def results() -> pd.DataFrame:
    rows = [
        (method, images, seed, accuracy + deviation, ratio)
        for method, images, accuracy, ratio in (
            ("probe", "10", 0.70, 0.1),
            ("probe", "all", 0.90, 0.2),
            ("finetuned", "10", 0.72, 0.3),
            ("finetuned", "all", 0.93, 2.0),
            ("random", "all", 0.80, 2.1),
            ("cnn", "10", 0.60, 0.2),
            ("cnn", "all", 0.94, 0.6),
            ("dnn", "10", 0.65, 0.1),
            ("dnn", "all", 0.91, 0.4),
        )
        for seed, deviation in ((1, -0.01), (2, 0.0), (3, 0.01))
    ]
    return pd.DataFrame(rows, columns=["method", "images", "seed", "accuracy", "ratio"])


def test_summary() -> None:
    table = summary.summarize(results().sample(frac=1, random_state=1))
    assert list(table["images"]) == ["10"] * 4 + ["all"] * 5
    assert list(table["method"])[4:] == list(summary.NAMES)
    (row,) = table.query("method == 'finetuned' and images == '10'").to_dict("records")
    assert (row["seeds"], row["accuracy"], row["deviation"]) == (3, pytest.approx(0.72), pytest.approx(0.01))
    comparison = COMPARISON | {"seeds": {"1": {"fixed": 30, "broken": 10, "p_value": 0.0022}}}
    lines = summary.markdown(table, comparison).splitlines()
    assert "| fine-tuned | 93.00% ± 1.00% | 3 | 2.00 |" in lines
    assert "| CNN | 60.0% ± 1.0% | 94.0% ± 1.0% |" in lines
    assert "| random weights | - | 80.0% ± 1.0% |" in lines
    assert "| fine-tuned minus CNN, points | -1.2 ± 0.3 | - |" in lines
    assert "| 1 | 30 | 10 | 0.0022 |" in lines


def test_summary_of_one_seed() -> None:
    text = summary.markdown(summary.summarize(results().query("method != 'random' or seed == 2")), COMPARISON)
    assert "| random weights | 80.00% | 1 | 2.10 |" in text
    assert "| random weights | - | 80.0% |" in text
    assert "nan" not in text


def test_training_times() -> None:
    """With all images, they include the computation of the features."""
    rows = [("probe", "all"), ("finetuned", "all"), ("random", "all"), ("probe", "10")]
    trained = pd.DataFrame(rows, columns=["method", "images"]).assign(accuracy=0.5, seconds=10)
    own = {name: [{"name": name, "seed": 1, "seconds": 5, "accuracy": 0.9}] for name in ("cnn", "dnn")}
    tutorial = [{"seconds": seconds} for seconds in (9, 10, 90)]
    costs = {"maps": 20, "features": 2, "mirrored": 30}
    collected = summary.collect(trained, costs, {"time_to_accuracy": {"tutorial": tutorial, **own}})
    assert collected.set_index(["method", "images"])["ratio"].to_dict() == {
        ("probe", "all"): 3.2,
        ("finetuned", "all"): 6.0,
        ("random", "all"): 1.0,
        ("probe", "10"): 1.0,
        ("cnn", "all"): 0.5,
        ("dnn", "all"): 0.5,
    }


def test_figures() -> None:
    table = summary.summarize(results())
    curves, costs = summary.draw_curves(table).axes[0], summary.draw_costs(table).axes[0]
    assert set(curves.get_legend_handles_labels()[1]) == set(summary.NAMES.values()) - {summary.NAMES["random"]}
    assert set(costs.get_legend_handles_labels()[1]) == set(summary.NAMES.values())
    (line,) = [container[0] for container in curves.containers if container.get_label() == "fine-tuned"]
    np.testing.assert_allclose(line.get_ydata().astype(float), [72, 93])


def test_pipeline() -> None:
    stages = read_yaml(DIRECTORY / "dvc.yaml")["stages"]
    transfer, own = (stages[name]["matrix"]["trial"] for name in ("train_transfer", "train_own"))
    assert {trial.partition("-")[0] for trial in transfer} == set(METHODS)
    assert {trial.partition("-")[0] for trial in transfer + own} == set(summary.NAMES)
    assert {f"{method}-{evaluate_all.TESTED}" for method in evaluate_all.COMPARED} < {*transfer, *own}
    assert set(read_yaml(DIRECTORY / "params.yaml")["all"]["single_seed"]) <= set(transfer)
