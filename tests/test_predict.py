"""`fashion predict`, on the models of a whole pipeline: an answer for each picture, a reason for each that is none."""

import io
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion.data import dataset
from fashion.errors import UserError
from fashion.serving.artifacts import Artifacts
from fashion.serving.drawing import draw
from fashion.serving.predict import Picture, Prediction
from tests.conftest import CLASSES, FASHION, Project


def predict(
    project: Project, *arguments: str | Path, given: bytes = b"", exits: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*FASHION, "predict", *arguments],
        cwd=project.folder,
        env=project.environment,
        input=given,
        capture_output=True,
        check=False,
    )
    said = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert said.returncode == exits, said.stderr
    return said


@pytest.fixture(scope="module")
def picture(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file that holds test image 0."""
    test = dataset.load(project.folder / "data" / "test.npz")
    path = tmp_path_factory.mktemp("pictures") / "line.png"
    Image.fromarray(test.images[0]).save(path)
    return path


def test_a_test_image(project: Project) -> None:
    said = predict(project, "--test-index", "0")
    assert said.stderr == ""
    (line,) = said.stdout.splitlines()
    assert line.startswith("test image 0: ")
    assert line.endswith(f"(actual: {CLASSES[0]})")
    assert line.count("%") == 3


def test_for_programs(project: Project, picture: Path) -> None:
    indices = ("--test-index", "0", "--test-index", "4")
    said = predict(project, "--json", picture, "-", *indices, given=picture.read_bytes())
    zero, four, file, stdin = (json.loads(line) for line in said.stdout.splitlines())
    assert [answer["image"] for answer in (zero, four, file, stdin)] == [
        "test image 0",
        "test image 4",
        str(picture),
        "-",
    ]
    assert (zero["actual"], four["actual"], file["actual"]) == (CLASSES[0], CLASSES[1], None)
    assert file["probabilities"] == stdin["probabilities"] == zero["probabilities"]
    assert set(zero["probabilities"]) == set(CLASSES)
    assert sum(zero["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert zero["confidence"] == zero["probabilities"][zero["label"]] == max(zero["probabilities"].values())


def test_it_answers_as_the_export_stage_says(project: Project) -> None:
    expected = np.load(project.folder / "models" / "dnn" / "exported_probabilities.npy")
    said = predict(project, "--json", "--model", "dnn", *(word for i in range(90) for word in ("--test-index", str(i))))
    found = [json.loads(line)["probabilities"] for line in said.stdout.splitlines()]
    np.testing.assert_allclose([[row[name] for name in CLASSES] for row in found], expected, atol=1e-5)


def test_what_cannot_be_answered_is_told_and_the_rest_answered(project: Project, picture: Path) -> None:
    bad = picture.parent / "letter.png"
    bad.write_text("no picture")
    said = predict(project, bad, picture, "nowhere.png", picture.parent, exits=2)
    assert said.stdout.startswith(f"{picture}: ")
    assert len(said.stdout.splitlines()) == 1
    assert said.stderr.splitlines() == [
        f"error: {bad}: not a picture, or in another format; PNG, JPEG and WebP are read",
        "error: nowhere.png: No such file or directory",
        f"error: {picture.parent}: a directory; name the pictures in it: {picture.parent}/*",
    ]


def test_a_name_that_is_no_text(project: Project, picture: Path) -> None:
    name = os.fsencode(picture.parent) + b"/\xff.png"
    Path(os.fsdecode(name)).write_bytes(picture.read_bytes())
    said = predict(project, os.fsdecode(name), os.fsdecode(name + b"g"), exits=2)
    assert said.stdout.startswith(rf"{picture.parent}/\xff.png: ")
    assert said.stderr == rf"error: {picture.parent}/\xff.pngg: No such file or directory" + "\n"


def test_noise_is_not_familiar(project: Project, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 24), np.uint8)).save(tmp_path / "noise.png")
    assert "noise.png: not sure, it is unlike the training images: " in predict(project, tmp_path / "noise.png").stdout


def test_the_background_can_be_told(project: Project, picture: Path) -> None:
    answers = [
        predict(project, "--json", "--background", background, picture).stdout for background in ("dark", "light")
    ]
    assert answers[0] == predict(project, "--json", picture).stdout != answers[1]


def test_the_figure(project: Project, picture: Path, tmp_path: Path) -> None:
    predict(project, "--figure", tmp_path / "out.png", "--test-index", "0", picture)
    assert Image.open(io.BytesIO((tmp_path / "out.png").read_bytes())).format == "PNG"


def test_it_needs_no_tensorflow(project: Project) -> None:
    done = project.run("python", "-X", "importtime", "-m", "fashion.cli", "predict", "--test-index", "0")
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "ai_edge_litert" in imported
    assert imported & {"tensorflow", "keras", "pandas", "scipy", "matplotlib", "pydantic", "dvc"} == set()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "error: no picture; name a file, or a test image with --test-index"),
        (["--test-index", "90"], "error: no test image 90; they are numbered from 0 to 89"),
        (["--test-index", "-1"], "error: no test image -1; they are numbered from 0 to 89"),
        (["--model", "rnn", "--test-index", "0"], "error: no exported model rnn; there are: cnn, dnn"),
        (
            ["--test-index", "0", "--figure", "out.jpg"],
            "error: out.jpg: --figure writes a PNG file; name one that ends in .png",
        ),
    ],
)
def test_bad_questions(project: Project, arguments: list[str], says: str) -> None:
    said = predict(project, *arguments, exits=2)
    assert (said.stdout, said.stderr) == ("", f"{says}\n")


def test_a_model_that_is_missing_or_altered(project: Project) -> None:
    model = project.folder / "models" / "cnn" / "model.tflite"
    content = model.read_bytes()
    try:
        model.unlink()
        said = predict(project, "--test-index", "0", exits=2)
        assert said.stderr == "error: models/cnn/model.tflite is missing; `dvc repro export@cnn` makes it\n"
        model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        said = predict(project, "--test-index", "0", exits=2)
        assert said.stderr.startswith("error: models/cnn/model.tflite was altered: its MD5 is ")
        assert said.stderr.endswith("; delete it and run `dvc repro export@cnn`\n")
    finally:
        project.run("dvc", "checkout", "-q", "--force", "models/cnn/model.tflite")


@pytest.mark.parametrize("content", [b"\xff", b"- a list", b"stages: 3"])
def test_a_broken_lock(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "dvc.lock").write_bytes(content)
    with pytest.raises(UserError, match=r"dvc\.lock: not what `dvc repro` writes"):
        Artifacts(tmp_path)


def test_the_figure_says_what_the_model_says() -> None:
    ranking = (("level", 0.8), ("slope", 0.2))
    seen = np.zeros((20, 24), np.uint8)
    shown = [
        Prediction(Picture("folder/PXL_20240612_184512345.PORTRAIT.jpg", seen), ranking, True, None),
        Prediction(Picture("test image 3", seen, 1), ranking, False, "slope"),
    ]
    first, second = draw(shown).axes
    assert first.get_title() == "PXL_20240612_18451234…"
    assert second.get_title() == "actual: slope"
    texts = [" ".join(text.get_text() for text in ax.texts) + ax.get_xlabel() for ax in (first, second)]
    assert "predicted: level\nconfidence 80.0%" in texts[0]
    assert "not sure: level\nconfidence 80.0%" in texts[1]


def test_no_project(project: Project, tmp_path: Path) -> None:
    done = subprocess.run(
        [*FASHION, "predict", "--test-index", "0"],
        cwd=tmp_path,
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "error: dvc.lock is missing; run this in the folder of the project, after `make`\n"
