"""The pipeline from end to end, run by DVC on a small generated data set."""

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dvc.repo import Repo
from markupsafe import escape
from ruamel.yaml import YAML

from fashion.data import dataset
from fashion.dvc import Lock
from fashion.errors import UserError
from fashion.evaluation.metrics import summary
from fashion.evaluation.predictions import Predictions, sha256
from fashion.pipeline import delete_broken_rwlock, delete_damaged, restore_lock
from tests.conftest import CLASSES, FASHION, MODELS, Project

FIRST, LAST = MODELS[0], MODELS[-1]
TRAIN = {f"train_{model}" for model in MODELS}
EVALUATE = {f"evaluate@{model}" for model in MODELS}
EXPORT = {f"export@{model}" for model in MODELS}
REPORT = {"plot", "card"}
FIGURES = ["samples_train", "samples_test", "data_audit", "accuracy", "loss", "reliability"] + [
    f"{kind}_{model}" for kind in ("confusion", "predictions", "mistakes") for model in MODELS
]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stale(project: Project) -> set[str]:
    with Repo(str(project.folder)) as repo:
        stages = repo.status(targets=[str(project.folder / "dvc.yaml")])  # not the studies, which take far longer
    return {name.rpartition(":")[2] for name in stages}


def stages_run(output: str) -> list[str]:
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage ")]


def test_outputs(project: Project) -> None:
    reports = project.folder / "reports"
    assert sorted(path.stem for path in (reports / "figures").iterdir()) == sorted(FIGURES)
    for model in MODELS:
        history = pd.read_csv(reports / model / "history.csv")
        assert list(history) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]
        assert history["epoch"].tolist() == [1, 2]
        metrics = json.loads((reports / model / "metrics.json").read_text())
        assert list(metrics["recall"]) == CLASSES
        probabilities = np.load(project.folder / "models" / model / "probabilities.npy")
        assert probabilities.shape == (90, len(CLASSES))
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
        recorded = Predictions.parse((reports / model / "predictions.csv").read_bytes(), tuple(CLASSES), "")
        test = dataset.load(project.folder / "data" / "test")
        expected = Predictions.of(probabilities, test.labels, tuple(CLASSES))
        np.testing.assert_array_equal(recorded.labels, expected.labels)
        np.testing.assert_array_equal(recorded.predicted, expected.predicted)
        np.testing.assert_allclose(recorded.probability, expected.probability, rtol=5e-4)
        assert metrics["test_set"] == sha256(test)
        assert metrics["inference_flops"] > metrics["parameters"]
        assert metrics.items() >= summary(recorded, bins=15).items()
        export = json.loads((reports / model / "export.json").read_text())
        assert export["float32"]["label_changes"] == 0
        assert {"accuracy", "balanced_accuracy", "macro_f1"} <= set(export["int8"])
        assert export["int8"]["bytes"] < export["float32"]["bytes"] < export["keras"]["bytes"]


def test_report_page(project: Project) -> None:
    """It contains every figure and needs no network."""
    page = (project.folder / "reports" / "index.html").read_text()
    assert page.count("data:image/png;base64,") == len(FIGURES)
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'>)]{1,9})""", page)
    assert {address[:5] for address in addresses if not address.startswith("#")} == {"data:"}
    assert all(f"<td>{escape(name)}</td>" in page for name in CLASSES)


def test_tracked_files(project: Project) -> None:
    tracked = project.run("git", "ls-files").stdout.splitlines()
    assert {f"reports/{LAST}/metrics.json", f"reports/{LAST}/history.csv", "reports/figures/loss.png"} <= set(tracked)
    assert {path for path in tracked if path.startswith(("data/", "models/"))} <= {
        *("data/README.md", "data/about.md", "models/README.md")
    }


