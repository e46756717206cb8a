"""The model card."""

import html
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from markdown_it import MarkdownIt

from fashion.evaluation import model_card
from fashion.evaluation.metrics import wilson_interval
from fashion.evaluation.model_results import ModelResults
from tests.conftest import CLASSES, MODELS, ROOT, Project

LABELS = np.repeat([0, 1, 2], [4, 4, 2]).astype(np.uint8)
PREDICTED = [0, 0, 0, 1, 1, 0, 0, 1, 2, 2]  # 7 of 10; 0 for 1 twice, 1 for 0 once
SCORES = {"bytes": 5000, "accuracy": 0.7, "loss": 0.51, "calibration_error": 0.026}
AUDIT = {
    "images": {"train": {"a": 1000, "b": 2000}, "validation": {"a": 30}, "test": {"a": 10}},
    "near_duplicates": {"test_images": 1, "distance": 10.0, "different_label": 0},
}


@pytest.fixture(scope="module")
def written() -> str:
    probabilities = np.eye(3, dtype=np.float32)[PREDICTED]
    export = {"ood_rate": 0.2, "float32": SCORES, "int8": SCORES | {"accuracy": 0.6}}
    models = {"cnn": ModelResults(pd.DataFrame(), {"parameters": 1234}, probabilities, export, probabilities)}
    params = {"cnn": {"epochs": 3, "filters": [4, 8]}}
    return model_card.model_card("Lines", ("a", "b", "c"), AUDIT, LABELS, params, models)


def header(text: str) -> Any:
    return yaml.safe_load(text.split("---\n")[1])


def test_header(written: str) -> None:
    assert written.startswith("---\n")
    found = header(written)
    assert (found["license"], found["pipeline_tag"]) == ("mit", "image-classification")
    (model,) = found["model-index"]
    assert model["name"] == "fashion-mnist-cnn"
    (result,) = model["results"]
    assert result["dataset"] == {"type": "zalando-datasets/fashion_mnist", "name": "Lines", "split": "test"}
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == {
        "accuracy": 0.7,
        "loss": 0.51,
        "expected calibration error": 0.026,
    }


def proportion(correct: int, of: int) -> str:
    low, high = wilson_interval(correct, of)
    return f"{correct / of:.1%} ({low:.1%} to {high:.1%})"


def test_counts(written: str) -> None:
    lines = written.splitlines()
    assert f"| CNN | 1,234 | `models/cnn/model.tflite` | 5 kB | {proportion(7, 10)} | 0.510 | 2.6% |" in lines
    assert f"| CNN | 1,234 | `models/cnn/model.int8.tflite` | 5 kB | {proportion(6, 10)} | 0.510 | 2.6% |" in lines
    assert f"| a | 4 | {proportion(3, 4)} | {proportion(3, 5)} | 66.7% |" in lines
    assert f"| b | 4 | {proportion(2, 4)} | {proportion(2, 3)} | 57.1% |" in lines
    assert f"| c | 2 | {proportion(2, 2)} | {proportion(2, 2)} | 100.0% |" in lines
    assert "| **Mean** | | 75.0% | | 74.6% |" in lines
    assert "the same number of each class" not in written, "the training split of `AUDIT` has unequal classes"
    assert (
        "- Most frequent misclassifications of the CNN: b classified as a (2 of 4), a classified as b (1 of 4)."
        in lines
    )
    assert "- The CNN classifies 20.0% of the test images as out of distribution." in lines


def test_params(written: str) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", written, re.DOTALL)
    assert yaml.safe_load(block) == {"cnn": {"epochs": 3, "filters": [4, 8]}}


def test_tables(written: str) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", written, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_class_without_predictions() -> None:
    assert model_card._proportion(0, 0) == "-"


def test_figures_exist() -> None:
    text = (ROOT / "reports" / "MODEL_CARD.md").read_text()
    figures = re.findall(r"!\[.+?\]\((.+?)\)", text)
    assert len(figures) == len(MODELS) + 1
    assert [name for name in figures if not (ROOT / "reports" / name).exists()] == []


def test_class_names(project: Project) -> None:
    page = MarkdownIt("commonmark").enable("table").render((project.folder / "reports" / "MODEL_CARD.md").read_text())
    assert all(page.count(f"<td>{html.escape(name)}</td>") == len(MODELS) for name in CLASSES)


def test_examples(project: Project) -> None:
    text = (project.folder / "reports" / "MODEL_CARD.md").read_text()
    example, with_keras = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    labels = project.run("python", "-c", example).stdout.strip("[]\n").split()
    loaded = project.run("python", "-c", f"{with_keras}print(model.name, model.optimizer.name)")
    assert loaded.stdout == f"{MODELS[-1]} convolutional_muon\n"
    assert len(labels) == 5
    assert set(map(int, labels)) <= set(range(len(CLASSES)))
