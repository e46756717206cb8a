"""The figures and the report page."""

import hashlib
import itertools
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from fashion.data.audit import audit
from fashion.data.dataset import Split
from fashion.errors import UserError
from fashion.evaluation import figures, fonts, report
from fashion.evaluation.metrics import summary
from fashion.evaluation.model_results import ModelResults
from fashion.evaluation.predictions import Predictions
from tests.conftest import CLASSES, ROOT, draw_lines

TEST = Split(*draw_lines(30, 3))
SPLITS = {"train": Split(*draw_lines(60, 1)), "validation": Split(*draw_lines(30, 2)), "test": TEST}
DATA = report.Data(
    "Lines", tuple(CLASSES), SPLITS, audit(SPLITS["train"], SPLITS["validation"], TEST, tuple(CLASSES), 30.0)
)
HISTORY = pd.DataFrame(
    {"epoch": [1, 2], "loss": [1.0, 0.5], "accuracy": [0.5, 0.7], "val_loss": [0.9, 0.6], "val_accuracy": [0.6, 0.65]}
)


SCORES = {
    "bytes": 123_456,
    "accuracy": 0.5,
    "balanced_accuracy": 0.5,
    "macro_f1": 0.34567,
    "loss": 1.0,
    "calibration_error": 0.1,
}
EXPORT = {"temperature": 0.7, "ood_rate": 0.02, "keras": SCORES, "float32": SCORES, "int8": SCORES}


def models(*names: str) -> dict[str, ModelResults]:
    results = {}
    for seed, name in enumerate(names):
        probabilities = np.random.default_rng(seed).dirichlet(np.ones(len(CLASSES)), len(TEST.labels))
        predictions = Predictions.of(probabilities, TEST.labels, tuple(CLASSES))
        metrics = {"parameters": 10, **summary(predictions, bins=5)}
        results[name] = ModelResults(HISTORY, metrics, predictions, EXPORT, predictions)
    return results


def texts_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]


