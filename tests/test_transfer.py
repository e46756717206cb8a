"""The parts of the transfer study do what they say, on small networks and images."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fashion.data import dataset
from fashion.data.dataset import Split
from fashion.errors import UserError
from fashion.files import read_json, write_json
from fashion.models import archive
from fashion.models.layers import FusedBatchNormalization
from fashion.params import load_params
from studies.transfer import assemble, features, judge, methods, summary, train
from studies.transfer.backbones import BACKBONES, Backbone
from studies.transfer.methods import METHODS, Inputs
from tests.conftest import ROOT, SHAPE, draw_lines

STUDY = ROOT / "studies" / "transfer"
TRAIN, VALIDATION, TEST = Split(*draw_lines(240, 1)), Split(*draw_lines(90, 2)), Split(*draw_lines(60, 3))
SETTINGS = {
    "epochs": 2,
    "least_steps": 7,
    "batch_size": 20,
    "learning_rate": 0.01,
    "learning_rate_of_few": 0.01,
    "warmup": 0.1,
    "weight_decay": 0.0001,
    "label_smoothing": 0.1,
}


def run(main: Callable[[], None], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["stage", *map(str, arguments)])
    main()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the archives of a small network in two parts."""
    folder = tmp_path_factory.mktemp("parts")
    keras.utils.set_random_seed(1)
    layers = keras.layers
    front = [layers.Reshape((*SHAPE, 1)), layers.Rescaling(1 / 128, -127 / 128), layers.Conv2D(4, 4, 2)]
    tail = [layers.Conv2D(8, 3), FusedBatchNormalization(), layers.ReLU(6), layers.GlobalMaxPooling2D()]
    shape, dtype = SHAPE, "uint8"
    for name, stack in (("front", front), ("tail", tail)):
        outputs = images = keras.Input(shape, dtype=dtype)
        for layer in stack:
            outputs = layer(outputs)
        model = keras.Model(images, outputs, name=name)
        archive.save(model, folder / f"{name}.keras")
        shape, dtype = model.output_shape[1:], "float32"
    return folder / "front.keras", folder / "tail.keras"


@pytest.fixture(scope="module")
def inputs(parts: tuple[Path, Path]) -> Inputs:
    """Return what the methods train with."""
    front, tail = (archive.load(part) for part in parts)
    splits = TRAIN, VALIDATION
    maps = [
        np.stack([front.predict(images, verbose=0) for images in (split.images, split.images[:, :, ::-1])]).astype("f2")
        for split in splits
    ]
    computed = [tail.predict(of[0].astype("f4"), verbose=0).astype("f2") for of in maps]
    scratch = {"least_images": 100, "changes": {"selection": {"share": 1.0}, "batch_size": 20, "epochs": 2}}
    study = {
        "all": {"backbone": "efficientnet_lite0", "size": 32, "seeds": [1, 2]},
        "probe": {"strengths": [0.0001, 0.1, 1.0]},
        "finetuned": SETTINGS,
        "random": SETTINGS | {"epochs": 1, "least_steps": 2},
        "scratch": scratch,
    }
    params = load_params(ROOT / "params.yaml")
    models = {"cnn": params.cnn, "dnn": params.dnn}
    return Inputs(TRAIN, VALIDATION, maps[0], maps[1], computed[0], computed[1], parts[1], models, study)


def test_so_many_images_of_each_class_are_taken_the_same_for_every_method() -> None:
    taken = train.take(TRAIN.labels, "7", seed=1)
    np.testing.assert_array_equal(np.bincount(TRAIN.labels[taken]), [7, 7, 7])
    assert len(set(taken)) == 21
    np.testing.assert_array_equal(taken, train.take(TRAIN.labels, "7", seed=1))
    assert set(taken) != set(train.take(TRAIN.labels, "7", seed=2))
    np.testing.assert_array_equal(train.take(TRAIN.labels, "all", seed=1), np.arange(240))


@pytest.mark.parametrize("images", ["81", "0", "-3", "many", "1.5"])
def test_other_numbers_of_images_are_refused(images: str) -> None:
    with pytest.raises(UserError, match="80"):
        train.take(TRAIN.labels, images, seed=1)


