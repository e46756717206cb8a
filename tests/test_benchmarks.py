"""The benchmarks: what they count and report. The measurements themselves are run by hand."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, call

import numpy as np
import pytest
from ruamel.yaml import YAML

from benchmarks import baselines, dvc, figure, report, run, trial, trials, utilisation
from benchmarks.cluster import cluster
from fashion.data.dataset import Split
from fashion.errors import UserError
from fashion.models import networks
from fashion.params import load_params
from fashion.validation import read_yaml
from tests.conftest import CLASSES, MODELS, ROOT, SHAPE, Project, draw_lines

PARAMS = load_params(ROOT / "params.yaml")
TRAIN = Split(*draw_lines(60, 1))
TRIALS: dict[str, Any] = {  # results of benchmarks/trials.py
    "side_by_side": {
        "model": "cnn",
        "epochs": 15,
        "timed_epochs": 3,
        "seconds": {"side by side": [10.0, 9.0, 11.0], "one after the other": [15.0]},
        "training_seconds": 12.0,
    },
    "growth": {
        "model": "dnn",
        "timed_epochs": 3,
        "runs": [
            {"nodes": 1, "trials": 4, "seconds": 48.0, "start_seconds": 20.0}
            | {"training_seconds": [7.0] * 4, "gap_seconds": [0.01, 0.01, 0.02]},
            {"nodes": 2, "trials": 4, "seconds": 36.0, "start_seconds": 20.0}
            | {"training_seconds": [7.0, 8.0, 7.0, 8.0], "gap_seconds": [0.01, 0.005]},
        ],
    },
    "costs": {
        "dispatch_seconds": 0.005,
        "data_bytes": 47_000_000,
        "transfer_seconds": 0.12,
        "checkpoint_bytes": 4_300_000,
        "checkpoint_seconds": 0.03,
        "checkpoint_interval": 300,
    },
    "commit": "abc1234",
}


@pytest.mark.parametrize(
    ("name", "changes", "products"),
    [
        # 480 pixels, 16, 8 and 3 units; the input needs no gradient
        ("dnn", {"hidden_units": [16, 8]}, 2 * 480 * 16 + 3 * 16 * 8 + 3 * 8 * 3),
        # 20 x 24 positions, and the first layer is not trained; 10 x 12 and 5 x 6 positions after each block's pooling
        (
            "cnn",
            {"filters": [4, 8], "convs_per_block": 2},
            20 * 24 * 9 * 16
            + (2 * 20 * 24 * 9 * 16 * 4 + 3 * 10 * 12 * 9 * 4 * 4)
            + (3 * 10 * 12 * 9 * 4 * 8 + 3 * 5 * 6 * 9 * 8 * 8)
            + 3 * 8 * 3,
        ),
    ],
)
def test_operations(name: str, changes: dict[str, Any], products: int) -> None:
    model = networks.load(name).build(networks.params_of(name, PARAMS, changes), TRAIN)
    assert utilisation.operations(model) == 2 * products


def test_names() -> None:
    assert trial.names(PARAMS) == ["tutorial", "demo", *MODELS, "cnn-short"]
    assert set(trial.variants("deep", PARAMS)) == {"deep"}


def test_without_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert trial.names(PARAMS) == ["tutorial", "demo", *MODELS]


def test_train_time_ratios() -> None:
    runs = {"tutorial": [100.0, 300.0, 120.0], "cnn": [60.0, 90.0, 30.0]}
    results = {"time_to_accuracy": {name: [{"seconds": one} for one in times] for name, times in runs.items()}}
    assert run.train_time_ratios(results) == {"tutorial": 1.0, "cnn": 0.5}
    deep = {"seconds": 900.0, "tutorial_seconds": 150.0}
    assert run.train_time_ratios({**results, "deep": deep})["deep"] == 6.0


def test_report() -> None:
    one = {"seed": 1, "seconds": 100.0, "accuracy": 0.9}
    results = {
        "machine": {
            "processor": "some processor",
            "cores": 2,
            "instructions": ["avx2"],
            "system": "Linux",
            "python": "3.11",
            "tensorflow": "2.21",
            "keras": "3.15",
            "commit": "abc1234",
        },
        "variants": {"cnn-short": {"model": "cnn", "epochs": 8}, "other": {"model": "rnn", "epochs": 9}},
        "time_to_accuracy": {
            "tutorial": [one],
            "demo": [{**one, "seconds": 50.0}],
            "cnn": [{**one, "seconds": 75.0, "accuracy": 0.92}],
            "cnn-short": [one],
        },
        "deep": {
            "seconds": 450.0,
            "epochs": 40,
            "timed_epochs": 9,
            "tutorial_seconds": 100.0,
            "commit": "abc1234",
        },
        "train_time_ratio": {"tutorial": 1.0, "demo": 0.5, "cnn": 0.75, "cnn-short": 1.0, "deep": 4.5},
        "utilisation": {
            "cnn": {
                "precision": "float32",
                "step_gflops": 60.0,
                "matrix_product_gflops": 120.0,
                "share_of_matrix_product": 0.5,
                "step_relative_to_keras": 0.8,
                "profile": {"Conv2D": 0.4},
            }
        },
        "scaling": {
            "model": "dnn",
            "runs": [
                {"images": images, "seconds_per_image": seconds, "data_bytes": size}
                | {f"{name}_bytes": grown for name in report.PHASES}
                for images, seconds, size, grown in ((10, 1.0, 1e6, 5e6), (20, 1.1, 2e6, 7e6))
            ],
            "commit": "abc1234",
        },
        "overhead": {"help_seconds": {"plot": 0.5, "fetch": 0.25}},
        "dvc": {
            "seconds": {"dvc repro": {"this project": [1.5, 9], "without studies": [5.0], "one empty stage": [2.625]}},
            "commit": "abc1234",
        },
        "trials": TRIALS,
        "serving": {
            "first_prediction_seconds": {"fashion predict": [0.5, 0.4, 0.6], "Keras": [4.0, 3.0, 5.0]},
            "images": 10_000,
            "bulk_seconds": {"dnn": [0.5, 0.4], "cnn": [2.0, 4.0]},
            "commit": "abc1234",
        },
        "load_test": {
            "clients": 50,
            "seconds": 60.0,
            "requests": 2400,
            "failed": 0,
            "latency_seconds": {"median": 1.25, "95 %": 1.5, "largest": 2.5},
            "commit": "abc1234",
        },
    }
    text = report.markdown({"float32": results})
    assert text.startswith("# Benchmarks\n\n## Without bfloat16 instructions\n\nMeasured by")
    assert "validation images. `cnn-short` is the CNN with `epochs: 8`.\n" in text
    lines = text.splitlines()
    assert "| cnn | 92.00% | 92.00% | 75 | 75 | 0.75 |" in lines
    assert "| cnn | +2.00 | 1.50 |" in lines
    assert "| 20 | 2 | 1.10 | 2.00 | 2.00 | 2.00 |" in lines
    assert "| `dvc repro` | 5.25 | 5.00 | 1.05 | 2.62 | 2.00 |" in lines
    assert "| 4 | 2 | 36 | 20 | 7.5 | 4.0 |" in lines
    assert "| 100 | 3 | 67.5 | 67% |" in lines
    for words in (
        "takes 450 s, 4.5 times the T_ref of",
        "60 of 120 GFLOP/s, 50%. With `FastConv2D`, a step takes 0.80 times as long as",
        "side by side with one thread each, and 15 s one after the other with two threads each, 1.50 times as long",
        "an empty trial costs the driver 5.0 ms",
        "(47 MB) reach the other node in 0.12 s",
        "of 4.3 MB to the driver's node takes 0.030 s",
        "200 trials of `cnn` (15 epochs, 60 s each)",
        "busy for 1.0% of the time",
        "0.25 to 0.50 s",
        "8.0 times as long",
        "in images per second: dnn 25,000, cnn 5,000.",
        "Of 2,400 requests, 0 failed",
        "1.25 s (median), 1.50 s (95th percentile)",
    ):
        assert words in text
    trainings = {"machine", "variants", "time_to_accuracy", "train_time_ratio", "utilisation", "overhead"}
    alone = report.markdown({"float32": {key: value for key, value in results.items() if key in trainings}})
    assert [line for line in alone.splitlines() if line.startswith("### ")] == [
        "### Time to accuracy",
        "### Utilisation of the processor",
        "### Overhead",
    ]


def test_figure() -> None:
    """Accuracies of studies count more than those of the benchmark; what has no accuracy is left out."""
    runs = {"tutorial": [{"accuracy": 0.8}, {"accuracy": 0.9}], "cnn": [{"accuracy": 0.91}]}
    machine = {"time_to_accuracy": runs, "train_time_ratio": {"tutorial": 1.0, "cnn": 0.7, "deep": 9.0, "other": 2.0}}
    found = figure.points(machine, {"cnn": 0.94, "deep": 0.95})
    assert found == {"cnn": (0.7, 0.94), "tutorial": (1.0, pytest.approx(0.85)), "deep": (9.0, 0.95)}
    left, right = figure.draw({"fast": found, "slow": {"cnn": (0.9, 0.94)}}, figure.PUBLISHED).axes
    assert [text.get_text() for text in left.texts] == ["cnn", "CNN of the Keras tutorials", "deep"]
    legend = left.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["fast", "slow"]
    assert right.get_visible()
    alone = figure.draw({"fast": found}, {}).axes
    assert alone[0].get_legend() is None
    assert not alone[1].get_visible()


def test_study_seconds() -> None:
    """A study of one trial per node takes start-up, the splits to each node, and a training run."""
    assert report.study_seconds(100, 100, 60.0, TRIALS) == pytest.approx(20 + 100 * (0.376 + 0.005) + 60 + 0.01)
    assert report.study_seconds(100, 101, 60.0, TRIALS) == pytest.approx(20 + 100 * (0.376 + 0.005) + 2 * 60.01)


def test_busy_seconds() -> None:
    assert trials.busy_seconds([]) == 0
    assert trials.busy_seconds([(5, 6), (0, 3), (1, 2), (2, 4)]) == 5


def test_gaps() -> None:
    times = [(1, 3.5, 5), (2, 0, 4), (1, 0, 3), (1, 5.25, 6)]
    assert trials.gaps([dict(zip(("process", "started", "ended"), row, strict=True)) for row in times]) == [0.5, 0.25]


@pytest.mark.slow
def test_dvc_commands(copied: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The projects that this one is compared with have nothing to do, either."""
    monkeypatch.chdir(copied.folder)
    alone = dvc.clone(tmp_path / "alone", without="studies")
    assert (alone / "dvc.lock").read_bytes() == (copied.folder / "dvc.lock").read_bytes()
    assert not (alone / "studies").exists()
    monkeypatch.setattr(dvc, "COMMANDS", ("dvc repro", "dvc params diff"))
    projects = {"without studies": alone, "one empty stage": dvc.one_empty_stage(tmp_path / "one")}
    seconds = dvc.measure(projects, rounds=2)
    assert list(seconds) == list(dvc.COMMANDS)
    assert all(len(times) == 2 for by_project in seconds.values() for times in by_project.values())
    (alone / "params.yaml").write_text((alone / "params.yaml").read_text().replace("epochs: 2", "epochs: 3"))
    with pytest.raises(UserError, match=r"(?s)^without studies: stages are stale.*train_"):
        dvc.measure(projects, rounds=1)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")
