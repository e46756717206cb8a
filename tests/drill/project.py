"""The small project of the drill: copies of it before each stage, and a check that nothing was lost or left over."""

import atexit
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.conftest import MODELS, Project, clone, write_raw
from tests.drill.row import AttemptError, once

DVC = [sys.executable, "-m", "dvc"]
REPRO = [*DVC, "repro"]
TIMEOUT = 300  # seconds for a command
ORPHAN = 30  # seconds for a stage to end after DVC was killed


@dataclass(frozen=True)
class Template:
    """Copies of the small project.

    Attributes:
        stages: names, each after those that it depends on.
        seconds: duration of each stage.
        copies: one before each stage, and the finished project.
    """

    stages: list[str]
    seconds: list[float]
    copies: list[Project]

    @cached_property
    def files(self) -> dict[str, str]:
        """The files of the finished project, as `listing` returns them."""
        return listing(self.copies[-1].folder)


@once
def template(last: str | None = None) -> Template:
    """Run the pipeline stage by stage.

    Args:
        last: the last stage to keep; by default all.
    """
    base = Path(tempfile.mkdtemp(prefix="fashion-drill-template-"))
    atexit.register(shutil.rmtree, base, ignore_errors=True)
    for name in ("raw", "project"):
        (base / name).mkdir()
    project = clone(base / "project", write_raw(base / "raw"))
    shorten(project, last)
    stages = project.run(*DVC, "stage", "list", "--name-only", "dvc.yaml").stdout.split()
    seconds, copies = list[float](), list[Project]()
    for stage in [*stages, None]:
        folder = shutil.copytree(project.folder, base / str(len(copies)), symlinks=True)
        copies.append(Project(folder, project.environment))
        if stage:
            started = time.monotonic()
            project.run(*REPRO, stage)
            seconds.append(time.monotonic() - started)
    return Template(stages, seconds, copies)


def shorten(project: Project, last: str | None) -> None:
    """Remove the studies, all models but the first, and the stages after `last` from a project."""
    others = MODELS[1:]
    shutil.rmtree(project.folder / "studies")

    def edit(params: Any) -> None:
        for section in (params["models"], params["tune"], params["review"]["min_accuracy"]):
            for model in others:
                section.pop(model, None)

    project.edit_params(edit)
    path = project.folder / "dvc.yaml"
    pipeline = yaml.safe_load(path.read_bytes())
    for model in others:
        del pipeline["stages"][f"train_{model}"]
    path.write_text(yaml.dump(pipeline, sort_keys=False))
    project.run(sys.executable, "-m", "fashion.dvc_deps")
    if last:
        stages = yaml.safe_load(path.read_bytes())["stages"]
        kept = list(stages)[: list(stages).index(last) + 1]
        path.write_text(yaml.dump({"stages": {stage: stages[stage] for stage in kept}}, sort_keys=False))
    project.commit("a short pipeline")


def copy(folder: Path, before: int = -1) -> Project:
    """Copy the project as it is before a stage, by default when it is finished, to folder/project.

    Its temporary folder is folder/tmp.
    """
    original = template().copies[before]
    target = shutil.copytree(original.folder, folder / "project", symlinks=True, dirs_exist_ok=True)
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    return Project(target, {**original.environment, "TMPDIR": str(temporary)})


def listing(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a project, by path; without compiled code and the folders of Git and DVC."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.startswith(".dvc/cache/") and name.endswith(".tmp"):  # DVC leaves them on a full disk
            continue
        if path.is_file() and not name.startswith((".git/", ".dvc/tmp/")) and "/__pycache__/" not in name:
            files[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return files


def compare(folder: Path, expected: dict[str, str]) -> None:
    """Compare the files of a project with those of the undisturbed run.

    Raises:
        AttemptError: a file differs, is missing or is left over.
    """
    found = listing(folder)
    problems = [f"{name} is missing" for name in expected.keys() - found]
    problems += [f"{name} is left over" for name in found.keys() - expected]
    problems += [f"{name} differs" for name in expected.keys() & found if found[name] != expected[name]]
    if problems:
        raise AttemptError("; ".join(sorted(problems)))


def check(project: Project) -> None:
    """Check that a recovered project is like the undisturbed one, and that nothing is left over.

    Raises:
        AttemptError: as for `compare`; or a temporary file, a checkpoint or a process is left over.
    """
    compare(project.folder, template().files)
    left = [*Path(project.environment["TMPDIR"]).iterdir()]
    left += [path for pattern in ("*.tmp", "*.npz") for path in (project.folder / ".dvc" / "tmp").rglob(pattern)]
    if left:
        raise AttemptError(f"left over: {', '.join(path.name for path in left)}")
    check_ended(project)


def check_ended(project: Project) -> None:
    """Wait until no process runs in a project.

    Raises:
        AttemptError: one runs on for more than `ORPHAN` seconds; it is killed.
    """
    _, alive = psutil.wait_procs(processes(project.folder), timeout=ORPHAN)
    for process in alive:
        process.kill()
    if alive:
        raise AttemptError(f"still running: {alive}")


def processes(folder: Path) -> list[psutil.Process]:
    """Return the processes whose working folder is a folder or below it."""
    return matching_processes(lambda process: Path(process.cwd()).is_relative_to(folder))


def matching_processes(matches: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """Return the processes for which `matches` is true, without those that it may not inspect."""
    found = []
    for process in psutil.process_iter():
        try:
            if matches(process):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has ended, or is another user's
            continue
    return found


def run(project: Project, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a project; raises `AttemptError` as for `finish`."""
    return finish(started(project, *command, stdout=subprocess.PIPE), TIMEOUT)


def finish(process: subprocess.Popen[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Wait for a process that `started` returned, with a pipe; after `timeout` seconds, kill its group.

    Raises:
        AttemptError: it takes too long, or prints a traceback.
    """
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise AttemptError(f"{process.args!r} did not end within {timeout} s") from error
    if "Traceback" in output:
        raise AttemptError(f"{process.args!r} printed a traceback:\n{output}")
    return subprocess.CompletedProcess(process.args, process.returncode, output)


def recover(project: Project, *command: str) -> float:
    """Run a command, by default `dvc repro`, that must succeed; return the seconds it took.

    Raises:
        AttemptError: as for `run`, or it fails.
    """
    started = time.monotonic()
    done = run(project, *(command or REPRO))
    if done.returncode:
        raise AttemptError(f"{' '.join(command or REPRO)} failed:\n{done.stdout}")
    return time.monotonic() - started


def started(project: Project, *command: str, stdout: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    """Start a command in a process group of its own; its errors go to its output."""
    return subprocess.Popen(
        command,
        cwd=project.folder,
        env=project.environment,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
