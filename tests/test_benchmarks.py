"""The benchmarks: what they count and report. The measurements themselves are run by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from benchmarks import baselines, report, trial, utilisation
from fashion.data.dataset import Split
from fashion.models import networks
from fashion.params import load_params
from fashion.validation import read_yaml
from tests.conftest import CLASSES, MODELS, ROOT, SHAPE, draw_lines

PARAMS = load_params(ROOT / "params.yaml")
TRAIN = Split(*draw_lines(60, 1))


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
    without_cnn = PARAMS.model_copy(update={"models": {"dnn": {}}})
    assert trial.names(without_cnn) == ["tutorial", "demo", "dnn"]


def test_report() -> None:
    run = {"seed": 1, "seconds": 100.0, "accuracy": 0.9}
    text = report.markdown(
        {
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
            "time_to_accuracy": {
                "tutorial": [run],
                "demo": [{**run, "seconds": 50.0}],
                "cnn": [{**run, "seconds": 75.0, "accuracy": 0.92}],
            },
            "deep": {
                "seconds": 450.0,
                "epochs": 40,
                "timed_epochs": 9,
                "tutorial_seconds": 100.0,
                "commit": "abc1234",
            },
            "train_time_ratio": {"tutorial": 1.0, "demo": 0.5, "cnn": 0.75, "deep": 4.5},
            "utilisation": {
                "cnn": {
                    "precision": "float32",
                    "step_gflops": 60.0,
                    "matrix_product_gflops": 120.0,
                    "share_of_matrix_product": 0.5,
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
            "overhead": {
                "no_op_seconds": {"this project": [1.5], "empty project": [1.0]},
                "help_seconds": {"plot": 0.5, "fetch": 0.25},
            },
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
    )
    lines = text.splitlines()
    assert "| cnn | 92.00% | 92.00% | 75 | 75 | 0.75 |" in lines
    assert "| cnn | +2.00 | 1.50 |" in lines
    assert "| 20 | 2 | 1.10 | 2.00 | 2.00 | 2.00 |" in lines
    for words in (
        "takes 450 s, 4.5 times the T_ref of",
        "60 of 120 GFLOP/s, 50%",
        "a ratio of 1.50.",
        "0.25 to 0.50 s",
        "8.0 times as long",
        "in images per second: dnn 25,000, cnn 5,000.",
        "Of 2,400 requests, 0 failed",
        "1.25 s (median), 1.50 s (95th percentile)",
    ):
        assert words in text


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
