"""The parts of the transfer study do what they say, on small networks and images."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
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
from fashion.evaluation.significance import mcnemar
from fashion.files import read_json, write_json
from fashion.models import saving
from fashion.models.layers import FusedBatchNormalization
from studies.transfer import assemble, features, judge, methods, scratch, summary, transferred, trials
from studies.transfer.backbones import BACKBONES, Backbone
from studies.transfer.methods import METHODS, Inputs
from tests.conftest import ROOT, SHAPE, draw_lines

STUDY = ROOT / "studies" / "transfer"
TRAIN, VALIDATION, TEST = Split(*draw_lines(240, 1)), Split(*draw_lines(90, 2)), Split(*draw_lines(60, 3))
COMPARISON = {
    "base": "cnn",
    "head": "finetuned",
    "differences": {"10": {"mean": -0.012, "std": 0.003}},
    "seeds": {},
}
SETTINGS = {
    "epochs": 2,
    "least_steps": 7,
    "batch_size": 20,
    "learning_rate": 0.01,
    "warmup": 0.1,
    "weight_decay": 0.0001,
    "label_smoothing": 0.1,
}
STUDIED = {
    "all": {"backbone": "efficientnet_lite0", "size": 32, "seeds": [1, 2], "once": ["probe-30"]},
    "probe": {"strengths": [0.1, 0.0001, 1.0]},
    "finetuned": SETTINGS,
    "random": SETTINGS | {"size": 24, "epochs": 1, "least_steps": 2},
    "scratch": {"least_images": 100, "changes": {"selection": {"share": 1.0}, "batch_size": 20, "epochs": 2}},
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
        saving.save(model, folder / f"{name}.keras")
        shape, dtype = model.output_shape[1:], "float32"
    return folder / "front.keras", folder / "tail.keras"


@pytest.fixture(scope="module")
def inputs(parts: tuple[Path, Path]) -> Inputs:
    """Return what the methods train with."""
    front, tail = (saving.load(part) for part in parts)
    splits = TRAIN, VALIDATION
    maps = [front.predict(split.images, verbose=0).astype("f2") for split in splits]
    mirrored = front.predict(TRAIN.images[:, :, ::-1], verbose=0).astype("f2")
    computed = [tail.predict(of.astype("f4"), verbose=0).astype("f2") for of in maps]
    return Inputs(TRAIN, VALIDATION, maps[0], mirrored, maps[1], computed[0], computed[1], parts[1], STUDIED)


def test_so_many_images_of_each_class_are_taken_the_same_for_every_method() -> None:
    taken = trials.take(TRAIN.labels, "7", seed=1)
    np.testing.assert_array_equal(np.bincount(TRAIN.labels[taken]), [7, 7, 7])
    assert len(set(taken)) == 21
    np.testing.assert_array_equal(taken, trials.take(TRAIN.labels, "7", seed=1))
    assert set(taken) != set(trials.take(TRAIN.labels, "7", seed=2))
    np.testing.assert_array_equal(trials.take(TRAIN.labels, "all", seed=1), np.arange(240))


@pytest.mark.parametrize("images", ["81", "0", "-3", "many", "1.5"])
def test_other_numbers_of_images_are_refused(images: str) -> None:
    with pytest.raises(UserError, match="80"):
        trials.take(TRAIN.labels, images, seed=1)


def test_maps_and_features_are_those_of_the_network(
    parts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """They are written batch by batch, the last of which is smaller."""
    monkeypatch.setattr(features, "BATCH", 25)
    dataset.save(TEST, tmp_path / "test.npz")
    written = [tmp_path / name for name in ("maps.npy", "features.npy", "cost.json", "mirrored.npy")]
    run(features.main, monkeypatch, *parts, tmp_path / "test.npz", *written[:3], "--mirrored", written[3])
    front, tail = (saving.load(part) for part in parts)
    given = np.load(written[1])
    for path, images in ((written[0], TEST.images), (written[3], TEST.images[:, :, ::-1])):
        maps = np.load(path)
        assert maps.dtype == given.dtype == np.float16
        np.testing.assert_allclose(maps, front.predict(images, verbose=0), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        given, tail.predict(front.predict(TEST.images, verbose=0), verbose=0), rtol=1e-3, atol=1e-3
    )
    assert set(read_json(written[2])) == {"maps", "features", "mirrored"}
    said = capfd.readouterr()
    assert "mirrored: 60 images" in said.out
    assert "AutoGraph" not in said.err


def test_the_probe_is_the_logistic_regression_that_does_best_on_validation(inputs: Inputs) -> None:
    taken = trials.take(TRAIN.labels, "30", seed=1)
    model, accuracy = methods.probe(inputs, taken, 1)
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
    taken = trials.take(TRAIN.labels, "30", seed=1)
    model, accuracy = methods.finetuned(inputs, taken, seed=1)
    before = saving.load(inputs.tail).get_weights()
    moved = [np.abs(new - old).max() for old, new in zip(before, model.get_weights()[: len(before)], strict=True)]
    assert min(moved) > 0
    assert moved[0] < 0.2  # the convolution's kernel, in ten small steps
    answers = model.predict(inputs.validation_maps.astype(np.float32), verbose=0)
    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-5)
    assert not hasattr(model, "optimizer")  # which would be written with the model, and is twice as large
    assert accuracy == pytest.approx((answers.argmax(axis=1) == VALIDATION.labels).mean())


def test_fine_tuning_leaves_depthwise_kernels_and_follows_the_statistics_of_its_images(
    inputs: Inputs, tmp_path: Path
) -> None:
    maps = keras.Input(inputs.train_maps.shape[1:])
    deep = keras.layers.DepthwiseConv2D(3, name="deep")(maps)
    norm = FusedBatchNormalization(momentum=1.0, name="norm")(deep)
    saving.save(keras.Model(maps, keras.layers.GlobalMaxPooling2D()(norm)), tmp_path / "tail.keras")
    model, _ = methods.finetuned(replace(inputs, tail=tmp_path / "tail.keras"), np.arange(240), seed=1)
    before = saving.load(tmp_path / "tail.keras")
    np.testing.assert_array_equal(model.get_layer("deep").kernel, before.get_layer("deep").kernel)
    moved = np.abs(model.get_layer("norm").moving_mean - before.get_layer("norm").moving_mean)
    assert moved.min() > 0  # though the network came with statistics that never move


def test_fine_tuning_learns_from_both_orientations(inputs: Inputs, tmp_path: Path) -> None:
    """From one of them alone, something else comes out."""

    def trained(name: str, given: Inputs) -> bytes:
        found = {"finetuned": partial(methods.finetuned, given)}
        trials.run(tmp_path / name / "finetuned-all", found, TRAIN.labels, STUDIED)
        return (tmp_path / name / "finetuned-all" / "1.keras").read_bytes()

    both = trained("both", inputs)
    assert trained("again", inputs) == both
    assert trained("plain", replace(inputs, mirrored_maps=inputs.train_maps)) != both
    assert trained("mirrored", replace(inputs, train_maps=inputs.mirrored_maps)) != both


def test_trials_are_made_with_every_seed_and_are_the_same_every_time(inputs: Inputs, tmp_path: Path) -> None:
    longer = replace(inputs, study={**STUDIED, "finetuned": SETTINGS | {"least_steps": 200}})
    for folder in ("one", "other"):
        found = {"finetuned": partial(methods.finetuned, longer)}
        trials.run(tmp_path / folder / "finetuned-all", found, TRAIN.labels, STUDIED)
    made = read_json(tmp_path / "one" / "finetuned-all" / "trials.json")
    assert [trial["seed"] for trial in made] == [1, 2]
    for trial in made:
        assert trial["val_accuracy"] > 0.6
        one, other = (tmp_path / folder / "finetuned-all" / f"{trial['seed']}.keras" for folder in ("one", "other"))
        assert one.read_bytes() == other.read_bytes()


def test_stages_train_what_the_name_of_their_folder_says(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, split in (("train", TRAIN), ("validation", VALIDATION)):
        dataset.save(split, tmp_path / f"{name}.npz")
    for name in transferred.COMPUTED:
        np.save(tmp_path / f"{name}.npy", getattr(inputs, name))
    splits = [tmp_path / f"{name}.npz" for name in ("train", "validation")]
    computed = [tmp_path / f"{name}.npy" for name in transferred.COMPUTED]
    for module in (transferred, scratch):
        monkeypatch.setattr(module, "read_yaml", lambda _path: STUDIED)
    run(transferred.main, monkeypatch, *splits, *computed, inputs.tail, tmp_path / "trials" / "probe-30")
    run(scratch.main, monkeypatch, *splits, tmp_path / "trials" / "dnn-30")
    for name, seeds in (("probe-30", [1]), ("dnn-30", [1, 2])):
        assert [trial["seed"] for trial in read_json(tmp_path / "trials" / name / "trials.json")] == seeds
        assert all((tmp_path / "trials" / name / f"{seed}.keras").exists() for seed in seeds)
    with pytest.raises(UserError, match="no method cnn; there are probe, finetuned, random"):
        run(transferred.main, monkeypatch, *splits, *computed, inputs.tail, tmp_path / "trials" / "cnn-30")


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
    assert len(seen) == 2000
    counts = np.bincount(seen, minlength=240)
    assert set(np.flatnonzero(counts)) == set(taken)
    assert counts[taken].max() - counts[taken].min() <= 1
    assert 0.4 < np.mean(flips) < 0.6


def small_network(size: int, weights: str | None) -> keras.Model:
    assert weights is None
    pixels = keras.Input((size, size, 3))
    maps = keras.layers.Conv2D(4, 4, 2, name="maps")(pixels)
    normalized = FusedBatchNormalization(momentum=0.99, name="norm")(keras.layers.Conv2D(8, 3)(maps))
    return keras.Model(pixels, keras.layers.GlobalMaxPooling2D()(normalized))


def test_a_network_from_random_weights_takes_raw_pixels(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = Backbone(small_network, 1 / 128, -127 / 128, "maps")
    monkeypatch.setitem(BACKBONES, "efficientnet_lite0", small)
    model, accuracy = methods.random(inputs, trials.take(TRAIN.labels, "10", seed=1), 1)
    norms = [layer for layer in methods._layers(model) if layer.name == "norm"]
    assert [norm.momentum for norm in norms] == [methods.MOMENTUM]
    saving.save(model, tmp_path / "model.keras")
    answers = saving.load(tmp_path / "model.keras").predict(VALIDATION.images, verbose=0)
    assert answers.shape == (90, 3)
    assert accuracy == pytest.approx((answers.argmax(axis=1) == VALIDATION.labels).mean())


def test_the_assembled_network_is_its_parts_one_after_the_other(
    parts: tuple[Path, Path], inputs: Inputs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model, _ = methods.finetuned(inputs, trials.take(TRAIN.labels, "10", seed=1), seed=1)
    saving.save(model, tmp_path / "1.keras")
    run(assemble.main, monkeypatch, parts[0], tmp_path / "1.keras", tmp_path / "finetuned" / "model.keras")
    whole = saving.load(tmp_path / "finetuned" / "model.keras")
    assert whole.name == "finetuned"
    expected = model.predict(saving.load(parts[0]).predict(TEST.images, verbose=0), verbose=0)
    np.testing.assert_allclose(whole.predict(TEST.images, verbose=0), expected, atol=1e-5)


def test_models_are_judged_by_what_they_take_and_compared_seed_by_seed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Models that always answer the same class are right as often as the class occurs."""
    taking = {"cnn-100": TEST.images, "finetuned-100": np.zeros((60, 3, 3, 2)), "probe-all": np.zeros((60, 5))}
    for (name, given), answer in zip(taking.items(), (0, 1, 2), strict=True):
        dense = keras.layers.Dense(3, activation="softmax", kernel_initializer="zeros")
        model = keras.Sequential([keras.Input(given.shape[1:]), keras.layers.Flatten(), dense])
        dense.bias.assign(np.eye(3)[answer])
        for seed in (1, 2):
            saving.save(model, tmp_path / "trials" / name / f"{seed}.keras")
        made = [{"seed": seed, "val_accuracy": 0.5, "seconds": 1.0} for seed in (1, 2)]
        write_json(tmp_path / "trials" / name / "trials.json", made)
    test = TEST.take(np.r_[0:60:3, 1:60:3, 1:20:3, 2:5])
    dataset.save(test, tmp_path / "test.npz")
    np.save(tmp_path / "maps.npy", taking["finetuned-100"][: len(test.labels)].astype(np.float16))
    np.save(tmp_path / "features.npy", taking["probe-all"][: len(test.labels)].astype(np.float16))
    names = ("trials", "test.npz", "maps.npy", "features.npy", "results.csv", "comparison.json")
    run(judge.main, monkeypatch, *(tmp_path / name for name in names))
    results = pd.read_csv(tmp_path / "results.csv", dtype={"images": str}).set_index(["method", "images", "seed"])
    shares = np.bincount(test.labels) / len(test.labels)
    for place, share in zip((("cnn", "100"), ("finetuned", "100"), ("probe", "all")), shares, strict=True):
        assert results.loc[(*place, 2), "accuracy"] == pytest.approx(share)
    comparison = read_json(tmp_path / "comparison.json")
    assert comparison["differences"] == {"100": {"mean": pytest.approx(shares[1] - shares[0]), "std": 0}}
    found = comparison["seeds"]
    fixed, broken = int((test.labels == 1).sum()), int((test.labels == 0).sum())
    assert fixed != broken
    assert {seed: (each["fixed"], each["broken"]) for seed, each in found.items()} == {
        "1": (fixed, broken),
        "2": (fixed, broken),
    }
    alone = mcnemar(np.repeat([True, False], [broken, fixed]), np.repeat([False, True], [broken, fixed]))
    assert found["1"]["p_value"] == pytest.approx(min(1, 2 * alone.p_value))  # by Holm's method, of two equal ones