def test_damaged_cache(copied: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the damaged files are deleted: one of a folder, a folder's list, and a file."""
    cache = copied.folder / ".dvc" / "cache" / "files" / "md5"
    lock = Lock.read(copied.folder)
    model, raw = lock.outputs[f"models/{FIRST}/model.keras"], lock.outputs["data/raw"]
    image = hashlib.md5((copied.folder / "data" / "train" / "images.npy").read_bytes()).hexdigest()  # noqa: S324
    assert model
    assert raw
    damaged = [cache / name[:2] / name[2:] for name in (model, raw, image)]
    for path in damaged:
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1])
        path.chmod(0o444)  # DVC trusts such files
    before = {path for path in cache.rglob("*") if path.is_file()}
    delete_damaged(copied.folder)
    assert before - {path for path in cache.rglob("*") if path.is_file()} == set(damaged)
    assert capsys.readouterr().out.count(": damaged; ") == 3


@pytest.mark.parametrize(("content", "left"), [(None, False), ("", False), ('{"write', False), ('{"write": {}}', True)])
def test_broken_rwlock(tmp_path: Path, content: str | None, left: bool) -> None:
    path = tmp_path / "rwlock"
    if content is not None:
        path.write_text(content)
    delete_broken_rwlock(tmp_path)
    assert path.exists() == left


LOCK = """schema: '2.0'
stages:
  fetch:
    cmd: a
    outs:
    - path: data
      hash: md5
      md5: 0123456789abcdef0123456789abcdef.dir
      size: 20
      nfiles: 2
    - path: report
      hash: md5
      md5: 0123456789abcdef0123456789abcdef
      size: 10
"""


@pytest.fixture
def locked_folder(tmp_path: Path) -> Path:
    """A DVC project whose stage has run."""
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    (tmp_path / ".dvc" / "config").touch()
    (tmp_path / "dvc.yaml").write_text("stages: {fetch: {cmd: a, outs: [data, report]}}")
    (tmp_path / "dvc.lock").write_text(LOCK)
    for command in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "lock")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_half_written_lock(locked_folder: Path) -> None:
    path = locked_folder / "dvc.lock"
    for cut in range(len(LOCK)):
        path.write_text(LOCK[:cut])
        restore_lock(locked_folder)
        assert path.read_text() == LOCK


def test_half_written_lock_without_commit(locked_folder: Path) -> None:
    path = locked_folder / "dvc.lock"
    subprocess.run(["git", "update-ref", "-d", "HEAD"], cwd=locked_folder, check=True)
    restore_lock(locked_folder)
    assert path.read_text() == LOCK
    path.write_text(LOCK[:-3])
    restore_lock(locked_folder)
    restore_lock(locked_folder)
    assert not path.exists()