def test_maps_and_features_are_those_of_the_network(
    parts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """They are written batch by batch, the last of which is smaller."""
    monkeypatch.setattr(features, "BATCH", 25)
    dataset.save(TEST, tmp_path / "test.npz")
    written = [tmp_path / name for name in ("maps.npy", "features.npy", "cost.json")]
    run(features.main, monkeypatch, *parts, tmp_path / "test.npz", *written)
    front, tail = (archive.load(part) for part in parts)
    maps, given = np.load(written[0], mmap_mode="r"), np.load(written[1])
    assert maps.dtype == given.dtype == np.float16
    for stored, images in zip(maps, (TEST.images, TEST.images[:, :, ::-1]), strict=True):
        np.testing.assert_allclose(stored, front.predict(images, verbose=0), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        given, tail.predict(front.predict(TEST.images, verbose=0), verbose=0), rtol=1e-3, atol=1e-3
    )
    assert read_json(written[2])["seconds"] > 0
    said = capfd.readouterr()
    assert "test, mirrored: 60 images" in said.out
    assert "AutoGraph" not in said.err


def test_the_probe_is_the_logistic_regression_that_does_best_on_validation(inputs: Inputs) -> None:
    taken = train.take(TRAIN.labels, "30", seed=1)
    model, accuracy = methods.probe(inputs, taken, seed=1)
    known, unknown = (values.astype(np.float32) for values in (inputs.train_features, inputs.validation_features))
    fitted = {
        strength: make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000)).fit(
            known[taken], TRAIN.labels[taken]
        )
        for strength in inputs.study["probe"]["strengths"]
    }
    scores = {strength: each.score(unknown, VALIDATION.labels) for strength, each in fitted.items()}
    assert len(set(scores.values())) > 1
    best = fitted[max(scores, key=scores.__getitem__)]
    np.testing.assert_allclose(model.predict(unknown, verbose=0), best.predict_proba(unknown), atol=1e-3)
    assert accuracy == pytest.approx(max(scores.values()))
    assert accuracy == pytest.approx((model.predict(unknown, verbose=0).argmax(axis=1) == VALIDATION.labels).mean())


def test_fine_tuning_goes_on_from_the_pretrained_weights(inputs: Inputs) -> None:
    taken = train.take(TRAIN.labels, "30", seed=1)
    model, accuracy = methods.finetuned(inputs, taken, seed=1)
    before = archive.load(inputs.tail).get_weights()
    moved = [np.abs(new - old).max() for old, new in zip(before, model.get_weights()[: len(before)], strict=True)]
    assert min(moved) > 0
    assert moved[0] < 0.2  # the convolution's kernel, in eight small steps
    answers = model.predict(inputs.validation_maps[0].astype(np.float32), verbose=0)
    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-5)
    assert accuracy == pytest.approx((answers.argmax(axis=1) == VALIDATION.labels).mean())


def test_few_images_have_a_learning_rate_of_their_own(inputs: Inputs) -> None:
    still = {"learning_rate": 0.0, "weight_decay": 0.0, "learning_rate_of_few": 0.01, "epochs": 1, "least_steps": 3}
    changed = replace(inputs, study={**inputs.study, "finetuned": SETTINGS | still})
    before = archive.load(inputs.tail).get_weights()[0]
    for images, moves in (("10", True), ("all", False)):  # two and twelve steps an epoch
        model, _ = methods.finetuned(changed, train.take(TRAIN.labels, images, seed=1), seed=1)
        assert (np.abs(model.get_weights()[0] - before).max() > 0) == moves


