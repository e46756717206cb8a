"""Time DVC commands when everything is up to date, and print the seconds as JSON.

    python -m benchmarks.dvc

Every dvc.yaml of a project costs time in every command. To measure this, the commands run in turns in a clone of this
project, in a clone without studies/, and in a project of one empty stage. This working copy itself may be slower: a
killed DVC process leaves its locks in .dvc/tmp/rwlock, and each later command reads and writes them.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fashion.errors import UserError, run_command

COMMANDS = ("dvc repro", "dvc status", "dvc metrics diff", "dvc params diff")
ROUNDS = 7
SETTINGS = ("user.name=benchmark", "user.email=benchmark@localhost", "commit.gpgsign=false")
COMMIT = ["git", *(word for setting in SETTINGS for word in ("-c", setting)), "commit", "--quiet", "--allow-empty"]


def main() -> None:
    """Make the projects and time the commands."""
    argparse.ArgumentParser(prog="python -m benchmarks.dvc", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        projects = {
            "this project": clone(Path(folder, "clone")),
            "without studies": clone(Path(folder, "without-studies"), without="studies"),
            "one empty stage": one_empty_stage(Path(folder, "one-empty-stage")),
        }
        print(json.dumps({"seconds": measure(projects, ROUNDS)}))


def measure(projects: Mapping[str, Path], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of each command by command and project, a number per round.

    Raises:
        UserError: `dvc repro` has something to do in one of the projects.
    """
    for name, folder in projects.items():
        if "up to date" not in (status := _output(["dvc", "status", "dvc.yaml"], folder)):
            raise UserError(f"{name}: stages are stale; run `dvc repro`, commit its results and try again\n{status}")
    times: dict[str, dict[str, list[float]]] = {command: {name: [] for name in projects} for command in COMMANDS}
    for _ in range(rounds + 1):
        for command, by_project in times.items():
            for name, folder in projects.items():
                by_project[name].append(seconds(command.split(), folder))
    return {  # without the first round, which reads from a cold disk
        command: {name: taken[1:] for name, taken in by_project.items()} for command, by_project in times.items()
    }


def clone(folder: Path, without: str = "") -> Path:
    """Clone this project's last commit, optionally without one of its folders; the outputs come from the same cache."""
    cache = _output(["dvc", "cache", "dir"], Path()).strip()
    subprocess.run(["git", "clone", "--quiet", ".", folder], check=True)
    remove = ["git", "rm", "-r", "--quiet", "--ignore-unmatch", without]
    changes = [remove, [*COMMIT, "--message", f"Without {without}"]] if without else []
    return _prepared(folder, ["dvc", "cache", "dir", "--local", cache], *changes, ["dvc", "checkout", "--quiet"])


def one_empty_stage(folder: Path) -> Path:
    """Make a project in `folder` whose only stage does nothing; a stage without dependencies would always run."""
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    (folder / "input").touch()
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_bytes(Path(".dvc", "config").read_bytes())
    return _prepared(
        folder,
        ["dvc", "stage", "add", "--quiet", "--name", "empty", "--deps", "input", ":"],
        ["dvc", "repro", "--quiet"],
        ["git", "add", "--all"],
        [*COMMIT, "--message", "One stage"],
    )


def seconds(command: Sequence[str], folder: Path = Path()) -> float:
    """Return the seconds that a command takes in a folder."""
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _prepared(folder: Path, *commands: Sequence[str]) -> Path:
    """Run commands in a project, and make DVC keep its state in a folder beside it; return the project."""
    for command in (["dvc", "config", "--local", "core.site_cache_dir", f"{folder}.state"], *commands):
        subprocess.run(command, cwd=folder, check=True)
    return folder


def _output(command: Sequence[str], folder: Path) -> str:
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    run_command(main)
