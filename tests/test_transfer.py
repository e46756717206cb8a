"""The transfer study, with a small network and small images."""

import os
import pickle
import sys
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from ruamel.yaml import YAML
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fashion import trials
from fashion.data import dataset
from fashion.data.dataset import Split
from fashion.errors import UserError
from fashion.evaluation.significance import mcnemar
from fashion.files import read_json, write_json
from fashion.models import training
from fashion.models.layers import FusedBatchNormalization
from fashion.params import load_params
from fashion.stores import FileStore
from fashion.trials import Trial
from fashion.validation import merged, read_yaml, validated
from studies.transfer import backbones, features, methods, summary, train
from studies.transfer.backbones import BACKBONES, Backbone
from studies.transfer.features import Inputs
from studies.transfer.params import Study
from tests.conftest import ROOT, Project, draw_lines, small_params

TRAIN, VALIDATION, TEST = Split(*draw_lines(240, 1)), Split(*draw_lines(90, 2)), Split(*draw_lines(60, 3))
SPLITS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
COMPARISON = {
    "base": "cnn",
    "head": "finetuned",
    "differences": {"10": {"mean": -0.012, "std": 0.003}},
    "seeds": {},
}
FIT = {
    "epochs": 8,
    "min_steps": 7,
    "batch_size": 20,
    "learning_rate": 0.01,
    "warmup_fraction": 0.1,
    "weight_decay": 0.0001,
    "label_smoothing": 0.1,
}
SMALL = {
    "seeds": [1, 2],
    "backbone": "small",
    "image_size": 32,
    "probe": {"C": [0.1, 0.0001, 1.0]},
    "finetuned": FIT,
    "random": FIT | {"image_size": 24, "epochs": 1, "min_steps": 2},
    "own": {
        "hard_examples": {"epoch_fraction": 1.0},
        "augmentation": {"flip": False, "translate": 0},
        "batch_size": 50,
        "epochs": 1,
    },
    "variants": {
        "probe-all": {"method": "probe", "images": "all", "seeds": [1]},
        "finetuned-10": {"method": "finetuned", "images": 10},
        "random-10": {"method": "random", "images": 10},
        "cnn-10": {"method": "cnn", "images": 10},
        "dnn-10": {"method": "dnn", "images": 10},
    },
}
DATA = {name: {"images.npy": name} for name in SPLITS}
PARAMS = load_params(ROOT / "params.yaml")
STORE = FileStore(Path("checkpoint.npz"))  # these trainings are too short to write it


def study(**changes: Any) -> Study:
    return validated(Study, merged(SMALL, changes), "params.yaml")


def trial(method: str) -> Trial:
    return next(trial for trial in train.declare(study(), PARAMS, DATA) if trial.model == method)


def small_network(size: int, weights: str | None) -> keras.Model:
    layers, kernel = keras.layers, keras.initializers.GlorotUniform(1 if weights else None)
    pixels = keras.Input((size, size, 3))
    x = layers.Conv2D(4, 4, 2, name="maps", kernel_initializer=kernel)(pixels)
    x = layers.DepthwiseConv2D(3, name="depthwise", depthwise_initializer=kernel)(x)
    x = layers.Conv2D(8, 1, name="pointwise", kernel_initializer=kernel)(x)
    x = layers.ReLU(6)(FusedBatchNormalization(momentum=1.0, name="normalization")(x))
    return keras.Model(pixels, layers.GlobalMaxPooling2D()(x))


@pytest.fixture(scope="module", autouse=True)
def small_backbone() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "small", Backbone(small_network, 1 / 128, -127 / 128, "maps"))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder for feature maps, the current one of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("transfer"))
        patch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", lambda _number: None)  # it is too late
        patch.setattr(features, "BATCH_SIZE", 25)  # so that the last batch is smaller
        yield features.FOLDER


@pytest.fixture(scope="module")
def inputs(folder: Path) -> Inputs:
    assert not folder.exists()
    return features.load(study(), SPLITS, "key")


