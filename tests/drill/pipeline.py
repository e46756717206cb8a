"""Faults of the pipeline: killed processes, full disks, damaged files, and concurrent commands.

Each attempt breaks a copy of the small project, lets it recover, and compares every file with the undisturbed run.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.conftest import Project
from tests.drill import project as drill
from tests.drill.project import DVC, REPRO, TIMEOUT, check, copy, recover, run, started
from tests.drill.row import Attempt, AttemptError, Row, repeated

MAKE = [  # what `make` does after the set-up
    *("sh", "-c", '"$1" -I fashion/environment.py delete-damaged-bytecode && exec "$1" -m fashion.cli run'),
    *("sh", sys.executable),
]
DISK = 128  # MiB
PAGE = 4096  # bytes, by which a file system in memory allocates
CLOCK_JUMPS = "-10y", "-1h", "+1h", "+10y"
CLOCK_LIBRARY = next(Path(sysconfig.get_path("purelib")).glob("libfaketime/**/libfaketime.so.1"), None)


def killed(with_stage: bool) -> Attempt:
    """Return an attempt that kills DVC at a random moment, with or without the stage that it runs."""

    def attempt(folder: Path, choices: random.Random, planted: bool) -> float:
        project, dvc = running(folder, choices, REPRO)
        (os.killpg if with_stage else os.kill)(dvc.pid, signal.SIGKILL)
        dvc.wait()
        if planted:  # a lock that is not repaired
            (project.folder / ".dvc" / "tmp" / "rwlock").write_text("{")
        taken = recover(project, *(REPRO if planted else MAKE))
        check(project)
        return taken

    return attempt


def orphaned(folder: Path, choices: random.Random, planted: bool) -> float:
    """Kill DVC alone during a training run of many epochs, which must then end, too."""
    number, stage = next((n, name) for n, name in enumerate(drill.template().stages) if name.startswith("train_"))
    project = copy(folder, number)
    project.edit_params(lambda params: params["training"].update(epochs=10_000))
    if planted:
        (project.folder / "fashion" / "parent.py").write_text("def check():\n    pass\n")
    dvc = started(project, *REPRO)
    end = time.monotonic() + TIMEOUT
    while not (project.folder / "reports" / stage.removeprefix("train_") / "history.csv").exists():
        if dvc.poll() is not None or time.monotonic() > end:
            raise AttemptError("the training did not start")
        time.sleep(0.1)
    time.sleep(choices.random())
    dvc.kill()
    dvc.wait()
    drill.check_ended(project)
    project.run("git", "checkout", "params.yaml")
    taken = recover(project, *MAKE)
    check(project)
    return taken


def full_disk(place: str) -> Attempt:
    """Return an attempt whose stage, each time another one, has too little space in a folder of the project."""

    def attempt(folder: Path, choices: random.Random, planted: bool) -> float:
        before = int(folder.name) % len(drill.template().stages)
        needed = added(place, before)
        with small_disk(folder / "project" / place):
            project = copy(folder, before)
            ballast = project.folder / place / "ballast"
            fill(ballast, choices.randrange(max(needed, PAGE)))
            done = run(project, *REPRO)
            if needed > 0 and not done.returncode:
                raise AttemptError("the disk was not full")
            if done.returncode and not re.search("No space left on device|disk is full", done.stdout):
                raise AttemptError(f"failed without an error about the full disk:\n{done.stdout}")
            ballast.unlink()
            taken = recover(project, *MAKE)
            if planted:
                alter(project.folder / "reports" / "audit.json", choices)
            check(project)
        return taken

    return attempt


def read_only_cache(folder: Path, _choices: random.Random, planted: bool) -> float:
    """Make the cache read-only, at a different stage each time, then writable again."""
    cache = folder / "project" / ".dvc" / "cache"
    with small_disk(cache):
        before = int(folder.name) % len(drill.template().stages)
        project = copy(folder, before)
        subprocess.run(["mount", "-o", "remount,ro", cache], check=True)
        done = run(project, *REPRO)
        if "Read-only file system" not in done.stdout and (done.returncode or added(".dvc/cache", before)):
            raise AttemptError(f"expected an error about the read-only cache, found:\n{done.stdout}")
        subprocess.run(["mount", "-o", "remount,rw", cache], check=True)
        taken = recover(project)
        if planted:
            next(path for path in cache.rglob("*") if path.is_file()).unlink()
        check(project)
    return taken


def damaged_cache(folder: Path, choices: random.Random, planted: bool) -> float:
    """Damage an object in the cache and delete the outputs that `make` would take from it."""
    project = copy(folder)
    damage(project.folder / ".dvc" / "cache" / "files", choices)
    delete_outputs(project)
    taken = recover(project, *(REPRO if planted else MAKE))
    check(project)
    return taken


def damaged_remote(folder: Path, choices: random.Random, planted: bool) -> float:
    """Damage an object in a DVC remote, then pull from it without a cache."""
    project = copy(folder)
    for command in (
        ("remote", "add", "--local", "--default", "storage", str(folder / "storage")),
        ("remote", "modify", "--local", "storage", "verify", "true"),
        ("push", "--quiet"),
    ):
        project.run(*DVC, *command)
    for path in sorted((folder / "storage").rglob("*")):
        if path.is_file():
            (project.folder / ".dvc" / "cache" / path.relative_to(folder / "storage")).unlink()
    damage(folder / "storage", choices)
    delete_outputs(project)
    run(project, *DVC, "pull")  # fails, but pulls what is intact
    taken = recover(project, *MAKE)
    (project.folder / ".dvc" / "config.local").unlink()
    if planted:
        alter(project.folder / "data" / "train" / "images.npy", choices)
    check(project)
    return taken


def cut_lock(folder: Path, choices: random.Random, planted: bool) -> float:
    """Cut dvc.lock, as DVC does if it is killed while it writes the file."""
    project = copy(folder)
    path = project.folder / "dvc.lock"
    os.truncate(path, choices.randrange(path.stat().st_size))
    taken = recover(project, *(REPRO if planted else MAKE))
    check(project)
    return taken


def edited_output(folder: Path, choices: random.Random, planted: bool) -> float:
    """Edit an output by hand."""
    project = copy(folder)
    path = choices.choice(outputs(project))
    alter(choices.choice(sorted(path.iterdir())) if path.is_dir() else path, choices)
    taken = 0.0 if planted else recover(project)
    check(project)
    return taken


def twice(command: list[str]) -> Attempt:
    """Return an attempt that runs a command twice at once."""

    def attempt(folder: Path, choices: random.Random, planted: bool) -> float:
        project, first = running(folder, choices, command)
        run(project, *command)
        if first.wait():
            raise AttemptError(f"the first {' '.join(command)} failed with {first.returncode}")
        taken = recover(project)
        if planted:
            (project.folder / "data" / "train" / ".images.npy.1.tmp").touch()
        check(project)
        return taken

    return attempt


def clock_jump(folder: Path, choices: random.Random, planted: bool) -> float:
    """Let the clock jump while the pipeline runs, and jump back when it has ended."""
    clock = folder / "clock"
    clock.write_text("+0")
    faked = [
        *("env", f"LD_PRELOAD={CLOCK_LIBRARY}", f"FAKETIME_TIMESTAMP_FILE={clock}", "FAKETIME_NO_CACHE=1"),
        *("DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1"),
    ]
    project, dvc = running(folder, choices, [*faked, *REPRO], subprocess.PIPE)
    clock.write_text(CLOCK_JUMPS[int(folder.name) % len(CLOCK_JUMPS)])
    now = int(subprocess.run([*faked, "date", "+%s"], stdout=subprocess.PIPE, check=True).stdout)
    if abs(now - time.time()) < 1800:
        raise AttemptError("the clock did not jump")
    if drill.finish(dvc, TIMEOUT).returncode:
        raise AttemptError(f"`dvc repro` failed with {dvc.returncode}")
    taken = recover(project)
    if planted:
        alter(project.folder / "reports" / "audit.json", choices)
    check(project)
    return taken


def running(
    folder: Path, choices: random.Random, command: list[str], stdout: int = subprocess.DEVNULL
) -> tuple[Project, subprocess.Popen[str]]:
    """Start a command in an unfinished project and return while it runs, at a random moment."""
    seconds = drill.template().seconds
    while True:
        before = choices.choices(range(len(seconds)), seconds)[0]
        project = copy(folder, before)
        process = started(project, *command, stdout=stdout)
        try:
            code = process.wait(choices.uniform(0, seconds[before]))
        except subprocess.TimeoutExpired:
            return project, process
        if code:
            raise AttemptError(f"{' '.join(command)} failed with {code}")
        shutil.rmtree(project.folder)  # it ended before the random moment: try another


@contextmanager
def small_disk(path: Path) -> Iterator[None]:
    """Mount a small file system in memory at a path."""
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def fill(ballast: Path, left: int) -> None:
    """Fill a file system, except `left` bytes."""
    with ballast.open("wb") as file:
        disk = os.fstatvfs(file.fileno())
        os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - left)


def added(place: str, before: int) -> int:
    """Return the bytes, in whole pages, that the stage after a copy of the project adds to a folder."""
    size, after = (
        sum(-(-path.stat().st_size // PAGE) * PAGE for path in (project.folder / place).rglob("*") if path.is_file())
        for project in drill.template().copies[before : before + 2]
    )
    return after - size


def damage(folder: Path, choices: random.Random) -> None:
    """Truncate, alter or delete one of the files below a folder."""
    path = choices.choice(sorted(path for path in folder.rglob("*") if path.is_file() and "runs" not in path.parts))
    mode = path.stat().st_mode
    path.chmod(0o644)
    match choices.choice(["truncate", "alter", "delete"]):
        case "truncate":
            os.truncate(path, choices.randrange(path.stat().st_size))
        case "alter":
            alter(path, choices)
        case "delete":
            path.unlink()
            return
    path.chmod(mode)


def alter(path: Path, choices: random.Random) -> None:
    """Change one byte of a file."""
    content = bytearray(path.read_bytes())
    content[choices.randrange(len(content))] ^= choices.randrange(1, 256)
    path.write_bytes(content)


def outputs(project: Project) -> list[Path]:
    """Return the outputs of the pipeline."""
    stages = yaml.safe_load((project.folder / "dvc.lock").read_bytes())["stages"].values()
    return [project.folder / output["path"] for stage in stages for output in stage["outs"]]


def delete_outputs(project: Project) -> None:
    """Delete the data and the models, which are not in Git."""
    for path in outputs(project):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.is_relative_to(project.folder / "models"):
            path.unlink()


NO_CLOCK = "" if CLOCK_LIBRARY else "libfaketime needs Linux on an x86-64 processor"
SKIP = "" if sys.platform == "linux" and os.geteuid() == 0 else "mounting file systems needs Linux and root"
ROWS = (
    Row(
        "DVC is killed at a random moment, with the stage that it runs",
        25,
        repeated(killed(with_stage=True), 2),
    ),
    Row("DVC alone is killed at a random moment; its stage keeps running", 20, repeated(killed(with_stage=False), 2)),
    Row("DVC alone is killed during a training run, which must end, too", 5, repeated(orphaned, 2)),
    Row("No space is left in the project's folder", 7, repeated(full_disk(""), 2), SKIP),
    Row("No space is left for the cache", 7, repeated(full_disk(".dvc/cache"), 2), SKIP),
    Row("No space is left for temporary files", 7, repeated(full_disk(".dvc/tmp"), 2), SKIP),
    Row("The cache is read-only", 7, repeated(read_only_cache, 2), SKIP),
    Row("A file in the cache is truncated, altered or deleted", 10, repeated(damaged_cache, 2)),
    Row("A file in the DVC remote is truncated, altered or deleted", 10, repeated(damaged_remote, 2)),
    Row("dvc.lock is truncated at a random byte", 10, repeated(cut_lock, 2)),
    Row("An output is edited by hand", 20, repeated(edited_output, 2)),
    Row(
        "The clock jumps by an hour or ten years, and back",
        len(CLOCK_JUMPS),
        repeated(clock_jump, 2),
        NO_CLOCK,
    ),
    Row("Two `dvc repro` at the same time", 3, repeated(twice(REPRO))),
    Row("Two `make` at the same time", 3, repeated(twice(MAKE))),
)
