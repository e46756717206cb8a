"""The real dvc.yaml from end to end, through the real `dvc`, on a small generated data set."""

import hashlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dvc.repo import Repo
from markupsafe import escape
from ruamel.yaml import YAML

from tests.conftest import CLASSES, FASHION, Project, clone

PICTURES = ["samples_train", "samples_test", "data_audit", "accuracy", "loss", "reliability"] + [
    f"{kind}_{model}" for kind in ("confusion", "predictions", "mistakes") for model in ("dnn", "cnn")
]
TRAIN_DNN = {"train_dnn"}
TRAIN_CNN = {"train_cnn"}
TRAIN = TRAIN_DNN | TRAIN_CNN
EVALUATE = {"evaluate@dnn", "evaluate@cnn"}
EXPORT = {"export@dnn", "export@cnn"}
EVERY = {"fetch", "preprocess", "plot", "card"} | TRAIN | EVALUATE | EXPORT

STALE_AFTER_EDIT = {
    "fashion/__init__.py": EVERY,
    "fashion/cli.py": set(),
    "fashion/contract.py": set(),
    "fashion/environment.py": set(),
    "fashion/errors.py": EVERY,
    "fashion/files.py": EVERY,
    "fashion/params.py": set(),
    "fashion/pipeline.py": set(),
    "fashion/data/__init__.py": set(),
    "fashion/data/audit.py": {"preprocess"},
    "fashion/data/dataset.py": EVERY - {"fetch"},
    "fashion/data/idx.py": {"preprocess"},
    "fashion/data/sources.py": {"fetch"},
    "fashion/data/splitting.py": {"preprocess"},
    "fashion/evaluation/__init__.py": set(),
    "fashion/evaluation/calibration.py": EXPORT,
    "fashion/evaluation/card.md": {"card"},
    "fashion/evaluation/card.py": {"card"},
    "fashion/evaluation/comparison.py": set(),
    "fashion/evaluation/figures.py": {"plot"},
    "fashion/evaluation/fonts.py": {"preprocess", "plot"},
    "fashion/evaluation/markdown.py": {"card"},
    "fashion/evaluation/metrics.py": EVALUATE | EXPORT | {"plot", "card"},
    "fashion/evaluation/parity.py": EXPORT,
    "fashion/evaluation/report.html": {"plot"},
    "fashion/evaluation/report.py": {"plot"},
    "fashion/evaluation/results.py": set(),
    "fashion/models/__init__.py": TRAIN | EVALUATE | EXPORT,
    "fashion/models/archive.py": TRAIN | EVALUATE | EXPORT,
    "fashion/models/augmentation.py": TRAIN,
    "fashion/models/cnn.py": TRAIN_CNN,
    "fashion/models/dnn.py": TRAIN_DNN,
    "fashion/models/export.py": EXPORT,
    "fashion/models/layers.py": TRAIN | EVALUATE | EXPORT,
    "fashion/models/optimizers.py": TRAIN | EVALUATE | EXPORT,
    "fashion/models/progress.py": TRAIN,
    "fashion/models/selection.py": TRAIN,
    "fashion/models/training.py": TRAIN,
    "fashion/review/__init__.py": set(),
    "fashion/review/changes.py": set(),
    "fashion/review/compare.py": set(),
    "fashion/review/pictures.py": set(),
    "fashion/review/report.html": set(),
    "fashion/review/report.md": set(),
    "fashion/review/report.py": set(),
    "fashion/review/revision.py": set(),
    "fashion/serving/__init__.py": set(),
    "fashion/serving/artifacts.py": set(),
    "fashion/serving/classifier.py": set(),
    "fashion/serving/demo.py": set(),
    "fashion/serving/drawing.py": set(),
    "fashion/serving/familiarity.py": EXPORT,
    "fashion/serving/litert.py": EXPORT,
    "fashion/serving/neighbours.py": set(),
    "fashion/serving/page/page.html": set(),
    "fashion/serving/photos.py": set(),
    "fashion/serving/predicting.py": set(),
    "stages/__init__.py": EVERY,
    "stages/card.py": {"card"},
    "stages/evaluate.py": EVALUATE,
    "stages/export.py": EXPORT,
    "stages/fetch.py": {"fetch"},
    "stages/plot.py": {"plot"},
    "stages/preprocess.py": {"preprocess"},
    "stages/train_cnn.py": TRAIN_CNN,
    "stages/train_dnn.py": TRAIN_DNN,
}
STALE_AFTER_PARAM = {
    "dataset.name": {"preprocess", "plot", "card"} | EVALUATE | EXPORT,
    "fetch.timeout": {"fetch"},
    "validation.seed": {"preprocess"},
    "audit.near_duplicate_distance": {"preprocess"},
    "dnn.epochs": TRAIN_DNN | {"card"},
    "cnn.epochs": TRAIN_CNN | {"card"},
    "evaluation.calibration_bins": EVALUATE | EXPORT | {"plot"},
    "export.representative_images": EXPORT,
    "review.significance": set(),
}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stale(project: Project) -> set[str]:
    with Repo(str(project.folder)) as repo:
        stages = repo.status(targets=[str(project.folder / "dvc.yaml")])  # not the studies, which take far longer
    return {name.rpartition(":")[2] for name in stages}


