"""Checkpoints: an interrupted training continues and ends with the same bytes; it stops if DVC is killed."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import psutil
import pytest
from ruamel.yaml import YAML

from fashion.data import dataset
from fashion.errors import UserError
from fashion.models import checkpoints, networks, saving, training
from fashion.params import TrainingParams
from fashion.stores import FOLDER, file_store
from tests.conftest import MODELS, Project, clone
from tests.test_models import EACH, NETWORK, PARAMS, TRAIN, VALIDATION, small_params

slow = pytest.mark.slow


@dataclass
class MemoryStore:
    """Keeps all checkpoints; a training continues from the last one."""

    contents: list[bytes] = field(default_factory=list)

    def read(self) -> bytes | None:
        return self.contents[-1] if self.contents else None

    def write(self, content: bytes) -> None:
        self.contents.append(content)


@pytest.fixture
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a checkpoint after every epoch."""
    monkeypatch.setattr(checkpoints, "INTERVAL", -1)


def trained(name: str, params: TrainingParams, folder: Path, store: MemoryStore | None = None) -> tuple[bytes, str]:
    """Return the model file and the history of a training run."""
    model, history = training.train(networks.load(name), params, TRAIN, VALIDATION, store)
    saving.save(model, folder / "model.keras")
    return (folder / "model.keras").read_bytes(), history.to_csv()