def split(inputs: Inputs) -> tuple[keras.Model, keras.Model]:
    return backbones.split(inputs.backbone, TRAIN.image_shape, inputs.image_size, "imagenet")


def test_feature_maps(inputs: Inputs) -> None:
    images = {name: split.images for name, split in SPLITS.items()} | {"mirrored": TRAIN.images[:, :, ::-1]}
    frozen, _ = split(inputs)
    assert set(inputs.maps) == set(images)
    for name, maps in inputs.maps.items():
        assert maps.dtype == np.float16
        np.testing.assert_allclose(maps, frozen.predict(images[name], verbose=0), rtol=1e-3, atol=1e-3)
    assert 0 < inputs.seconds < 0.1


def test_feature_maps_are_computed_once(inputs: Inputs, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(features, "_compute", None)
        again = features.load(study(), SPLITS, "key")
    np.testing.assert_array_equal(again.maps["test"], inputs.maps["test"])
    (folder / "key" / "seconds.json").unlink()  # an interrupted computation
    (folder / "other").mkdir()
    features.load(study(), SPLITS, "key")
    assert {path.name for path in folder.rglob("*")} == {
        "key",
        "seconds.json",
        *(f"{name}.npy" for name in inputs.maps),
    }


def test_key_of_feature_maps() -> None:
    keys = [features.key(study(**changes), DATA) for changes in ({}, {"image_size": 33}, {"backbone": "other"})]
    keys.append(features.key(study(), DATA | {"test": {}}))
    assert len(set(keys)) == 4
    assert features.key(study(finetuned={"epochs": 3}), DATA) == keys[0]


def test_subset() -> None:
    indices = methods.subset(TRAIN.labels, 7, seed=1)
    np.testing.assert_array_equal(np.bincount(TRAIN.labels[indices]), [7, 7, 7])
    assert len(set(indices)) == 21
    np.testing.assert_array_equal(indices, methods.subset(TRAIN.labels, 7, seed=1))
    assert set(indices) != set(methods.subset(TRAIN.labels, 7, seed=2))
    np.testing.assert_array_equal(methods.subset(TRAIN.labels, "all", seed=1), np.arange(240))
    with pytest.raises(UserError, match="a class with 80 images, expected 81; use at most 80, or all"):
        methods.subset(TRAIN.labels, 81, seed=1)


def test_pack() -> None:
    correct = np.random.default_rng(1).random(10_000) < 0.9
    text = methods.pack(correct)
    assert len(text) < 1700
    np.testing.assert_array_equal(methods.unpack(text), correct)


def test_trials() -> None:
    declared = train.declare(study(), PARAMS, DATA)
    assert [str(trial) for trial in declared[:3]] == [
        "probe-all, seed 1",
        "finetuned-10, seed 1",
        "finetuned-10, seed 2",
    ]
    assert len({trial.key for trial in declared}) == len(set(declared)) == 9
    for changes, changed in (
        ({}, set()),
        ({"finetuned": {"epochs": 3}}, {"finetuned"}),
        ({"variants": {"probe-all": {"images": 20}}}, {"probe"}),
        ({"image_size": 48}, {"probe", "finetuned", "random"}),
        ({"own": {"epochs": 3}}, {"cnn", "dnn"}),
    ):
        others = train.declare(study(**changes), PARAMS, DATA)
        assert {new.model for new, old in zip(others, declared, strict=True) if new.key != old.key} == changed, changes
    assert {trial.key for trial in train.declare(study(), PARAMS, DATA | {"test": {}})}.isdisjoint(
        trial.key for trial in declared
    )
    with pytest.raises(UserError, match=r"models\.cnn\.lr: unknown key"):
        train.declare(study(own={"lr": 1.0}), PARAMS, DATA)


@pytest.mark.parametrize("method", ["probe", "finetuned", "random", "cnn", "dnn"])
def test_training(method: str, inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reproducible, and its results are those of the model."""
    monkeypatch.setattr(methods, "MIN_IMAGES", 100)
    function = methods.METHODS.get(method, methods.train_own)
    models: list[keras.Model] = []

    def record(*arguments: Any) -> tuple[keras.Model, int]:
        model, maps = function(*arguments)
        models.append(model)
        return model, maps

    monkeypatch.setitem(methods.METHODS, method, record)
    first, second = (methods.train(trial(method), inputs, STORE) for _ in range(2))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)
    for name, accuracy in (("validation", first["val_accuracy"]), ("test", first["accuracy"])):
        arrays = inputs.maps[name] if method in ("probe", "finetuned") else SPLITS[name].images
        predicted = models[0].predict(arrays, verbose=0).argmax(axis=1)
        assert accuracy == pytest.approx((predicted == SPLITS[name].labels).mean(), abs=1e-6)
    np.testing.assert_array_equal(methods.unpack(first["correct"])[:60], predicted == TEST.labels)


def test_times(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """They include the computation of the feature maps."""
    monkeypatch.setattr(methods, "time", SimpleNamespace(process_time=iter([10, 12.5]).__next__))
    monkeypatch.setattr(methods, "_fit", lambda network, *_: methods._with_classifier(network, inputs, "finetuned"))
    assert methods.train(trial("finetuned"), replace(inputs, seconds=0.1), STORE)["seconds"] == 2.5 + 2 * 30 * 0.1


def test_probe_is_the_best_logistic_regression(inputs: Inputs) -> None:
    generator = np.random.default_rng(1)  # noise makes it harder
    noisy = {name: (maps + generator.normal(0, 2, maps.shape)).astype(np.float16) for name, maps in inputs.maps.items()}
    inputs = replace(inputs, maps=noisy)
    indices = methods.subset(TRAIN.labels, 30, seed=1)
    model, maps = methods.probe(trial("probe"), inputs, indices, STORE)
    assert maps == 90 + 90
    _, trainable = split(inputs)
    train, validation = (
        np.asarray(trainable(inputs.maps[name].astype(np.float32), training=False)) for name in ("train", "validation")
    )
    fitted = {
        strength: make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000)).fit(
            train[indices], TRAIN.labels[indices]
        )
        for strength in study().probe.C
    }
    scores = {strength: pipeline.score(validation, VALIDATION.labels) for strength, pipeline in fitted.items()}
    assert len(set(scores.values())) > 1
    best = fitted[max(scores, key=scores.__getitem__)]
    probabilities = model.predict(inputs.maps["validation"], verbose=0)
    np.testing.assert_allclose(probabilities, best.predict_proba(validation), atol=5e-3)


def test_fine_tuning(inputs: Inputs) -> None:
    _, before = split(inputs)
    keras.utils.set_random_seed(1)
    after, maps = methods.finetune(trial("finetuned"), inputs, np.arange(240), STORE)
    assert maps == 480
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
    probabilities = after.predict(inputs.maps["validation"], verbose=0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (probabilities.argmax(axis=1) == VALIDATION.labels).mean() > 0.6  # chance is 0.33


def test_mirrored_inputs(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "_fit", lambda _network, _trial, load, *_: load)
    indices, mirrored = np.array([5, 2, 5]), np.array([False, True, True])
    maps, images = (
        method(trial(name), inputs, indices, STORE)[0](indices, mirrored)
        for name, method in (("finetuned", methods.finetune), ("random", methods.train_random))
    )
    assert maps.dtype == np.float32
    np.testing.assert_array_equal(maps[0], inputs.maps["train"][5].astype(np.float32))
    np.testing.assert_array_equal(maps[1:], inputs.maps["mirrored"][[2, 5]].astype(np.float32))
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
    methods._fit(keras.Model(vector, keras.layers.ReLU()(vector)), trial("finetuned"), load, inputs, indices)
    assert len(order) == 8 * len(indices)
    assert set(np.bincount(order, minlength=240)[indices]) == {8}
    assert 0.4 < np.mean(flips) < 0.6


def test_momentum_of_random_weights(inputs: Inputs) -> None:
    model, maps = methods.train_random(trial("random"), inputs, np.arange(240), STORE)
    momenta = [layer.momentum for layer in methods._layers(model) if layer.name == "normalization"]
    assert (momenta, maps) == ([methods.MOMENTUM], 0)


def test_few_images_are_repeated(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(_network: Any, _params: Any, train: Split, validation: Split, store: FileStore) -> tuple[Any, None]:
        return (train, validation, store), None

    monkeypatch.setattr(training, "train", fit)
    monkeypatch.setattr(methods, "MIN_IMAGES", 100)
    monkeypatch.setattr(methods, "MAX_VALIDATION_IMAGES", 40)
    (train, validation, store), _ = methods.train_own(trial("dnn"), inputs, np.arange(30), STORE)
    np.testing.assert_array_equal(train.images, TRAIN.images[np.tile(np.arange(30), 4)])
    np.testing.assert_array_equal(validation.labels, VALIDATION.labels[:40])
    assert store is STORE


def test_comparison() -> None:
    """Numbers of images and seeds that only one of the two methods has, or with one seed, are left out."""
    generator = np.random.default_rng(1)
    rates = {("cnn", "100"): 0.8, ("finetuned", "100"): 0.9, ("cnn", "10"): 0.6, ("finetuned", "10"): 0.5}
    correct = {(*name, seed): generator.random(401) < rate for name, rate in rates.items() for seed in (1, 2)}
    one_seed = [("finetuned", "all"), ("probe", "100"), ("finetuned", "50"), ("cnn", "50")]
    correct |= {(*name, 1): correct["finetuned", "100", 1] for name in one_seed}
    correct["finetuned", "100", 3] = correct["finetuned", "100", 1]
    rows = [(*name, flags.mean(), methods.pack(flags)) for name, flags in correct.items()]
    comparison = train.compare(pd.DataFrame(rows, columns=["method", "images", "seed", "accuracy", "correct"]))
    differences = [correct["finetuned", "10", seed].mean() - correct["cnn", "10", seed].mean() for seed in (1, 2)]
    assert set(comparison["differences"]) == {"10", "100"}
    assert comparison["differences"]["10"] == {
        "mean": pytest.approx(np.mean(differences)),
        "std": pytest.approx(np.std(differences, ddof=1)),
    }
    tests = {seed: mcnemar(correct["cnn", "100", seed], correct["finetuned", "100", seed]) for seed in (1, 2)}
    smaller, larger = sorted(test.p_value for test in tests.values())
    adjusted = {smaller: 2 * smaller, larger: max(2 * smaller, larger)}  # Holm
    assert comparison["seeds"] == {
        seed: {"fixed": test.fixed, "broken": test.broken, "p_value": pytest.approx(adjusted[test.p_value])}
        for seed, test in tests.items()
    }


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
    """They are relative to the CNN on all images, of the seeds of this study."""
    rows = [("probe", "all", 1, 20), ("finetuned", "10", 2, 5), ("finetuned", "10", 3, 5)]
    trained = pd.DataFrame(rows, columns=["method", "images", "seed", "seconds"]).assign(accuracy=0.5)
    own = [("cnn", 1, 9), ("cnn", 2, 10), ("cnn", 3, 90), ("cnn", 4, 1000), ("dnn", 1, 5), ("deep", 1, 500)]
    collected = summary.collect(trained, pd.DataFrame(own, columns=["model", "seed", "seconds"]).assign(accuracy=0.9))
    assert list(collected[["method", "images", "seed", "ratio"]].itertuples(index=False, name=None)) == [
        ("probe", "all", 1, 2.0),
        ("finetuned", "10", 2, 0.5),
        ("finetuned", "10", 3, 0.5),
        ("cnn", "all", 1, 0.9),
        ("cnn", "all", 2, 1.0),
        ("cnn", "all", 3, 9.0),
        ("dnn", "all", 1, 0.5),
    ]


def test_figures() -> None:
    table = summary.summarize(results())
    curves, costs = summary.draw_curves(table).axes[0], summary.draw_costs(table).axes[0]
    assert set(curves.get_legend_handles_labels()[1]) == set(summary.NAMES.values()) - {summary.NAMES["random"]}
    assert set(costs.get_legend_handles_labels()[1]) == set(summary.NAMES.values())
    (line,) = [container[0] for container in curves.containers if container.get_label() == "fine-tuned"]
    np.testing.assert_allclose(line.get_ydata().astype(float), [72, 93])


def test_params() -> None:
    path = ROOT / "studies" / "transfer" / "params.yaml"
    declared = train.declare(validated(Study, read_yaml(path), str(path)), PARAMS, DATA)
    assert {trial.model for trial in declared} == set(summary.NAMES)
    assert all(trial.variant == f"{trial.model}-{trial.settings.images}" for trial in declared)
    assert {f"{method}-{train.TESTED}" for method in train.COMPARED} < {trial.variant for trial in declared}


@pytest.mark.slow
@pytest.mark.usefixtures("folder")  # small batches, and no change of TensorFlow's threads
def test_study(
    tmp_path: Path, raw_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stage trains all variants; run again, it trains nothing. studies/ladder is tested with Ray."""
    for name, current in {**SPLITS, "train": Split(*draw_lines(330, 1))}.items():
        dataset.save(current, tmp_path / "data" / name)
    YAML().dump(small_params(raw_folder), tmp_path / "params.yaml")
    variants: dict[str, Any] = {f"{method}-100": {"method": method, "images": 100} for method in ("cnn", "finetuned")}
    variants |= {f"{method}-all": {"method": method, "images": "all", "seeds": [1]} for method in ("probe", "random")}
    YAML().dump({**merged(SMALL, {"finetuned": {"epochs": 1}}), "variants": variants}, tmp_path / "study.yaml")
    (tmp_path / "seeds.csv").write_text("model,seed,accuracy,seconds\ncnn,1,0.9,10\ndnn,1,0.8,5\n")

    def run_here(missing: Collection[Trial], inputs: Inputs, function: Any, *_: Any) -> None:
        pickle.dumps((function, inputs))  # as Ray does
        for one in missing:
            write_json(one.result, function(one, inputs, STORE))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trials, "_run", run_here)
    monkeypatch.setattr(methods, "MIN_IMAGES", 100)
    stage = ["study.yaml", *(f"data/{name}" for name in SPLITS), "results.csv", "comparison.json"]
    monkeypatch.setattr(sys, "argv", ["train", *stage])
    train.main()
    first = (tmp_path / "results.csv").read_bytes()
    (tmp_path / ".dvc" / "tmp" / "transfer").rename(tmp_path / "scratch")  # needed by missing trials only
    capsys.readouterr()
    train.main()
    assert "6 of 6 trials already have results" in capsys.readouterr().out
    assert (tmp_path / "results.csv").read_bytes() == first
    results = pd.read_csv(tmp_path / "results.csv")
    assert list(results) == ["method", "images", "seed", "val_accuracy", "accuracy", "seconds"]
    assert list(results["method"]) == ["cnn", "cnn", "finetuned", "finetuned", "probe", "random"]
    assert (results["seconds"] > 0).all()
    assert list(read_json(tmp_path / "comparison.json")["seeds"]) == ["1", "2"]
    project = Project(tmp_path, {**os.environ, "PYTHONPATH": str(ROOT)})
    words = ("results.csv", "comparison.json", "seeds.csv", "table.csv", "curves.png", "costs.png")
    table = project.run(sys.executable, "-m", "studies.transfer.summary", *words).stdout
    assert "| CNN | 90.00% | 1 | 1.00 |" in table
