"""Trials: known ones are not run again; every fault of a worker, a node, the driver and DVC, on a real cluster."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import psutil
import pytest
from ruamel.yaml import YAML

from benchmarks.cluster import ENVIRONMENT, free_port
from fashion import study, trials
from fashion.cluster import Head
from fashion.data import dataset
from fashion.data.dataset import Split
from fashion.errors import UserError
from fashion.files import write_json
from fashion.locks import locked
from fashion.params import load_params
from fashion.study import Study
from fashion.trials import Trial
from stages import study as stage
from tests.conftest import MODELS, ROOT, Project, clone, draw_lines
from tests.ray_cluster import HEALTH_CHECKS, in_session, kill_node, node, read_until, write_study
from tests.trainings import PAUSES

T = TypeVar("T")

PARAMS = load_params(ROOT / "params.yaml")
STAGE = ["-m", "stages.study", "study/params.yaml", "data/train", "data/validation", "study/trials.csv"]
IN_TERMINAL = [
    sys.executable,
    *("-c", "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"),
    *("sh", "-c", 'stty columns 100 rows 20 && exec "$@"', "sh"),
]
DEADLINE = 600  # seconds; on a busy machine, Ray alone needs a minute to start
slow = pytest.mark.slow
pytestmark = pytest.mark.timeout(1800)  # each slow test starts Ray, one or more times


# Declared trials


def test_each_model_is_a_variant(tmp_path: Path) -> None:
    found = study.read(write_study(tmp_path, all={"epochs": 3}), MODELS)
    assert found.variants == {model: {"model": model, "epochs": 3} for model in MODELS}


def test_model_of_all_variants(tmp_path: Path) -> None:
    found = study.read(write_study(tmp_path, all={"model": "cnn", "epochs": 3}), ["dnn", "cnn"])
    assert found.variants == {"cnn": {"model": "cnn", "epochs": 3}}


def test_variants(tmp_path: Path) -> None:
    everywhere = {"model": "cnn", "augmentation": {"translate": 2}}
    variants = {"short": {}, "flat": {"augmentation": {"flip": False}}}
    found = study.read(write_study(tmp_path, all=everywhere, variants=variants), ["cnn"])
    assert list(found.variants) == ["short", "flat"]
    assert found.variants["flat"] == {"model": "cnn", "augmentation": {"translate": 2, "flip": False}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seeds": []}, "seeds: "),
        ({"seeds": [-1]}, "seeds.0: "),
        ({"seeds": [1, 2, 1]}, "seeds: should list each seed once"),
        ({"all": {}, "variants": {"odd": {"model": "rnn"}}}, "variants.odd: model: found 'rnn', expected one of a, b"),
        ({"all": {}, "variants": {"odd": {}}}, "variants.odd: model: found None, expected one of a, b"),
        ({"all": {}, "variants": {"odd": {"model": ["a"]}}}, "variants.odd: model: found ['a'], expected one of a, b"),
        ({"all": {}, "variants": {"odd": {"model": "a", "seed": 7}}}, "variants.odd: seed: found 7; list the seeds"),
        ({"all": {"model": "a", "seed": 7}}, "all: seed: found 7; list the seeds"),
        ({"extra": 1}, "extra: unknown key"),
    ],
)
def test_mistakes_in_a_study(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    path = write_study(tmp_path, **values)
    with pytest.raises(UserError) as error:
        study.read(path, {"a": {}, "b": {}})
    assert str(error.value).startswith(f"{path}: {message}")


def of_study(variants: dict[str, dict[str, Any]], splits: Mapping[str, Path], cores: int = 1) -> list[Trial]:
    changes = {name: {"model": MODELS[0], **own} for name, own in variants.items()}
    return trials.of_study(Study(seeds=(2, 1), all={}, variants=changes), PARAMS, splits, cores)


def test_order_and_keys(tmp_path: Path) -> None:
    """Trials are in the order of the study; what the result depends on, and nothing else, changes the key."""
    splits = {"train": tmp_path / "train"}
    splits["train"].mkdir()
    (splits["train"] / "images.npy").write_bytes(b"1")
    before = of_study({"b": {}, "a": {"epochs": 3}}, splits)
    assert [str(trial) for trial in before] == ["b, seed 2", "b, seed 1", "a, seed 2", "a, seed 1"]
    assert all(trial.seed == trial.settings.seed for trial in before)
    assert len({trial.key for trial in before}) == 4
    changed = of_study({"renamed": {}, "a": {"epochs": 4}}, splits)
    assert [one.key == other.key for one, other in zip(before, changed, strict=True)] == [True, True, False, False]
    assert {trial.key for trial in of_study({"b": {}}, splits, cores=2)}.isdisjoint(trial.key for trial in before)
    (splits["train"] / "images.npy").write_bytes(b"2")
    assert {trial.key for trial in of_study({"b": {}}, splits)}.isdisjoint(trial.key for trial in before)


def test_mistakes_in_variants() -> None:
    with pytest.raises(UserError) as error:
        of_study({"good": {}, "bad": {"epochs": 0, "epoch": 1}, "worse": {"optimizer": "none"}}, {})
    places = sorted(":".join(line.split(":")[:2]) for line in str(error.value).splitlines())
    assert places == ["bad: epoch", "bad: epochs", "worse: optimizer"]


# Running them, with a stand-in for Ray


class Runner:
    """Stands in for Ray: trials end in the reverse order; those whose variants are in `bad` fail."""

    def __init__(self, bad: Collection[str] = ()) -> None:
        self.bad = bad
        self.ran: list[str] = []

    def __call__(self, missing: Collection[Trial], *_: Any) -> None:
        for trial in reversed(list(missing)):
            self.ran.append(trial.variant)
            if trial.variant not in self.bad:
                write_json(trial.result, {"val_accuracy": len(self.ran)})
        if problems := [trial.variant for trial in missing if trial.variant in self.bad]:
            raise UserError("\n".join(problems))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[str], list[Any]]]:
    """Return a function that runs trials named by letters; it returns which were run, and the results in order."""
    monkeypatch.chdir(tmp_path)

    def run(letters: str, bad: Collection[str] = (), **options: Any) -> tuple[list[str], list[Any]]:
        monkeypatch.setattr(trials, "_run", runner := Runner(bad))
        results = trials.run([Trial(letter, "net", 1, {}, letter) for letter in letters], dict, **options)
        return runner.ran, [(result["variant"], result["val_accuracy"]) for result in results]

    return run


def test_results_in_order(run: Callable[..., Any]) -> None:
    assert run("bca") == (["a", "c", "b"], [("b", 3), ("c", 2), ("a", 1)])


def test_known_trials(run: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    run("ab")
    assert run("bca") == (["c"], [("b", 1), ("c", 1), ("a", 2)])
    assert capsys.readouterr().out == "2 of 3 trials already have results\n"
    assert run("ca") == ([], [("c", 1), ("a", 2)])


def test_fresh(run: Callable[..., Any]) -> None:
    run("a")
    checkpoint = trials.FOLDER / "a.npz"
    checkpoint.touch()
    assert run("a", fresh=True)[0] == ["a"]
    assert not checkpoint.exists()
    assert run("a")[0] == []


def test_fresh_without_a_cluster(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are deleted only when trials can run."""
    original = trials._run
    run("a")
    monkeypatch.setattr(trials, "_run", original)
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:1")
    with pytest.raises(UserError, match="expected the HOST:PORT"):
        trials.run([Trial("a", "net", 1, {}, "a")], dict, fresh=True)
    assert run("a")[0] == []


