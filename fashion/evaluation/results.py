"""The table of results that the terminal and the README share, read from the files that the pipelines committed."""

import hashlib
import statistics
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fashion.errors import UserError
from fashion.files import read_json

HEADER = ("Model", "Parameters", "Test accuracy", "Seeds", "Training time, x T_ref", "Last run (95 % interval)")
NONE = "-"


@dataclass(frozen=True)
class Result:
    """What is known of one model.

    Attributes:
        name: of the model.
        parameters: number of its weights.
        accuracies: on the test images, by the seed of the training; empty if no study trained it.
        train_time_ratio: training time as a multiple of the tutorial CNN's, if it was measured.
        last_run: metrics of the root pipeline's model, as the evaluate stage writes them, if it trains this one.
        commit: from which the accuracies come, if the code or the params of their trainings have changed since.
    """

    name: str
    parameters: int
    accuracies: Mapping[int, float]
    train_time_ratio: float | None
    last_run: Mapping[str, Any] | None
    commit: str | None

    @property
    def accuracy_mean(self) -> float | None:
        """Mean over the seeds, if there are any."""
        return statistics.mean(self.accuracies.values()) if self.accuracies else None

    @property
    def accuracy_std(self) -> float | None:
        """Standard deviation over the seeds, as an estimate for all seeds, if there are two or more."""
        return statistics.stdev(self.accuracies.values()) if len(self.accuracies) > 1 else None


def read(root: Path) -> list[Result]:
    """Return the results in the project at `root`, the least accurate model first.

    They are in reports/MODEL/metrics.json, in studies/STUDY/MODEL-SEED/metrics.json and in reports/benchmarks.json.

    Raises:
        UserError: there are none.
    """
    runs = {path.parent.name: read_json(path) for path in root.glob("reports/*/metrics.json")}
    studied: dict[str, dict[int, Path]] = {}
    for path in root.glob("studies/*/*-*/metrics.json"):
        name, _, seed = path.parent.name.rpartition("-")
        studied.setdefault(name, {})[int(seed)] = path
    if not runs and not studied:
        raise UserError(f"no metrics.json in a folder of {root / 'reports'}/; run `dvc repro` first")
    benchmarks = root / "reports" / "benchmarks.json"
    ratios = read_json(benchmarks)["train_time_ratio"] if benchmarks.exists() else {}
    results = [_result(root, name, runs.get(name), studied.get(name, {}), ratios.get(name)) for name in runs | studied]
    return sorted(results, key=lambda result: (_best_known(result), result.name))


def _best_known(result: Result) -> float:
    if result.accuracy_mean is not None:
        return result.accuracy_mean
    return float(result.last_run["accuracy"]) if result.last_run else 0.0


def _result(
    root: Path, name: str, run: Mapping[str, Any] | None, studied: Mapping[int, Path], ratio: float | None
) -> Result:
    metrics = {seed: read_json(path) for seed, path in sorted(studied.items())}
    folders = {path.parents[1] for path in studied.values()}
    return Result(
        name,
        parameters=(run or next(iter(metrics.values())))["parameters"],
        accuracies={seed: values["accuracy"] for seed, values in metrics.items()},
        train_time_ratio=ratio,
        last_run=run,
        commit=next((commit for folder in folders if (commit := _commit_if_behind(root, folder, name))), None),
    )


def _commit_if_behind(root: Path, study: Path, model: str) -> str | None:
    """Return the commit of a study's results, if the code or the params behind those of `model` are now others."""
    lock = study / "dvc.lock"
    params = yaml.safe_load((root / "params.yaml").read_bytes())
    for stage in yaml.safe_load(lock.read_bytes())["stages"].values():
        if any(f"/{model}-" in out["path"] for out in stage["outs"]):
            code = {dep["path"]: dep["md5"] for dep in stage["deps"] if dep["path"].endswith((".py", ".yaml"))}
            sections = stage["params"]["params.yaml"]
            if any(_md5(root / path) != md5 for path, md5 in code.items()) or any(
                params.get(name) != values for name, values in sections.items()
            ):
                return _last_commit(root, lock)
    return None


def _last_commit(root: Path, path: Path) -> str:
    """Return the last commit that changed a file, "unknown" if Git cannot tell.

    In a shallow clone, Git attributes older changes to the oldest commit that it has.
    """
    commit, *parents = _git(root, "log", "-1", "--format=%h %p", "--", str(path.relative_to(root))).split() or [""]
    cut = not parents and _git(root, "rev-parse", "--is-shallow-repository") == "true"
    return "unknown" if cut or not commit else commit


def _md5(path: Path) -> str | None:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() if path.exists() else None


def _git(root: Path, *arguments: str) -> str:
    """Return Git's output, or an empty string if Git is missing or fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.decode(errors="replace").strip()


def rows(results: list[Result]) -> list[tuple[str, ...]]:
    """Return a row of text per model, its cells as in `HEADER`."""
    return [
        (
            result.name.upper(),
            f"{result.parameters:,}",
            _accuracy(result),
            str(len(result.accuracies) or NONE),
            f"{result.train_time_ratio:.2f}" if result.train_time_ratio else NONE,
            interval(result.last_run) if result.last_run else NONE,
        )
        for result in results
    ]


def _accuracy(result: Result) -> str:
    if result.accuracy_mean is None:
        return NONE
    spread = "" if result.accuracy_std is None else f" ± {result.accuracy_std:.2%}"
    commit = f" (commit {result.commit})" if result.commit else ""
    return f"{result.accuracy_mean:.2%}{spread}{commit}"


def interval(metrics: Mapping[str, Any]) -> str:
    """Return the accuracy of one training with its interval."""
    low, high = metrics["accuracy_interval"]["low"], metrics["accuracy_interval"]["high"]
    return f"{metrics['accuracy']:.2%} ({low:.2%} to {high:.2%})"


def as_json(results: list[Result]) -> list[dict[str, Any]]:
    """Return the results for programs: accuracies and deviations as shares of 1, `None` for what is not known."""
    return [
        {
            "name": result.name,
            "accuracy_mean": result.accuracy_mean,
            "accuracy_std": result.accuracy_std,
            "seeds": list(result.accuracies),
            "parameters": result.parameters,
            "train_time_ratio": result.train_time_ratio,
            "commit": result.commit,
        }
        for result in results
    ]


def markdown(results: list[Result]) -> str:
    """Return the table as Markdown, aligned so that it reads as well on a terminal."""
    table = [HEADER, *rows(results)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in table
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