def trained() -> pd.DataFrame:
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
    table = summary.summarize(trained().sample(frac=1, random_state=1))
    assert list(table["images"]) == ["10"] * 4 + ["all"] * 5
    assert list(table["method"])[4:] == list(summary.NAMES)
    (row,) = table.query("method == 'finetuned' and images == '10'").to_dict("records")
    assert (row["seeds"], row["accuracy"], row["deviation"]) == (3, pytest.approx(0.72), pytest.approx(0.01))
    comparison = COMPARISON | {"seeds": {"1": {"fixed": 30, "broken": 10, "p_value": 0.0022}}}
    text = summary.markdown(table, comparison).splitlines()
    assert "| fine-tuned | 93.00% ± 1.00% | 3 | 2.00 |" in text
    assert "| the project's CNN | 60.0% ± 1.0% | 94.0% ± 1.0% |" in text
    assert "| the same from random weights | - | 80.0% ± 1.0% |" in text
    assert "| fine-tuned less the project's CNN, points | -1.2 ± 0.3 | - |" in text
    assert "| 1 | 30 | 10 | 0.0022 |" in text


def test_with_all_images_the_features_are_part_of_the_cost() -> None:
    made = [("probe", "all"), ("finetuned", "all"), ("random", "all"), ("probe", "10")]
    results = pd.DataFrame(made, columns=["method", "images"]).assign(accuracy=0.5, seconds=10)
    own = {name: [{"name": name, "seed": 1, "seconds": 5, "accuracy": 0.9}] for name in ("cnn", "dnn")}
    tutorial = [{"seconds": seconds} for seconds in (9, 10, 90)]
    features = {"maps": 20, "features": 2, "mirrored": 30}
    found = summary.collect(results, features, {"time_to_accuracy": {"tutorial": tutorial, **own}})
    ratios = found.set_index(["method", "images"])["ratio"].to_dict()
    assert ratios == {
        ("probe", "all"): 3.2,
        ("finetuned", "all"): 6.0,
        ("random", "all"): 1.0,
        ("probe", "10"): 1.0,
        ("cnn", "all"): 0.5,
        ("dnn", "all"): 0.5,
    }