@EACH
@pytest.mark.usefixtures("every_epoch")
def test_continued_after_each_epoch(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bytes are those of an uninterrupted training, also without a store, whatever has a state of its own."""
    params = small_params(name)
    changes = {"hard_examples": params.hard_examples.model_copy(update={"refresh_every": 2})}
    if hasattr(params, "dropout"):
        changes["dropout"] = 0.2
    params = params.model_copy(update=changes)
    expected = trained(name, params, tmp_path)
    store = MemoryStore()
    assert trained(name, params, tmp_path, store) == expected
    assert len(store.contents) == params.epochs - 1 == 3  # the ranking of the third epoch is also that of the fourth
    for epoch, content in enumerate(store.contents, 1):
        capsys.readouterr()
        assert trained(name, params, tmp_path, MemoryStore([content])) == expected
        printed = capsys.readouterr().out
        assert printed.startswith(f"{name}: resumes after epoch {epoch}\n{name} epoch {epoch + 1}/4 ")


@pytest.mark.usefixtures("every_epoch")
def test_seconds() -> None:
    """The processor time of a continued training includes that of the interrupted one."""
    training.train(NETWORK, PARAMS, TRAIN, VALIDATION, store := MemoryStore())
    first, *_, last = (checkpoints.seconds(MemoryStore([content])) for content in store.contents)
    assert 0 < first < last
    continued = MemoryStore(store.contents[-1:])
    training.train(NETWORK, PARAMS.model_copy(update={"epochs": 6}), TRAIN, VALIDATION, continued)
    assert checkpoints.seconds(continued) > last
    assert checkpoints.seconds(None) == checkpoints.seconds(MemoryStore([b"damaged"])) == 0


def test_no_checkpoint_of_a_short_training() -> None:
    training.train(NETWORK, PARAMS, TRAIN, VALIDATION, store := MemoryStore())
    assert store.contents == []


@pytest.mark.usefixtures("every_epoch")
def test_damaged() -> None:
    training.train(NETWORK, PARAMS.model_copy(update={"epochs": 2}), TRAIN, VALIDATION, store := MemoryStore())
    (content,) = store.contents
    other = PARAMS.model_copy(update={"optimizer": "adam" if PARAMS.optimizer == "muon" else "muon"})
    for damaged, params in ((content[:-1000], PARAMS), (b"damaged", PARAMS), (content, other)):
        with pytest.raises(
            UserError, match=r"(?s)its checkpoint is damaged .* delete the \.npz files in \.dvc/tmp/checkpoints"
        ):
            training.train(NETWORK, params, TRAIN, VALIDATION, MemoryStore([damaged]))


# Files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


OUTPUT, OTHER = Path("models", "one", "model.keras"), Path("models", "two", "model.keras")


def interrupted(output: Path, key: str) -> None:
    """Write a checkpoint and interrupt the training."""
    with suppress(KeyboardInterrupt), file_store(output, key) as store:
        store.write(b"old")
        store.write(f"{output} {key}".encode())
        raise KeyboardInterrupt


@pytest.mark.usefixtures("folder")
def test_file() -> None:
    """A checkpoint outlives an interruption and is deleted after a success."""
    interrupted(OUTPUT, "key")
    with file_store(OUTPUT, "key") as store:
        assert store.read() == f"{OUTPUT} key".encode()
    assert not list(FOLDER.glob("*.npz"))
    with file_store(OUTPUT, "key") as store:
        assert store.read() is None


@pytest.mark.usefixtures("folder")
def test_other_key() -> None:
    """A checkpoint of another training of the same model is deleted; one of another model is not."""
    interrupted(OUTPUT, "old")
    interrupted(OTHER, "old")
    with file_store(OUTPUT, "new") as store:
        assert store.read() is None
        assert len(list(FOLDER.glob("*.npz"))) == 1
    with file_store(OTHER, "old") as store:
        assert store.read() == f"{OTHER} old".encode()


@pytest.mark.usefixtures("folder")
def test_same_output() -> None:
    with file_store(OUTPUT, "key"):
        with pytest.raises(UserError, match=f"another process is training {OUTPUT}; wait"), file_store(OUTPUT, "key"):
            pytest.fail("two trainings of one model")
        with file_store(OTHER, "key"):
            pass


# The stage


CODE = "from fashion.models import checkpoints; checkpoints.INTERVAL = -1; from stages.train_{0} import main; "
CODE += "from fashion.errors import run_command; run_command(main)"
NAME = MODELS[0]
STAGE = ["data/train", "data/validation", f"models/{NAME}/model.keras", f"reports/{NAME}/history.csv"]
LONG = ["--set", "epochs=40"]


@pytest.fixture
def project(tmp_path: Path, raw_folder: Path) -> Project:
    """Return a clone with splits."""
    (tmp_path / "clone").mkdir()
    cloned = clone(tmp_path / "clone", raw_folder)
    dataset.save(TRAIN, cloned.folder / "data" / "train")
    dataset.save(VALIDATION, cloned.folder / "data" / "validation")
    return cloned


@contextmanager
def started(project: Project, *command: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command; yield it after the third epoch of its training; kill it in the end."""
    with subprocess.Popen(
        command, cwd=project.folder, env=project.environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            lines = iter(process.stdout.readline, "")
            assert any(f"{NAME} epoch 3/" in line for line in lines)
            yield process
        finally:
            process.kill()


@slow
def test_killed_stage(project: Project) -> None:
    """Its history has every epoch so far; it continues when it is run again."""
    command = [sys.executable, "-c", CODE.format(NAME), *STAGE, *LONG]
    model, history = (project.folder / path for path in STAGE[2:])
    with started(project, *command) as stage:
        stage.kill()
    assert not model.exists()
    before = history.read_bytes()
    assert len(pd.read_csv(history)) >= 2
    done = project.run(*command)
    assert re.match(rf"{NAME}: resumes after epoch \d+\n", done.stdout)
    assert model.exists()
    assert history.read_bytes().startswith(before)
    assert list(pd.read_csv(history)["epoch"]) == [*range(1, 41)]
    assert not list((project.folder / FOLDER).glob("*.npz"))


def test_dvc_killed_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(
        "from fashion import parent; print('ready', flush=True); input(); parent.check()"
    )
    (tmp_path / "dvc.py").write_text("import subprocess, sys; subprocess.run([sys.executable, 'child.py'])")
    for killed in (False, True):
        with subprocess.Popen(
            [sys.executable, "dvc.py"],
            cwd=tmp_path,
            env={**os.environ, "DVC_STAGE": "train"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as dvc:
            assert dvc.stdout
            assert dvc.stdout.readline() == "ready\n"
            if killed:
                dvc.kill()
                dvc.wait()
            _, errors = dvc.communicate("\n")  # returns when the child has ended, too
        assert ("DVC is no longer running, so this stage stops" in errors) == killed, errors


@slow
def test_killed_dvc(project: Project) -> None:
    """The training stops and leaves no lock behind, so that DVC can start it again."""
    stage = {"cmd": " ".join(["python", "-m", f"stages.train_{NAME}", *STAGE, "--set", "epochs=4000"])}
    YAML().dump({"stages": {"train": stage}}, project.folder / "dvc.yaml")
    for _ in range(2):
        with started(project, sys.executable, "-m", "dvc", "repro", "train") as dvc:
            below = psutil.Process(dvc.pid).children(recursive=True)
            assert any(f"stages.train_{NAME}" in process.cmdline() for process in below)
            dvc.kill()
            _, alive = psutil.wait_procs(below, timeout=60)
        assert alive == []