def stages_run(output: str) -> list[str]:
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage ")]


def test_every_output_is_there(project: Project) -> None:
    reports = project.folder / "reports"
    assert sorted(path.stem for path in (reports / "figures").iterdir()) == sorted(PICTURES)
    for model in ("dnn", "cnn"):
        history = pd.read_csv(reports / model / "history.csv")
        assert list(history) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]
        assert history["epoch"].tolist() == [1, 2]
        metrics = json.loads((reports / model / "metrics.json").read_text())
        assert list(metrics["recall"]) == CLASSES
        probabilities = np.load(project.folder / "models" / model / "probabilities.npy")
        assert probabilities.shape == (90, len(CLASSES))
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
        export = json.loads((reports / model / "export.json").read_text())
        assert export["float32"]["label_changes"] == 0
        assert export["int8"]["bytes"] < export["float32"]["bytes"] < export["keras"]["bytes"]


def test_page_holds_every_picture_and_asks_the_network_for_nothing(project: Project) -> None:
    page = (project.folder / "reports" / "index.html").read_text()
    assert page.count("data:image/png;base64,") == len(PICTURES)
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'>)]{1,9})""", page)
    assert {address[:5] for address in addresses if not address.startswith("#")} == {"data:"}
    assert all(f"<td>{escape(name)}</td>" in page for name in CLASSES)


def test_git_sees_reports_and_dvc_holds_the_rest(project: Project) -> None:
    tracked = project.run("git", "ls-files").stdout.splitlines()
    assert {"reports/cnn/metrics.json", "reports/cnn/history.csv", "reports/figures/loss.png"} <= set(tracked)
    assert not [path for path in tracked if path.startswith(("data/", "models/"))]


def test_nothing_is_stale_after_a_run(project: Project) -> None:
    assert stale(project) == set()


def test_the_tables_name_every_source_file_and_section(project: Project) -> None:
    sources = {
        str(path.relative_to(project.folder))
        for folder in ("fashion", "stages")
        for path in (project.folder / folder).rglob("*.*")
        if path.suffix in {".py", ".html", ".md"}
    }
    assert sources == set(STALE_AFTER_EDIT)
    sections = YAML(typ="safe").load(project.folder / "params.yaml")
    assert set(sections) == {key.split(".")[0] for key in STALE_AFTER_PARAM}