def test_one_seed_has_no_deviation() -> None:
    once = trained().query("method != 'random' or seed == 2")
    text = summary.markdown(summary.summarize(once), COMPARISON)
    assert "| the same from random weights | 80.00% | 1 | 2.10 |" in text
    assert "| the same from random weights | - | 80.0% |" in text
    assert "nan" not in text


def test_the_figures_show_every_method() -> None:
    table = summary.summarize(trained())
    curves, costs = summary.draw_curves(table).axes[0], summary.draw_costs(table).axes[0]
    assert set(curves.get_legend_handles_labels()[1]) == set(summary.NAMES.values()) - {summary.NAMES["random"]}
    assert set(costs.get_legend_handles_labels()[1]) == set(summary.NAMES.values())
    (line,) = [each[0] for each in curves.containers if each.get_label() == "fine-tuned"]
    np.testing.assert_allclose(line.get_ydata().astype(float), [72, 93])


def test_the_readme_says_what_the_study_found() -> None:
    table = pd.read_csv(STUDY / "table.csv", dtype={"images": str})
    assert summary.markdown(table.fillna(0), read_json(STUDY / "comparison.json")) in (STUDY / "README.md").read_text()


def test_the_table_has_the_results() -> None:
    """Accuracies of the project's models and times come from elsewhere."""
    results = pd.read_csv(STUDY / "results.csv", dtype={"images": str})
    table = pd.read_csv(STUDY / "table.csv", dtype={"images": str}).set_index(["method", "images"])
    means = results.groupby(["method", "images"])["accuracy"].mean()
    np.testing.assert_allclose(table.loc[means.index, "accuracy"], means, rtol=1e-3)


def test_the_pipeline_trains_every_method_of_the_study() -> None:
    stages: dict[str, Any] = yaml.safe_load((STUDY / "dvc.yaml").read_text())["stages"]
    by_photographs, own = (stages[name]["matrix"]["trial"] for name in ("transferred", "scratch"))
    assert {trial.partition("-")[0] for trial in by_photographs} == set(METHODS)
    assert {trial.partition("-")[0] for trial in by_photographs + own} == set(summary.NAMES)
    assert {f"{method}-{judge.TESTED}" for method in judge.COMPARED} < {*by_photographs, *own}
    assert set(yaml.safe_load((STUDY / "params.yaml").read_text())["all"]["once"]) <= set(by_photographs)