def test_lock_without_a_new_output(locked_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (locked_folder / "dvc.yaml").write_text("stages: {fetch: {cmd: a, outs: [data, report, more]}}")
    restore_lock(locked_folder)
    assert capsys.readouterr().out == ""


def test_uncommitted_lock_without_a_new_output(locked_folder: Path) -> None:
    newer = LOCK.replace("cmd: a", "cmd: b")
    (locked_folder / "dvc.lock").write_text(newer)
    (locked_folder / "dvc.yaml").write_text("stages: {fetch: {cmd: a, outs: [data, report, more]}}")
    restore_lock(locked_folder)
    assert (locked_folder / "dvc.lock").read_text() == newer


def test_stage_of_the_same_name(locked_folder: Path) -> None:
    """Outputs of a stage of the same name in another folder are not expected in this dvc.lock."""
    study = locked_folder / "study"
    study.mkdir()
    (study / "dvc.yaml").write_text("stages: {fetch: {cmd: a, outs: [other]}}")
    subprocess.run(["git", "update-ref", "-d", "HEAD"], cwd=locked_folder, check=True)
    restore_lock(locked_folder)
    assert (locked_folder / "dvc.lock").read_text() == LOCK


def test_mistake_in_dvc_yaml(locked_folder: Path) -> None:
    """DVC reports it."""
    (locked_folder / "dvc.yaml").write_text("stages: {fetch: {depps: [a], cmd: a}}")
    newer = LOCK.replace("cmd: a", "cmd: b")
    (locked_folder / "dvc.lock").write_text(newer)
    restore_lock(locked_folder)
    assert (locked_folder / "dvc.lock").read_text() == newer


def test_lock_with_conflicts(locked_folder: Path) -> None:
    path = locked_folder / "dvc.lock"
    path.write_text(f"{LOCK}<<<<<<< HEAD\n")
    with pytest.raises(UserError, match="git checkout --ours"):
        restore_lock(locked_folder)
    assert path.exists()


NETWORK = f"fashion/models/{FIRST}.py"
PROMISES = {  # edited files, and the stages that then are stale
    "nothing": ([], set()),
    "figures": (["fashion/evaluation/figures.py", "fashion/evaluation/report.html"], {"plot"}),
    "model card": (["fashion/evaluation/model_card.md", "data/about.md"], {"card"}),
    "metrics": (["fashion/evaluation/metrics.py"], EVALUATE | EXPORT | REPORT),
    "one network": ([NETWORK], {f"train_{FIRST}"}),
    "training": (["fashion/models/training.py", "fashion/models/hard_examples.py"], TRAIN),
    "export": (["fashion/export/convert.py", "fashion/export/ood.py"], EXPORT),
    "data source": (["fashion/data/sources.py"], {"fetch"}),
    "no stage": (
        [
            *("fashion/cli.py", "fashion/dvc_deps.py", "fashion/environment.py", "fashion/params.py"),
            *("fashion/validation.py", "fashion/pipeline.py", "fashion/review/report.md", "fashion/serving/app.py"),
            *("fashion/evaluation/results.py", "README.md"),
        ],
        set(),
    ),
}


@pytest.mark.parametrize("promise", PROMISES)
def test_stale_after_editing_files(copied: Project, promise: str) -> None:
    files, expected = PROMISES[promise]
    for file in files:
        path = copied.folder / file
        path.write_bytes(path.read_bytes() + b"\n# edited\n")
    assert stale(copied) == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("fetch.timeout", {"fetch"}),
        ("audit.near_duplicate_distance", {"preprocess"}),
        ("training.epochs", TRAIN | REPORT),
        (f"models.{FIRST}.seed", {f"train_{FIRST}"} | REPORT),
        ("evaluation.calibration_bins", EVALUATE | EXPORT | {"plot"}),
        ("export.representative_images", EXPORT),
        ("review.significance", set()),
    ],
)
def test_stale_after_editing_params(copied: Project, key: str, expected: set[str]) -> None:
    *sections, name = key.split(".")

    def edit(params: Any) -> None:
        for section in sections:
            params = params[section]
        params[name] = params.get(name, 0) + 1

    copied.edit_params(edit)
    assert stale(copied) == expected


def test_second_run(copied: Project) -> None:
    before = digest(copied.folder / "dvc.lock")
    output = copied.run("dvc", "repro").stdout
    assert stages_run(output) == []
    assert "up to date" in output
    assert digest(copied.folder / "dvc.lock") == before