def test_fine_tuning_learns_and_gives_the_same_weights_every_time(inputs: Inputs) -> None:
    longer = replace(inputs, study={**inputs.study, "finetuned": SETTINGS | {"least_steps": 200}})
    (one, accuracy), (other, _) = (methods.finetuned(longer, np.arange(240), seed=1) for _ in range(2))
    assert accuracy > 0.6
    assert not hasattr(one, "optimizer")  # which would be written with the model, and is twice as large
    for before, after in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_training_sees_the_images_taken_equally_often_and_mirrors_half(inputs: Inputs) -> None:
    seen: list[int] = []
    flips: list[bool] = []

    def load(indices: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        seen.extend(indices)
        flips.extend(mirrored)
        return np.asarray(TRAIN.images[indices])

    images = keras.Input(SHAPE, dtype="uint8")
    longer = replace(inputs, study={"finetuned": SETTINGS | {"least_steps": 100}})
    taken = np.arange(0, 240, 3)
    methods._fit(keras.Model(images, keras.layers.Flatten()(images)), "finetuned", load, longer, taken, seed=1)
    assert len(seen) == 40 + 2000  # Keras looks at the first two batches before it trains
    counts = np.bincount(seen[40:], minlength=240)
    assert set(np.flatnonzero(counts)) == set(taken)
    assert counts[taken].max() - counts[taken].min() <= 1
    assert 0.4 < np.mean(flips) < 0.6


def small_network(size: int, weights: str | None) -> keras.Model:
    assert weights is None
    pixels = keras.Input((size, size, 3))
    maps = keras.layers.Conv2D(4, 4, 2, name="maps")(pixels)
    return keras.Model(pixels, keras.layers.GlobalMaxPooling2D()(keras.layers.Conv2D(8, 3)(maps)))


@pytest.mark.parametrize("method", ["random", "cnn", "dnn"])
def test_what_starts_from_random_weights_takes_raw_pixels(
    method: str, inputs: Inputs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = Backbone(small_network, 1 / 128, -127 / 128, "maps")
    monkeypatch.setitem(BACKBONES, "efficientnet_lite0", small)
    model, accuracy = METHODS[method](inputs, train.take(TRAIN.labels, "10", seed=1), 1)
    archive.save(model, tmp_path / "model.keras")
    answers = archive.load(tmp_path / "model.keras").predict(VALIDATION.images, verbose=0)
    assert answers.shape == (90, 3)
    assert accuracy == pytest.approx((answers.argmax(axis=1) == VALIDATION.labels).mean())


def test_the_assembled_network_is_its_parts_one_after_the_other(
    parts: tuple[Path, Path], inputs: Inputs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model, _ = methods.finetuned(inputs, train.take(TRAIN.labels, "10", seed=1), seed=1)
    archive.save(model, tmp_path / "1.keras")
    run(assemble.main, monkeypatch, parts[0], tmp_path / "1.keras", tmp_path / "finetuned" / "model.keras")
    whole = archive.load(tmp_path / "finetuned" / "model.keras")
    assert whole.name == "finetuned"
    expected = model.predict(archive.load(parts[0]).predict(TEST.images, verbose=0), verbose=0)
    np.testing.assert_allclose(whole.predict(TEST.images, verbose=0), expected, atol=1e-5)


def test_models_are_judged_by_what_they_take_and_compared_seed_by_seed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Models that always answer the same class are right as often as the class occurs."""
    taking = {"cnn-100": TEST.images, "finetuned-100": np.zeros((2, 60, 3, 3, 2)), "probe-all": np.zeros((60, 5))}
    for (name, given), answer in zip(taking.items(), (0, 1, 2), strict=True):
        shape = given.shape[2:] if given.ndim == 5 else given.shape[1:]
        dense = keras.layers.Dense(3, activation="softmax", kernel_initializer="zeros")
        model = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), dense])
        dense.bias.assign(np.eye(3)[answer])
        for seed in (1, 2):
            archive.save(model, tmp_path / "trials" / name / f"{seed}.keras")
        trials = [{"seed": seed, "val_accuracy": 0.5, "seconds": 1.0} for seed in (1, 2)]
        write_json(tmp_path / "trials" / name / "trials.json", trials)
    test = TEST.take(np.r_[0:60:3, 1:60:3, 1:20:3, 2:5])
    dataset.save(test, tmp_path / "test.npz")
    np.save(tmp_path / "maps.npy", taking["finetuned-100"][:, : len(test.labels)].astype(np.float16))
    np.save(tmp_path / "features.npy", taking["probe-all"][: len(test.labels)].astype(np.float16))
    names = ("trials", "test.npz", "maps.npy", "features.npy", "results.csv", "comparison.json")
    run(judge.main, monkeypatch, *(tmp_path / name for name in names))
    results = pd.read_csv(tmp_path / "results.csv", dtype={"images": str}).set_index(["method", "images", "seed"])
    shares = np.bincount(test.labels) / len(test.labels)
    for place, share in zip((("cnn", "100"), ("finetuned", "100"), ("probe", "all")), shares, strict=True):
        assert results.loc[(*place, 2), "accuracy"] == pytest.approx(share)
    found = read_json(tmp_path / "comparison.json")["seeds"]
    fixed, broken = int((test.labels == 1).sum()), int((test.labels == 0).sum())
    assert fixed != broken
    assert {seed: (each["fixed"], each["broken"]) for seed, each in found.items()} == {
        "1": (fixed, broken),
        "2": (fixed, broken),
    }


def trials() -> pd.DataFrame:
    rows = [
        (method, images, seed, accuracy + spread, ratio)
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
        for seed, spread in ((1, -0.01), (2, 0.0), (3, 0.01))
    ]
    return pd.DataFrame(rows, columns=["method", "images", "seed", "accuracy", "ratio"])


def test_the_summary_has_means_and_deviations_over_seeds() -> None:
    table = summary.summarize(trials().sample(frac=1, random_state=1))
    assert list(table["images"]) == ["10"] * 4 + ["all"] * 5
    assert list(table["method"])[4:] == list(summary.NAMES)
    (row,) = table.query("method == 'finetuned' and images == '10'").to_dict("records")
    assert (row["seeds"], row["accuracy"], row["deviation"]) == (3, pytest.approx(0.72), pytest.approx(0.01))
    comparison = {"seeds": {"1": {"fixed": 30, "broken": 10, "p_value": 0.0022}}}
    text = summary.markdown(table, comparison).splitlines()
    assert "| fine-tuned | 93.00% ± 1.00% | 3 | 2.00 |" in text
    assert "| the project's CNN | 60.0% ± 1.0% | 94.0% ± 1.0% |" in text
    assert "| the same from random weights | - | 80.0% ± 1.0% |" in text
    assert "| 1 | 30 | 10 | 0.0022 |" in text


def test_one_seed_has_no_deviation() -> None:
    once = trials().query("method != 'random' or seed == 2")
    text = summary.markdown(summary.summarize(once), {"seeds": {}})
    assert "| the same from random weights | 80.00% | 1 | 2.10 |" in text
    assert "| the same from random weights | - | 80.0% |" in text
    assert "nan" not in text


def test_the_figures_show_every_method() -> None:
    table = summary.summarize(trials())
    curves, costs = summary.draw_curves(table).axes[0], summary.draw_costs(table).axes[0]
    assert set(curves.get_legend_handles_labels()[1]) == set(summary.NAMES.values()) - {summary.NAMES["random"]}
    assert set(costs.get_legend_handles_labels()[1]) == set(summary.NAMES.values())
    (line,) = [each[0] for each in curves.containers if each.get_label() == "fine-tuned"]
    np.testing.assert_allclose(line.get_ydata().astype(float), [72, 93])


def test_the_readme_says_what_the_study_found() -> None:
    table = pd.read_csv(STUDY / "table.csv", dtype={"images": str})
    assert summary.markdown(table.fillna(0), read_json(STUDY / "comparison.json")) in (STUDY / "README.md").read_text()


def test_the_pipeline_trains_every_method_of_the_study() -> None:
    stages: dict[str, Any] = yaml.safe_load((STUDY / "dvc.yaml").read_text())["stages"]
    few, once = (set(stages[name]["matrix"]["method"]) for name in ("train", "train_once"))
    assert few | once == set(METHODS) == set(summary.NAMES)
    assert all(name.partition("-")[0] in few for name in judge.COMPARED)
