"""The model card says what the pipeline measured, in a form that programs read."""

import html
import re
from typing import Any

import numpy as np
import pytest
import yaml
from markdown_it import MarkdownIt

from fashion.evaluation import model_card
from fashion.evaluation.metrics import wilson_interval
from tests.conftest import CLASSES, ROOT, Project

LABELS = np.repeat([0, 1, 2], [4, 4, 2]).astype(np.uint8)
PREDICTED = [0, 0, 0, 1, 1, 0, 0, 1, 2, 2]  # 7 of 10; 0 for 1 twice, 1 for 0 once
JUDGED = {"bytes": 5000, "accuracy": 0.7, "loss": 0.51, "calibration_error": 0.026}
AUDIT = {
    "images": {"train": {"a": 1000, "b": 2000}, "validation": {"a": 30}, "test": {"a": 10}},
    "near_duplicates": {"test_images": 1, "distance": 10.0, "with_another_label": 0},
}


@pytest.fixture(scope="module")
def written() -> str:
    model = card.Exported(
        1234,
        {"epochs": 3, "filters": [4, 8]},
        {"unfamiliar": 0.2, "float32": JUDGED, "int8": JUDGED | {"accuracy": 0.6}},
        np.eye(3, dtype=np.float32)[PREDICTED],
    )
    return card.card("Lines", ("a", "b", "c"), AUDIT, LABELS, {"cnn": model})


def header(text: str) -> Any:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_header_has_the_results(written: str) -> None:
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


def share(right: int, of: int) -> str:
    low, high = wilson_interval(right, of)
    return f"{right / of:.1%} ({low:.1%} to {high:.1%})"


def test_the_tables_count_right(written: str) -> None:
    lines = written.splitlines()
    assert f"| CNN | 1,234 | `models/cnn/model.tflite` | 5 kB | {share(7, 10)} | 0.510 | 2.6% |" in lines
    assert f"| CNN | 1,234 | `models/cnn/model.int8.tflite` | 5 kB | {share(6, 10)} | 0.510 | 2.6% |" in lines
    assert f"| a | 4 | {share(3, 4)} | {share(3, 5)} |" in lines
    assert f"| b | 4 | {share(2, 4)} | {share(2, 3)} |" in lines
    assert f"| c | 2 | {share(2, 2)} | {share(2, 2)} |" in lines
    assert "- CNN, most frequent mistakes: b taken for a (2 of 4), a taken for b (1 of 4)." in lines
    assert "- The CNN says of 20.0% of the test images that they are unlike its training images." in lines


def test_the_recipe_can_be_read_back(written: str) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", written, re.DOTALL)
    assert yaml.safe_load(block) == {"cnn": {"epochs": 3, "filters": [4, 8]}}


def test_every_table_has_as_many_cells_in_each_row(written: str) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", written, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_a_class_that_is_never_predicted_has_no_precision() -> None:
    assert card._share(0, 0) == "-"


def test_its_pictures_are_there() -> None:
    text = (ROOT / "reports" / "MODEL_CARD.md").read_text()
    pictures = re.findall(r"!\[.+?\]\((.+?)\)", text)
    assert len(pictures) == 3
    assert [name for name in pictures if not (ROOT / "reports" / name).exists()] == []


def test_it_shows_the_names_of_the_classes_as_they_are(project: Project) -> None:
    page = MarkdownIt("commonmark").enable("table").render((project.folder / "reports" / "MODEL_CARD.md").read_text())
    assert all(page.count(f"<td>{html.escape(name)}</td>") == 2 for name in CLASSES)


def test_its_examples_run(project: Project) -> None:
    text = (project.folder / "reports" / "MODEL_CARD.md").read_text()
    example, with_keras = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    answers = project.run("python", "-c", example).stdout.strip("[]\n").split()
    loaded = project.run("python", "-c", f"{with_keras}print(model.name, model.optimizer.name)")
    assert loaded.stdout == "cnn convolutional_muon\n"
    assert len(answers) == 5
    assert set(map(int, answers)) <= set(range(len(CLASSES)))