@pytest.mark.parametrize("stage", ["preprocess", f"train_{FIRST}", pytest.param("export", marks=pytest.mark.slow)])
def test_params_that_do_not_fit(copied: Project, tmp_path: Path, stage: str) -> None:
    """They end a stage before it writes anything."""
    data = [f"data/{part}" for part in ("train", "validation", "test")]
    output = tmp_path / "output"
    inputs = {"preprocess": ["data/raw"], "export": [f"models/{FIRST}/model.keras", *data]}.get(stage, data[:2])
    outputs = [output / str(n) for n in range({"preprocess": 4}.get(stage, 2))]
    copied.edit_params(lambda params: params["training"]["augmentation"].update(translate=20))
    done = copied.run(sys.executable, "-m", f"stages.{stage}", *inputs, *map(str, outputs), check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == (
        f"error: params.yaml: models.{FIRST}.augmentation.translate: 20 pixels can move images of 20 x 24 pixels "
        "out of view; use at most 19"
    )
    assert not output.exists()


def test_wrong_network_params(copied: Project) -> None:
    """`make` reports them before DVC deletes the outputs of a stage."""
    copied.edit_params(lambda params: params["models"][FIRST].update(layrs=3))
    done = copied.run(*FASHION, "run", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: params.yaml: models.{FIRST}.layrs: unknown key\n"
    assert (copied.folder / "models" / FIRST / "model.keras").exists()


def test_images_without_make_deps(copied: Project) -> None:
    """DVC would not see changes in images/."""

    def edit(params: Any) -> None:
        params["dataset"]["format"] = "folder"
        params["fetch"] = {"folder": "images", "unreadable": 0, "test_fraction": 0.2, "seed": 1}

    copied.edit_params(edit)
    done = copied.run(*FASHION, "run", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: dvc.yaml: the stage fetch does not depend on images; run `make deps`\n"


def test_other_folder(copied: Project) -> None:
    elsewhere = replace(copied, folder=copied.folder / "docs")
    expected = f"error: there is no {elsewhere.folder}/params.yaml; run this in the project's folder\n"
    assert elsewhere.run(*FASHION, "run", check=False).stderr == expected


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


@pytest.fixture
def hostile_home(tmp_path: Path) -> Path:
    """Return a home folder whose settings would change the results."""
    home = tmp_path / "home"
    (home / ".keras").mkdir(parents=True)
    keras = {"backend": "jax", "epsilon": 1, "floatx": "float64", "image_data_format": "channels_first"}
    (home / ".keras" / "keras.json").write_text(json.dumps(keras))
    (home / ".config" / "matplotlib").mkdir(parents=True)
    (home / ".config" / "matplotlib" / "matplotlibrc").write_text("savefig.dpi: 30\nfont.size: 40\n")
    return home


def test_environment_has_no_effect(project: Project, hostile_home: Path, tmp_path: Path) -> None:
    """Nor do the user's settings, on a training run."""
    hostile = Project(project.folder, {**project.environment, **HOSTILE, "HOME": str(hostile_home)})
    new = {f"models/{FIRST}/model.keras": tmp_path / "model", f"reports/{FIRST}/history.csv": tmp_path / "history"}
    splits = ("data/train", "data/validation")
    hostile.run(sys.executable, "-m", f"stages.train_{FIRST}", *splits, *map(str, new.values()))
    assert {path for path, other in new.items() if digest(project.folder / path) != digest(other)} == set()


@pytest.mark.slow
def test_environment_has_no_effect_on_the_pipeline(project: Project, hostile_home: Path, tmp_path: Path) -> None:
    """With one of the models; the others run the same code."""
    folder = shutil.copytree(project.folder, tmp_path / "the \"folder\" of 'somebody'", symlinks=True)
    hostile = Project(folder, {**project.environment, **HOSTILE, "HOME": str(hostile_home)})
    stages = ["fetch", "preprocess", f"train_{LAST}", f"evaluate@{LAST}", f"export@{LAST}", "plot", "card"]
    assert stages_run(hostile.run("dvc", "repro", "--force", "--single-item", *stages).stdout) == stages
    locks = [YAML(typ="safe").load(place / "dvc.lock")["stages"] for place in (project.folder, folder)]
    assert locks[0] == locks[1]


@pytest.mark.slow
def test_failed_verification(project: Project, tmp_path: Path) -> None:
    """An export that predicts otherwise fails and leaves no file."""
    data = [f"data/{part}" for part in ("train", "validation", "test")]
    strict = "from fashion.export import verify; verify.TOLERANCE = 0; from stages.export import *; run_command(main)"
    files = [f"models/{FIRST}/model.keras", *data, str(tmp_path / "models"), str(tmp_path / "f.json")]
    done = project.run(sys.executable, "-c", strict, *files, check=False)
    assert done.returncode == 1
    expected = rf"error: the LiteRT model made from models/{FIRST}/model\.keras does not match it: probabilities differ"
    assert re.match(expected, done.stderr.splitlines()[-1])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_interrupted_training(project: Project, tmp_path: Path, number: signal.Signals) -> None:
    outputs = [tmp_path / "model.keras", tmp_path / "history.csv"]
    command = [
        sys.executable,
        "-m",
        f"stages.train_{FIRST}",
        "data/train",
        "data/validation",
        *map(str, outputs),
    ]
    with subprocess.Popen(
        [*command, "--set", "epochs=100000"],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as training:
        try:
            assert training.stdout is not None
            assert training.stdout.readline().startswith(f"{FIRST} epoch 1/100000")
            training.send_signal(number)
            _, errors = training.communicate(timeout=60)
        finally:
            training.kill()
    assert (training.returncode, errors) == (128 + number, "interrupted\n")
    assert list(tmp_path.iterdir()) == []