def test_failure_keeps_the_others(run: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"^b$"):
        run("abc", bad="b")
    assert run("abc")[0] == ["b"]


def test_same_settings_are_trained_once(run: Callable[..., Any]) -> None:
    assert run("aa") == (["a"], [("a", 1), ("a", 1)])


def test_other_trials_are_running(run: Callable[..., Any]) -> None:
    with locked(trials.FOLDER / "lock", ""), pytest.raises(UserError, match="other trials are running in this folder"):
        run("a")


def test_cores(run: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="expected at least 1 core per trial, found --cores 0"):
        run("a", cores=0)


# Ray on this machine


def splits(folder: Path) -> None:
    """Write small splits into data/."""
    for seed, (name, count) in enumerate({"train": 300, "validation": 60, "test": 90}.items()):
        dataset.save(Split(*draw_lines(count, seed)), folder / "data" / name)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, raw_folder: Path) -> Iterator[Project]:
    """Return a clone with splits; copy it before changing it."""
    cloned = clone(tmp_path_factory.mktemp("clone"), raw_folder)
    splits(cloned.folder)
    # Not in the tests' own folder: the paths of sockets must be short.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        yield Project(cloned.folder, {**cloned.environment, "RAY_TMPDIR": scratch})


@pytest.fixture
def small(original: Project, tmp_path: Path) -> Project:
    """Return a copy that a test may change."""
    return Project(shutil.copytree(original.folder, tmp_path / "copy", symlinks=True), original.environment)


def table(project: Project) -> pd.DataFrame:
    return pd.read_csv(project.folder / "study" / "trials.csv").drop(columns="seconds")


