"""What the benchmarks count and write; what they measure is measured by hand, never here."""

import pytest

from benchmarks import report, utilisation
from fashion.models import cnn, dnn
from tests.test_models import CNN, DNN, TRAIN


def test_operations_of_a_training_step() -> None:
    # 480 pixels, 16, 8 and 3 units; no gradient is needed of the pixels
    assert utilisation.operations(dnn.build(DNN, TRAIN)) == 2 * (2 * 480 * 16 + 3 * 16 * 8 + 3 * 8 * 3)
    # 20 x 24 positions after the first layer, which is not learned; 10 x 12 and 5 x 6 after the blocks' poolings
    first = 20 * 24 * 9 * 16
    one = 2 * 20 * 24 * 9 * 16 * 4 + 3 * 10 * 12 * 9 * 4 * 4
    two = 3 * 10 * 12 * 9 * 4 * 8 + 3 * 5 * 6 * 9 * 8 * 8
    assert utilisation.operations(cnn.build(CNN, TRAIN)) == 2 * (first + one + two + 3 * 8 * 3)


def test_the_report_states_ratios() -> None:
    trial = {"seed": 1, "seconds": 100.0, "accuracy": 0.9}
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
                "tutorial": [trial],
                "demo": [{**trial, "seconds": 50.0}],
                "cnn": [{**trial, "seconds": 75.0, "accuracy": 0.92}],
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
            "growth": [
                {"images": 10, "seconds_per_image": 1.0, "data_bytes": 1e6, "peak_bytes": 5e6},
                {"images": 20, "seconds_per_image": 1.1, "data_bytes": 2e6, "peak_bytes": 7e6},
            ],
            "overhead": {
                "no_op_seconds": {"this project": [1.5], "empty project": [1.0]},
                "stage_start_seconds": {"plot": {"arguments_and_params": 0.5, "libraries_and_inputs": 1.5}},
            },
            "serving": {
                "first_answer_seconds": {"fashion predict": [0.5, 0.4, 0.6], "Keras": [4.0, 3.0, 5.0]},
                "pictures": 10_000,
                "bulk_seconds": {"dnn": [0.5, 0.4], "cnn": [2.0, 4.0]},
                "commit": "abc1234",
            },
            "load": {
                "clients": 50,
                "seconds": 60.0,
                "asked": 2400,
                "lost_or_wrong": 0,
                "latency_seconds": {"median": 1.25, "95 %": 1.5, "largest": 2.5},
                "commit": "abc1234",
            },
        }
    )
    lines = text.splitlines()
    assert "| cnn | 92.00% | 92.00% | 75 | 75 | 0.75 |" in lines
    assert "| cnn | +2.00 | 1.50 |" in lines
    assert any("450 seconds a seed, 4.5 times T_ref" in line for line in lines)
    assert "| 20 | 1.10 | 2 | 7 | 2.0 |" in lines
    assert any("a share of 0.50" in line for line in lines)
    assert any(line.endswith("a ratio of 1.50.") for line in lines)
    assert any("model, 8.0 times as long" in line and "one call: dnn 25,000, cnn 5,000." in line for line in lines)
    assert any("2,400 pictures asked" in line and "half within 1.25 s, 95 % within 1.50 s" in line for line in lines)


@pytest.mark.parametrize("wanted", ["tutorial", "demo"])
def test_the_peers_are_networks_for_these_images(wanted: str) -> None:
    from benchmarks import baselines

    network = getattr(peers, wanted)()
    assert network.input_shape == (None, 28, 28, 1)
    assert network.output_shape == (None, 10)