def test_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The measurements run, on one cluster of two nodes, and ask for the right ones."""
    monkeypatch.setattr(trials, "COUNTS", (3,))
    monkeypatch.setattr(trials, "EMPTY_TRIALS", 20)
    cores = sorted(os.sched_getaffinity(0))
    settings = networks.params_of("dnn", PARAMS, {"epochs": 3, "hidden_units": [8]})
    few = ("dnn", settings, {"train": TRAIN, "validation": TRAIN}, [cores[0], cores[-1]])
    with cluster([[cores[0]], [cores[-1]]]):
        cluster_of = MagicMock(return_value=nullcontext())
        monkeypatch.setattr(trials, "cluster", cluster_of)
        runs = trials.growth(*few)
        costs = trials.costs(*few)
    assert [each["nodes"] for each in runs] == [1, 2]
    one, two = [[cores[0]]], [[cores[0]], [cores[-1]]]
    assert cluster_of.call_args_list == [call(one), call(two), call(two)]
    for each in runs:
        assert each["seconds"] > each["start_seconds"] > 0
        assert 1 <= len(each["gap_seconds"]) <= 2  # three trials in two processes, or in one
        assert all(gap > 0 for gap in each["gap_seconds"])
    assert set(costs) == set(TRIALS["costs"])
    assert costs["data_bytes"] == 2 * (TRAIN.images.nbytes + TRAIN.labels.nbytes)
    assert costs["checkpoint_bytes"] > 4 * 480 * 8  # the first layer, in float32
    assert min(costs["dispatch_seconds"], costs["checkpoint_seconds"]) > 0


@pytest.mark.parametrize("name", trial.BASELINES)
def test_baselines(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Baselines fit the data set in params.yaml."""
    values = read_yaml(ROOT / "params.yaml")
    images, labels = draw_lines(30, 1, channels=3)
    height, width, channels = images.shape[1:]
    shape = {"height": height, "width": width, "channels": channels}
    values["dataset"] = {"name": "Lines", "format": "folder", **shape, "classes": CLASSES}
    values["fetch"] = {"folder": "images", "unreadable": 0, "test_fraction": 0.2, "seed": 1}
    YAML().dump(values, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    network = getattr(baselines, name)()
    assert network.input_shape == (None, *SHAPE, 3)
    assert network.output_shape == (None, len(CLASSES))
    before = [weights.copy() for weights in network.get_weights()]
    baselines.train(network, 10, Split(images, labels), seed=1)
    assert not any(np.array_equal(*pair) for pair in zip(before, network.get_weights(), strict=True))


def test_utilisation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks with FastConv2D are compared with Keras' convolutions."""
    monkeypatch.setattr(utilisation, "STEPS", 2)
    monkeypatch.setattr(utilisation, "MATRIX", 8)
    for name, compared in (("dnn", False), ("cnn", True)):
        settings = networks.params_of(name, PARAMS, {"batch_size": 20})
        results = utilisation._utilisation(networks.load(name), settings, TRAIN)
        assert ("step_relative_to_keras" in results) == compared
        assert all(results[key] > 0 for key in results.keys() - {"precision", "profile"})
        assert results["profile"]["MatMul"] > 0