@contextmanager
def started(project: Project, *command: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command in a project; kill it in the end."""
    with subprocess.Popen(
        command, cwd=project.folder, env=project.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], T], process: subprocess.Popen[str]) -> T:
    """Wait until a condition holds while a process runs; return its value."""
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return value


def failed(project: Project, **variables: str) -> tuple[str, str]:
    """Run the stage, which must exit with 1, and return its output and error messages."""
    done = replace(project, environment={**project.environment, **variables}).run(sys.executable, *STAGE, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


@slow
def test_resumed(small: Project) -> None:
    """A failed trial does not stop the others, whose results are reused; the rows are in the order of the study.

    A terminal shows a bar with the time left. The error of a failed trial names the trial and its params.
    """
    command = [sys.executable, *STAGE, "--test", "data/test"]
    write_study(small.folder, variants={"b": {}, "bad": {"augmentation": {"translate": 200}}})
    first = small.run(*IN_TERMINAL, *command, check=False)
    printed = re.sub(r"\x1b\[[\d;]*m", "", first.stdout)  # Ray may change the colour in front of any line
    assert first.returncode == 1
    assert "Traceback" not in printed
    assert printed.count("validation accuracy") == 2
    assert re.search(r"[1-3]/4 \[\d\d:\d\d<\d\d:\d\d, ", printed)
    assert re.search("bad, seed 1: failed$", printed, re.MULTILINE)
    message = r"^error: bad, seed 1: augmentation\.translate: 200 pixels can move images of 20 x 24 pixels"
    assert re.search(message + ".*; its params: .*translate=200", printed, re.MULTILINE)
    assert not (small.folder / "study" / "trials.csv").exists()

    write_study(small.folder, variants={"b": {}, "a": {"epochs": 1}})
    second = small.run(*command)
    assert "2 of 4 trials already have results" in second.stdout
    assert second.stdout.count("validation accuracy") == 2
    rows = table(small)
    assert list(zip(rows["variant"], rows["seed"], strict=True)) == [("b", 1), ("b", 2), ("a", 1), ("a", 2)]
    assert rows["accuracy"].between(0, 1, inclusive="right").all()
    wrong = rows["errors"].fillna("").str.split().map(len)
    np.testing.assert_allclose(1 - wrong / 90, rows["accuracy"], atol=1e-6)


def test_stage(small: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that have results are run again with --fresh only."""
    write_study(small.folder, seeds=[1], variants={"b": {}})
    monkeypatch.chdir(small.folder)
    monkeypatch.setattr(trials, "_run", runner := Runner())
    for options in ([], [], ["--fresh"]):
        monkeypatch.setattr(sys, "argv", ["study", *STAGE[2:], *options])
        stage.main()
    assert runner.ran == ["b", "b"]
    assert list(pd.read_csv("study/trials.csv")["variant"]) == ["b"]


SEEDS = [*range(1, (os.cpu_count() or 1) + 2)]  # one trial more than run at once
LONG = {"seeds": SEEDS, "all": {"model": MODELS[0], "epochs": 60}, "variants": {"some": {}}}


def name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def with_trial(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return the processes if a trial runs in one of them (between two trials, none does), else an empty list."""
    return processes if any(name(process).startswith("ray::_task") for process in processes) else []


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the processes below a process, without Ray's agents, which may end a minute after the others."""
    return [child for child in psutil.Process(process.pid).children(recursive=True) if "Agent" not in name(child)]


def assert_ended(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=DEADLINE)
    assert alive == []


@slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_driver(small: Project, number: signal.Signals) -> None:
    """No worker keeps running."""
    write_study(small.folder, **LONG)
    with started(small, sys.executable, *STAGE) as driver:
        read_until(driver, "validation accuracy")
        workers = wait_for(lambda: with_trial(descendants(driver)), driver)
        if number == signal.SIGINT:
            os.killpg(driver.pid, number)  # as a terminal does
        else:
            driver.send_signal(number)
        # Ray may turn the KeyboardInterrupt that SIGTERM raises into one without the signal's number.
        assert driver.wait(DEADLINE) in {128 + number, 128 + signal.SIGINT}
    assert_ended(workers)


@slow
def test_killed_dvc(small: Project) -> None:
    """Without DVC, the stage and its workers stop."""
    write_study(small.folder, **LONG)
    stage = {"wdir": "..", "cmd": " ".join(["python", *STAGE]), "outs": ["study/trials.csv"]}
    YAML().dump({"stages": {"study": stage}}, small.folder / "study" / "dvc.yaml")
    with started(small, sys.executable, "-m", "dvc", "repro", "--single-item", "study/dvc.yaml:study") as dvc:
        read_until(dvc, "validation accuracy")
        workers = wait_for(lambda: with_trial(descendants(dvc)), dvc)
        dvc.kill()
    assert_ended(workers)


# A cluster


@dataclass(frozen=True)
class Cluster:
    """A cluster.

    Attributes:
        head: the first process of its first node.
        environment: of further nodes and of drivers.
    """

    head: subprocess.Popen[str]
    environment: Mapping[str, str]

    @property
    def address(self) -> str:
        """The address of the head."""
        return self.environment["RAY_ADDRESS"]


@pytest.fixture(scope="module")
def cluster(original: Project) -> Iterator[Cluster]:
    """Start a cluster of one node."""
    port = free_port()
    environment = {**original.environment, **ENVIRONMENT, **HEALTH_CHECKS}
    options = [f"--port={port}", f"--ray-client-server-port={free_port()}", "--include-dashboard=false"]
    with node(environment, "--head", *options) as head:
        yield Cluster(head, {**environment, "RAY_ADDRESS": f"127.0.0.1:{port}"})


@pytest.fixture
def second(cluster: Cluster) -> Iterator[subprocess.Popen[str]]:
    """Start a second node, whose first trial of tests/trainings.py waits to be killed."""
    with node({**cluster.environment, PAUSES: "1"}, f"--address={cluster.address}") as process:
        yield process


@pytest.fixture
def clustered(small: Project, cluster: Cluster) -> Project:
    """Return a project that uses the cluster."""
    return Project(small.folder, cluster.environment)


@slow
@pytest.mark.parametrize("lost", ["worker", "node", "network"])
def test_lost_trial(clustered: Project, second: subprocess.Popen[str], tmp_path: Path, lost: str) -> None:
    """A trial whose worker or node is lost continues from its checkpoint and ends with the same weights."""
    paused, folder = tmp_path / "paused", clustered.folder / trials.FOLDER
    with started(clustered, sys.executable, "-m", "tests.trainings", str(paused)) as driver:
        wait_for(lambda: paused.exists() and paused.read_text() and any(folder.glob("*.npz")), driver)
        if lost == "node":
            kill_node(second)
        elif lost == "network":
            for process in in_session(second):
                process.suspend()  # they answer no more, but their connections stay open
        else:
            psutil.Process(int(paused.read_text())).kill()
        output = driver.communicate(timeout=300)[0]  # by default, Ray notices it after seven minutes
    assert driver.returncode == 0
    assert len(re.findall(r"^\w+, seed 1: its worker was lost \(.*\); starting it again$", output, re.MULTILINE)) == 1
    one, two = json.loads(output.splitlines()[-1])
    assert (one["variant"], two["variant"]) == ("one", "two")
    assert one["weights"] == two["weights"]
    assert {one["continued"], two["continued"]} == {False, True}
    assert not any(folder.glob("*.npz"))


@slow
def test_killed_driver_of_a_cluster(clustered: Project, cluster: Cluster) -> None:
    """No worker keeps running; the next run resumes."""
    write_study(clustered.folder, **LONG)
    with started(clustered, sys.executable, *STAGE) as driver:
        read_until(driver, "validation accuracy")
        workers = wait_for(
            lambda: [process for process in in_session(cluster.head) if name(process).startswith("ray::_task")], driver
        )
        driver.kill()
    assert_ended(workers)
    done = clustered.run(sys.executable, *STAGE)
    assert f"of {len(SEEDS)} trials already have results" in done.stdout
    assert list(table(clustered)["seed"]) == SEEDS


def test_lost_head(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        head = Head(address)
        head.check()
    head.check()  # it may come back
    monkeypatch.setattr("fashion.cluster.HEAD_TIMEOUT", 0)
    with pytest.raises(UserError, match=f"^lost the head of the Ray cluster at {address} .* run this again"):
        head.check()


@slow
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", "Timed out while waiting for GCS"),
        ("nonsense", "Invalid address format"),
    ],
)
def test_no_cluster(small: Project, address: str, reason: str) -> None:
    """An error, instead of the quarter of an hour for which Ray would try to connect."""
    write_study(small.folder, seeds=[1])
    began = time.monotonic()
    message = failed(small, RAY_ADDRESS=address)[1].splitlines()[-1]
    assert message.startswith(f"error: cannot connect to a Ray cluster at RAY_ADDRESS={address} (")
    assert reason in message
    assert time.monotonic() - began < 120


@slow
def test_rejected_token(clustered: Project) -> None:
    write_study(clustered.folder, seeds=[1])
    for variables in ({"RAY_AUTH_TOKEN": "0" * 64}, {"RAY_AUTH_MODE": "disabled"}):
        message = failed(clustered, **variables)[1].splitlines()[-1]
        assert "AuthenticationError" in message