@pytest.fixture
def few_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw few images: that takes most of the time."""
    monkeypatch.setattr(report, "SHOWN_PREDICTIONS", 2)


@pytest.mark.usefixtures("few_predictions")
def test_deterministic() -> None:
    first, second = (report.draw(DATA, models("cnn"), bins=5) for _ in range(2))
    assert {name: figures.png(figure) for name, figure in first.items()} == {
        name: figures.png(figure) for name, figure in second.items()
    }


LONG = ("a class whose name is much longer than its images are wide", "水平" * 12, "short")


@pytest.mark.parametrize("name", ["samples_train", "data_audit", "confusion_cnn", "predictions_cnn", "mistakes_cnn"])
def test_long_names(name: str) -> None:
    found = audit(SPLITS["train"], SPLITS["validation"], TEST, LONG, 90.0)
    assert found["near_duplicates"]["closest"], "pairs to draw"
    figure = report.draw(report.Data("Lines", LONG, SPLITS, found), models("cnn"), bins=5)[name]
    figures.png(figure)
    texts: list[Text] = []
    for ax in figure.axes:
        texts += [ax.title, *ax.texts, *((*ax.get_xticklabels(), *ax.get_yticklabels()) if ax.axison else ())]
    boxes = {text: text.get_window_extent() for text in texts if text.get_text()}
    assert [text for text, box in boxes.items() if box.x0 < 0 or box.x1 > figure.bbox.x1 or box.y0 < 0] == []
    level = [box for text, box in boxes.items() if text.get_rotation() == 0]
    assert [pair for pair in itertools.combinations(level, 2) if pair[0].shrunk(0.9, 0.9).overlaps(pair[1])] == []


def test_unreadable_names_are_shortened() -> None:
    _figure, axes = figures.grid(1, 1, cell=(1.5, 2.0), title="")
    figures.caption(axes[0, 0], f"predicted: {'long ' * 20}\nconfidence 93%")
    (text,) = axes[0, 0].texts
    assert re.fullmatch(r"predicted: (long )+(l|lo|lon|long)?…\nconfidence 93%", text.get_text())
    assert text.get_fontsize() == pytest.approx(figures.MIN_POINTS, rel=0.1)


def test_many_classes() -> None:
    """A figure with a number in each of 65,536 cells would need gigabytes."""
    names = [f"class {number}" for number in range(256)]
    figure = figures.confusion(np.ones((256, 256), np.int64), names, "")
    assert max(figure.get_size_inches()) < 25
    assert list(figure.axes[0].texts) == []


def test_scripts() -> None:
    fonts.check(["T-shirt", "Кот", "Ελληνικά", "עברית", "العربية", "水平", "日本語", "한국어", *CLASSES])


def test_character_without_a_font() -> None:
    with pytest.raises(
        UserError, match=r"^params\.yaml: dataset\.classes\.1: no installed font can draw .* \(U\+13000\)"
    ):
        fonts.check(["bag", "\U00013000 \U00013000"])


def test_matplotlibrc(tmp_path: Path) -> None:
    script = (
        "import hashlib, pandas; from fashion.evaluation import figures;"
        "history = pandas.DataFrame({'epoch': [1, 2], 'loss': [1.0, 0.5], 'val_loss': [0.9, 0.6]});"
        "print(hashlib.sha256(figures.png(figures.learning_curves({'dnn': history}, 'loss'))).hexdigest())"
    )
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\nfont.size: 20\nsavefig.dpi: 30\n")
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    ours = figures.png(figures.learning_curves({"dnn": HISTORY}, "loss"))
    assert done.stdout.strip() == hashlib.sha256(ours).hexdigest()


def test_predictions() -> None:
    probabilities = np.tile([0.1, 0.75, 0.15], (30, 1))
    predictions = Predictions.of(probabilities, TEST.labels, tuple(CLASSES))
    figure = figures.predictions(TEST, predictions, np.array([0, 1]), "Two predictions")
    assert texts_of(figure) == [
        f"predicted: {CLASSES[1]}\nconfidence 75.0%",
        f"actual: {CLASSES[0]}",
        f"predicted: {CLASSES[1]}\nconfidence 75.0%",
        f"actual: {CLASSES[1]}",
        "Two predictions",
    ]
    wrong, correct = (ax.texts[0].get_color() for ax in figure.axes[:2])
    assert (to_hex(wrong), to_hex(correct)) == (figures.WRONG, figures.CORRECT)


def test_confusion() -> None:
    figure = figures.confusion(np.array([[1234, 5], [0, 7]]), ["cat", "dog"], "Pets")
    assert [text.get_text() for text in figure.axes[0].texts] == ["1,234", "5", "7"]


@pytest.mark.usefixtures("few_predictions")
@pytest.mark.parametrize("names", [("one",), tuple(f"model{n}" for n in range(5))])
def test_any_number_of_models(names: tuple[str, ...]) -> None:
    drawn = report.draw(DATA, models(*names), bins=5)
    for name in names:
        assert f"confusion_{name}" in drawn
        assert name.upper() in texts_of(drawn["loss"])
    titles = [ax.get_title() for ax in drawn["reliability"].axes]
    assert sum(title.startswith(("ONE", "MODEL")) for title in titles) == 2 * len(names)


def test_page_escapes_names() -> None:
    data = report.Data("<b>Lines</b>", tuple(CLASSES), SPLITS, DATA.audit)
    results = models("dnn")
    page = report.page(data, results, dict.fromkeys(report.draw(data, results, bins=5), b""), bins=5)
    assert "&lt;b&gt;Lines&lt;/b&gt;" in page
    assert "<b>Lines" not in page
    assert "123 kB" in page


def test_page_unequal_classes() -> None:
    results = models("dnn")
    metrics = {**results["dnn"].metrics, "balanced_accuracy": 0.12345, "macro_f1": 0.23456}
    results = {"dnn": replace(results["dnn"], metrics=metrics)}
    drawn = dict.fromkeys(report.draw(DATA, results, bins=5), b"")
    page = report.page(DATA, results, drawn, bins=5)
    assert "Balanced accuracy" not in page
    assert "<td>12.35%</td>" not in page
    images = {**DATA.audit["images"], "test": dict(zip(CLASSES, (10, 11, 9), strict=True))}
    page = report.page(replace(DATA, audit={**DATA.audit, "images": images}), results, drawn, bins=5)
    assert page.count("<th>Balanced accuracy</th><th>Macro F1</th>") == 2
    assert "<td>12.35%</td><td>23.46%</td>" in page
    assert page.count("<td>50.00%</td><td>50.00%</td><td>34.57%</td>") == 3, "exported models"
    assert "balanced accuracy is the mean recall" in page
