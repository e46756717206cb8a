"""The model card."""

import html
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from markdown_it import MarkdownIt

from fashion.data import about
from fashion.data.about import About
from fashion.evaluation import model_card
from fashion.evaluation.metrics import wilson_interval
from fashion.evaluation.model_results import ModelResults
from fashion.evaluation.predictions import Predictions
from fashion.params import DatasetParams, load_params
from tests.conftest import CLASSES, MODELS, ROOT, Project

LABELS = np.repeat([0, 1, 2], [4, 4, 2]).astype(np.uint8)
PREDICTED = [0, 0, 0, 1, 1, 0, 0, 1, 2, 2]  # 7 of 10; 0 for 1 twice, 1 for 0 once
SCORES = {
    "bytes": 5000,
    "accuracy": 0.7,
    "balanced_accuracy": 0.75,
    "macro_f1": 0.746,
    "loss": 0.51,
    "calibration_error": 0.026,
}
AUDIT: dict[str, Any] = {
    "images": {"train": {"a": 1000, "b": 2000}, "validation": {"a": 30}, "test": {"a": 4, "b": 4, "c": 2}},
    "near_duplicates": {
        "test_images": 1,
        "distance": 10.0,
        "different_label": 0,
        "compared": {"test_images": 10, "other_images": 60},
    },
}


DATASET = DatasetParams(name="Lines: 2", format="idx", height=20, width=24, channels=1, classes=("a", "b", "c"))


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> About:
    """Return what `fashion dataset` writes, with the lines filled in, except for one."""
    text = about.skeleton(DATASET.name).replace("license: unknown", "license: other\nlicense_name: 'ours: 1'")
    for section in about.SECTIONS[1:]:
        text = re.sub(rf"(## {section}\n\n(?:- )?)TODO.*", rf"\1The {section.lower()} of {{{{ lines }}}}.", text)
    path = tmp_path_factory.mktemp("about") / "about.md"
    path.write_text(text)
    return about.load(path, DATASET.name)


def card(description: About, dataset: DatasetParams = DATASET, audit: Mapping[str, Any] = AUDIT) -> str:
    predictions = Predictions.of(np.eye(3, dtype=np.float32)[PREDICTED], LABELS, dataset.classes)
    export = {"ood_rate": 0.2, "float32": SCORES, "int8": SCORES | {"accuracy": 0.6}}
    models = {"cnn": ModelResults(pd.DataFrame(), {"parameters": 1234}, predictions, export, predictions)}
    params = {"cnn": {"epochs": 3, "filters": [4, 8]}}
    return model_card.model_card(dataset, description, audit, params, models)


@pytest.fixture(scope="module")
def written(description: About) -> str:
    return card(description)


def header(text: str) -> Any:
    return yaml.safe_load(text.split("---\n")[1])


def test_header(written: str) -> None:
    assert written.startswith("---\n")
    found = header(written)
    assert (found["license"], found["license_name"]) == ("other", "ours: 1")
    assert (found["pipeline_tag"], found["datasets"]) == ("image-classification", [])
    assert found["tags"] == ["litert", "tflite", "keras"]
    (model,) = found["model-index"]
    assert model["name"] == "lines-2-cnn"
    (result,) = model["results"]
    assert result["dataset"] == {"type": "lines-2", "name": "Lines: 2", "split": "test"}
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == {
        "accuracy": 0.7,
        "balanced accuracy": 0.75,
        "macro F1": 0.746,
        "loss": 0.51,
        "expected calibration error": 0.026,
    }


def test_header_of_this_data_set() -> None:
    description = about.load(ROOT / about.PATH, load_params(ROOT / "params.yaml").dataset.name)
    found = header(card(description))
    assert found["tags"][-3:] == ["litert", "tflite", "keras"]
    assert [*found["tags"][:-3], *found["datasets"]] == [*description.header.tags, *description.header.datasets]
    (result,) = found["model-index"][0]["results"]
    assert result["dataset"]["type"] == next(iter(description.header.datasets), "lines-2")


def test_sections(written: str) -> None:
    for section in about.SECTIONS[1:]:
        assert f"The {section.lower()} of {{{{ lines }}}}.\n" in written, "no template"
    assert "\n## Intended use\n\nTODO: what the models are for" in written


def test_image_shape(description: About, written: str) -> None:
    assert "greyscale images of 20 x 24 pixels into 3 classes: a, b, c." in written
    assert "(n x 20 x 24 x 1)" in written
    colour = card(description, DATASET.model_copy(update={"channels": 3}))
    assert "colour images of 20 x 24 pixels" in colour
    assert "(n x 20 x 24 x 3)" in colour


def test_other_data_set(written: str, project: Project) -> None:
    """The card of another data set does not mention Fashion-MNIST."""
    of_project = (project.folder / "reports" / "MODEL_CARD.md").read_text()
    for text in (written, of_project):
        assert "# Lines" in text
        prose = re.sub(r"`fashion (?:predict|demo)|fashion\.models", "", text)  # the program's name
        assert re.findall("fashion|cloth|zalando", prose, re.IGNORECASE) == []


def test_no_image_in_the_range_of_confidences(written: str) -> None:
    assert "the CNN has no test images in this range." in written


def proportion(correct: int, of: int) -> str:
    low, high = wilson_interval(correct, of)
    return f"{correct / of:.1%} ({low:.1%} to {high:.1%})"


def test_counts(written: str) -> None:
    lines = written.splitlines()
    assert (
        f"| CNN | 1,234 | `models/cnn/model.tflite` | 5 kB | {proportion(7, 10)} | 75.0% | 74.6% | 0.510 | 2.6% |"
        in lines
    )
    assert (
        f"| CNN | 1,234 | `models/cnn/model.int8.tflite` | 5 kB | {proportion(6, 10)} | 75.0% | 74.6% | 0.510 | 2.6% |"
        in lines
    )
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


def test_equal_classes(description: About) -> None:
    """Balanced accuracy is accuracy, so it has no column."""
    audit = {**AUDIT, "images": {**AUDIT["images"], "test": {"a": 5, "b": 5}}}
    text = card(description, audit=audit)
    row = f"| CNN | 1,234 | `models/cnn/model.tflite` | 5 kB | {proportion(7, 10)} | 0.510 | 2.6% |"
    assert row in text.splitlines()
    test_tables(text)
    (result,) = header(text)["model-index"][0]["results"]
    assert [metric["type"] for metric in result["metrics"]] == ["accuracy", "loss", "expected calibration error"]


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
    loaded = project.run("python", "-c", f"{with_keras}print(model.name, model.compiled)")
    assert loaded.stdout == f"{MODELS[-1]} False\n"
    assert len(labels) == 5
    assert set(map(int, labels)) <= set(range(len(CLASSES)))