@pytest.mark.parametrize("file", STALE_AFTER_EDIT)
def test_stages_stale_after_editing_a_file(project: Project, file: str) -> None:
    path = project.folder / file
    before = path.read_bytes()
    try:
        path.write_bytes(before + b"\n# edited\n")
        assert stale(project) == STALE_AFTER_EDIT[file]
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("key", STALE_AFTER_PARAM)
def test_stages_stale_after_editing_a_param(project: Project, key: str) -> None:
    path = project.folder / "params.yaml"
    before = path.read_bytes()
    section, name = key.split(".")

    def edit(params: Any) -> None:
        value = params[section][name]
        params[section][name] = value + ("s" if isinstance(value, str) else 1)

    try:
        project.edit_params(edit)
        assert stale(project) == STALE_AFTER_PARAM[key]
    finally:
        path.write_bytes(before)


def test_a_second_run_does_nothing(project: Project) -> None:
    before = digest(project.folder / "dvc.lock")
    output = project.run("dvc", "repro").stdout
    assert stages_run(output) == []
    assert "up to date" in output
    assert digest(project.folder / "dvc.lock") == before


@pytest.mark.parametrize("stage", ["preprocess", "train_dnn", "export"])
def test_params_that_do_not_fit_the_data_end_a_stage_before_it_writes(
    project: Project, tmp_path: Path, stage: str
) -> None:
    path = project.folder / "params.yaml"
    before = path.read_bytes()
    data = [f"data/{part}.npz" for part in ("train", "validation", "test")]
    inputs = {"preprocess": ["data/raw"], "train_dnn": data[:2], "export": ["models/dnn/model.keras", *data]}[stage]
    outputs = [tmp_path / str(n) for n in range({"preprocess": 4, "train_dnn": 2, "export": 6}[stage])]
    try:
        project.edit_params(lambda params: params["cnn"].update(filters=[8] * 9))
        command = [sys.executable, "-m", f"stages.{stage}", *inputs, *map(str, outputs)]
        done = subprocess.run(
            command, cwd=project.folder, env=project.environment, capture_output=True, text=True, check=False
        )
    finally:
        path.write_bytes(before)
    assert done.returncode == 1
    assert done.stderr == (
        "error: params.yaml: cnn.filters: images of 20 x 24 pixels are too small for 9 blocks, each of which halves "
        "them; use at most 4\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def edited(project: Project) -> Iterator[Project]:
    """Yield the project with one more epoch for the CNN, and put it back afterwards."""
    project.edit_params(lambda params: params["cnn"].update(epochs=3))
    yield project
    project.run("git", "checkout", "-q", ".")
    project.run("dvc", "checkout", "-q")


def test_changed_epochs_rerun_one_model_and_going_back_trains_nothing(edited: Project) -> None:
    model = edited.folder / "models" / "cnn" / "model.keras"
    lock, trained = digest(edited.folder / "dvc.lock"), digest(model)

    output = edited.run(*FASHION, "run").stdout
    run = stages_run(output)
    assert run[0] == "train_cnn"
    times = re.findall(r"(?m)^(\S+) +\d+\.\d s$", output)
    assert sorted(times) == sorted(run)
    assert sorted(run[1:3]) == ["evaluate@cnn", "export@cnn"]  # neither needs the other: DVC takes them in any order
    assert sorted(run[3:]) == ["card", "plot"]
    assert digest(model) != trained
    difference = json.loads(edited.run("dvc", "metrics", "diff", "--json").stdout)
    assert set(difference) == {"reports/cnn/metrics.json", "reports/cnn/export.json"}

    edited.edit_params(lambda params: params["cnn"].update(epochs=2))
    assert stages_run(edited.run("dvc", "repro").stdout) == ["card"]  # DVC keeps no results of it: they are in Git
    assert digest(model) == trained
    assert digest(edited.folder / "dvc.lock") == lock
    assert edited.run("git", "status", "--porcelain").stdout == ""


HOSTILE = {
    "GOTO_NUM_THREADS": "1",
    "KERAS_BACKEND": "jax",
    "KERAS_MAX_EPOCHS": "1",
    "LC_ALL": "C",
    "MPLBACKEND": "nonsense",
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "7",
    "PYTHONOPTIMIZE": "2",
    "TF_DETERMINISTIC_OPS": "0",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TMPDIR": "/nonexistent",
    "TZ": "Asia/Kathmandu",
}


def test_the_users_home_and_environment_change_no_byte(
    project: Project, tmp_path_factory: pytest.TempPathFactory, raw_folder: Path
) -> None:
    home = tmp_path_factory.mktemp("home")
    (home / ".keras").mkdir()
    keras = {"backend": "jax", "epsilon": 1, "floatx": "float64", "image_data_format": "channels_first"}
    (home / ".keras" / "keras.json").write_text(json.dumps(keras))
    (home / ".config" / "matplotlib").mkdir(parents=True)
    (home / ".config" / "matplotlib" / "matplotlibrc").write_text("savefig.dpi: 30\nfont.size: 40\n")
    other = clone(tmp_path_factory.mktemp("the \"folder\" of 'somebody'"), raw_folder)
    hostile = Project(other.folder, {**other.environment, **HOSTILE, "HOME": str(home)})
    hostile.run("dvc", "repro")
    locks = [YAML(typ="safe").load(place.folder / "dvc.lock")["stages"] for place in (project, hostile)]
    assert locks[0] == locks[1]


def test_an_export_that_answers_otherwise_fails_and_writes_nothing(project: Project, tmp_path: Path) -> None:
    data = [f"data/{part}.npz" for part in ("train", "validation", "test")]
    outputs = [tmp_path / name for name in ("a.tflite", "b.tflite", "c.npz", "d.npy", "e.npy", "f.json")]
    strict = (
        "from fashion.evaluation import parity; verify.TOLERANCE = 0; from stages.export import *; run_command(main)"
    )
    done = subprocess.run(
        ["python", "-c", strict, "models/dnn/model.keras", *data, *outputs],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    expected = r"error: .*/a\.tflite would not answer as models/dnn/model\.keras does: probabilities differ by up to \d"
    assert re.match(expected, done.stderr.splitlines()[-1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_leaves_nothing(project: Project, tmp_path: Path, number: signal.Signals) -> None:
    project.edit_params(lambda params: params["dnn"].update(epochs=100_000))
    outputs = [tmp_path / "model.keras", tmp_path / "history.csv"]
    try:
        with subprocess.Popen(
            ["python", "-m", "stages.train_dnn", "data/train.npz", "data/validation.npz", *outputs],
            cwd=project.folder,
            env=project.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as training:
            try:
                assert training.stdout is not None
                assert training.stdout.readline().startswith("dnn epoch 1/100000")
                training.send_signal(number)
                _, said = training.communicate(timeout=60)
            finally:
                training.kill()
    finally:
        project.run("git", "checkout", "-q", "params.yaml")
    assert (training.returncode, said) == (128 + number, "interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_dvc_plots_draws_every_chart_without_a_network(edited: Project) -> None:
    edited.run("python", ".dvc/plots/page.py")
    edited.run("dvc", "config", "--local", "plots.html_template", "plots/page.html")
    edited.run("dvc", "plots", "diff", "HEAD")
    page = (edited.folder / "dvc_plots" / "index.html").read_text()
    assert re.findall(r"""<(?:script|link|img)[^>]*(?:src|href)=["']?(?:https?:)?//""", page) == []
    specs = [json.loads(spec) for spec in re.findall(r"var spec = (\{.*?\});\s*vegaEmbed", page, re.DOTALL)]
    rows = {
        spec["title"]["text"] if isinstance(spec["title"], dict) else spec["title"]: spec["data"]["values"]
        for spec in specs
    }
    assert set(rows) == {
        "Accuracy",
        "Loss",
        "Validation accuracy of the DNN",
        "Validation accuracy of the CNN",
        "Confusion: dnn",
        "Confusion: cnn",
    }
    for chart in ("Accuracy", "Loss"):
        assert {row["filename"] for row in rows[chart]} == {"dnn/history.csv", "cnn/history.csv"}
    assert sum(int(row["count"]) for row in rows["Confusion: cnn"] if row["rev"] == "workspace") == 90
    assert len(re.findall(r"<img[^>]* src=", page)) >= len(PICTURES)
