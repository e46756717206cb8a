"""`fashion predict`, with the models of a whole pipeline."""

import io
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from PIL import Image

from fashion import cli
from fashion.data import dataset
from fashion.errors import UserError
from fashion.serving.classifier import Classifier
from fashion.serving.figures import prediction_grid
from fashion.serving.predict import InputImage, Prediction, load_image
from tests.conftest import CLASSES, FASHION, MODELS, Project


class Result(NamedTuple):
    """The standard output and error of a command, and its exit code."""

    stdout: str
    stderr: str
    code: int


class Command:
    """`fashion predict`, called in this process in the folder of a project."""

    def __init__(self, project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys
        monkeypatch.chdir(project.folder)

    def __call__(self, *arguments: str | Path, stdin: bytes | None = b"") -> Result:
        self.monkeypatch.setattr(sys, "argv", ["fashion", "predict", *map(str, arguments)])
        self.monkeypatch.setattr(sys, "stdin", None if stdin is None else io.TextIOWrapper(io.BytesIO(stdin)))
        code = 0
        try:
            cli.main()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return Result(*self.capsys.readouterr(), code)


ADVICE = "`make` exports the models of params.yaml"


@pytest.fixture
def predict(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(project, monkeypatch, capsys)


@pytest.fixture(scope="module")
def image_file(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a PNG file of test image 0."""
    test = dataset.load(project.folder / "data" / "test")
    path = tmp_path_factory.mktemp("images") / "line.png"
    Image.fromarray(test.images[0, ..., 0]).save(path)
    return path


def test_text(predict: Command) -> None:
    result = predict("--test-index", "0")
    assert (result.stderr, result.code) == ("", 0)
    (line,) = result.stdout.splitlines()
    assert line.startswith("test image 0: ")
    assert line.endswith(f"(actual: {CLASSES[0]})")
    assert line.count("%") == 3


def test_json(predict: Command, image_file: Path) -> None:
    indices = ("--test-index", "0", "--test-index", "4")
    result = predict("--json", image_file, "-", *indices, stdin=image_file.read_bytes())
    zero, four, file, stdin = (json.loads(line) for line in result.stdout.splitlines())
    names = ["test image 0", "test image 4", str(image_file), "-"]
    assert [prediction["image"] for prediction in (zero, four, file, stdin)] == names
    assert (zero["actual"], four["actual"], file["actual"]) == (CLASSES[0], CLASSES[1], None)
    assert file["probabilities"] == stdin["probabilities"] == zero["probabilities"]
    assert set(zero["probabilities"]) == set(CLASSES)
    assert sum(zero["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert zero["confidence"] == zero["probabilities"][zero["label"]] == max(zero["probabilities"].values())


@pytest.mark.parametrize("model", MODELS)
def test_same_as_export_stage(project: Project, predict: Command, model: str) -> None:
    expected = np.load(project.folder / "models" / model / "exported_probabilities.npy")
    result = predict("--json", "--model", model, *(word for i in range(90) for word in ("--test-index", str(i))))
    found = [json.loads(line)["probabilities"] for line in result.stdout.splitlines()]
    np.testing.assert_allclose([[row[name] for name in CLASSES] for row in found], expected, atol=1e-5)


def test_default_model(predict: Command) -> None:
    results = [predict("--json", "--test-index", "0", *model) for model in ([], ["--model", MODELS[-1]])]
    assert results[0] == results[1]


def test_unreadable_files(predict: Command, image_file: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    result = predict(tmp_path / "text.png", image_file, "missing.png", tmp_path, "")
    assert result.code == 2
    assert result.stdout.startswith(f"{image_file}: ")
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr.splitlines() == [
        f"error: {tmp_path}/text.png: not a PNG, JPEG or WebP image",
        "error: missing.png: No such file or directory",
        f"error: {tmp_path}: is a directory; pass its files: {tmp_path}/*",
        "error: an empty file name; pass an image file",
    ]


def test_closed_standard_input(predict: Command) -> None:
    assert predict("-", stdin=None).stderr.startswith("error: -: standard input is closed; ")


def test_more_images_than_a_batch(predict: Command, image_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "BATCH_SIZE", 2)
    lines = predict(*[image_file] * 5).stdout.splitlines()
    assert len(lines) == 5
    assert len(set(lines)) == 1


def test_unprintable_file_name(project: Project, image_file: Path) -> None:
    name = os.fsencode(image_file.parent) + b"/\xff\x1b[2J.png"
    Path(os.fsdecode(name)).write_bytes(image_file.read_bytes())
    done = project.run(*FASHION, "predict", os.fsdecode(name), os.fsdecode(name + b"g"), check=False)
    assert done.returncode == 2
    assert done.stdout.startswith(rf"{image_file.parent}/\xff\x1b[2J.png: ")
    assert done.stderr == rf"error: {image_file.parent}/\xff\x1b[2J.pngg: No such file or directory" + "\n"


def test_out_of_distribution(predict: Command, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 24), np.uint8)).save(tmp_path / "noise.png")
    assert "noise.png: out of distribution: " in predict(tmp_path / "noise.png").stdout
    assert json.loads(predict("--json", tmp_path / "noise.png").stdout)["in_distribution"] is False


def test_background(predict: Command, image_file: Path) -> None:
    automatic, dark, light = (
        predict("--json", image_file, *option).stdout
        for option in ([], ["--background", "dark"], ["--background", "light"])
    )
    assert automatic == dark != light


def test_resizing_model(image_file: Path) -> None:
    classifier = object.__new__(Classifier)  # without a model
    classifier.image_shape, classifier.preprocessing = (10, 12, 3), "resize"
    image = load_image(str(image_file), classifier, None)
    assert image.pixels.shape == (10, 12, 3)
    with pytest.raises(
        UserError, match=r"line\.png: the model resizes images with any background; do not set the back"
    ):
        load_image(str(image_file), classifier, "dark")


def test_figure(predict: Command, image_file: Path, tmp_path: Path) -> None:
    assert predict("--figure", tmp_path / "out.png", "--test-index", "0", image_file).code == 0
    assert Image.open(io.BytesIO((tmp_path / "out.png").read_bytes())).format == "PNG"


def test_figure_text() -> None:
    ranking = (("level", 0.8), ("slope", 0.2))
    grey, colour = (np.zeros((20, 24, channels), np.uint8) for channels in (1, 3))
    predictions = [
        Prediction(InputImage("folder/PXL_20240612_184512345.PORTRAIT.jpg", colour), ranking, True, None),
        Prediction(InputImage("test image 3", grey, 1), ranking, False, "slope"),
    ]
    first, second = prediction_grid(predictions).axes
    assert first.get_title() == "PXL_20240612_18451234…"
    assert second.get_title() == "actual: slope"
    texts = [" ".join(text.get_text() for text in ax.texts) + ax.get_xlabel() for ax in (first, second)]
    assert "predicted: level\nconfidence 80.0%" in texts[0]
    assert "out of distribution: level\nconfidence 80.0%" in texts[1]


def test_imports(project: Project) -> None:
    done = project.run("python", "-X", "importtime", "-m", "fashion.cli", "predict", "--test-index", "0")
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "ai_edge_litert" in imported
    assert imported & {"tensorflow", "keras", "pandas", "scipy", "matplotlib", "pydantic", "dvc"} == set()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no image given; pass a file or --test-index N"),
        (["--test-index", "90"], "no test image 90; the indices are 0 to 89"),
        (["--test-index", "-1"], "no test image -1; the indices are 0 to 89"),
        (["--model", "rnn", "--test-index", "0"], f"no exported model rnn; available: {', '.join(MODELS)}; {ADVICE}"),
        (
            ["--test-index", "0", "--figure", "out.jpg"],
            "out.jpg: --figure writes a PNG file; its name must end in .png",
        ),
    ],
)
def test_invalid_arguments(predict: Command, arguments: list[str], message: str) -> None:
    assert predict(*arguments) == ("", f"error: {message}\n", 2)


def test_missing_or_altered_model(project: Project, predict: Command) -> None:
    name = f"models/{MODELS[-1]}/model.tflite"
    path, stage = project.folder / name, f"export@{MODELS[-1]}"
    content = path.read_bytes()
    try:
        path.unlink()
        result = predict("--test-index", "0")
        assert result == ("", f"error: {name} is missing; run `dvc repro {stage}`\n", 2)
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        result = predict("--test-index", "0")
        assert result.code == 2
        assert result.stderr.startswith(f"error: {name} was altered: its MD5 is ")
        assert result.stderr.endswith(f"; delete it and run `dvc repro {stage}`\n")
    finally:
        path.write_bytes(content)


def test_images_of_another_data_set(project: Project, predict: Command, image_file: Path) -> None:
    """Even with the same number of classes: the actual class would have a name of another data set."""
    path = project.folder / "dvc.lock"
    content = path.read_text()
    lock = yaml.safe_load(content)
    (data,) = [out for out in lock["stages"]["preprocess"]["outs"] if out["path"] == "data/train"]
    data["md5"] = f"{32 * '0'}.dir"
    try:
        path.write_text(yaml.safe_dump(lock))
        result = predict("--test-index", "0")
        assert "was made from another version of data/train; run `dvc repro`" in result.stderr
        assert predict(image_file).code == 0
    finally:
        path.write_text(content)


@pytest.mark.parametrize("content", [None, "- a list", "models: 3"])
def test_invalid_params(predict: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None) -> None:
    (tmp_path / "dvc.lock").write_text("stages: {}")
    if content:
        (tmp_path / "params.yaml").write_text(content)
    monkeypatch.chdir(tmp_path)
    result = predict("--test-index", "0")
    assert result.code == 2
    assert result.stderr.startswith("error: cannot read the section `models` of params.yaml: ")


def test_no_exported_models(predict: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dvc.lock").write_text("stages: {}")
    (tmp_path / "params.yaml").write_text("models: {dnn: {}}")
    monkeypatch.chdir(tmp_path)
    assert predict("--test-index", "0") == ("", "error: no exported models; run `dvc repro`\n", 2)


def test_no_project(predict: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = predict("--test-index", "0")
    assert result.code == 2
    assert result.stderr.startswith("error: dvc.lock is missing; ")
