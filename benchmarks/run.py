"""Measure everything and write reports/benchmarks.json and reports/benchmarks.md: `make bench`, after `make`.

Every measurement is a process of its own. What is compared is measured alternately, so that a change in the machine's
speed affects all alike, and reported as a ratio of medians. The report has one section for machines with bfloat16
instructions and one for machines without.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import figure, report, trial
from benchmarks.dvc import seconds
from fashion.dvc import git
from fashion.errors import UserError, run_command
from fashion.files import read_json, write_json, write_text
from fashion.params import load_params
from fashion.validation import read_yaml

REPORT = Path("reports/benchmarks")
SCALES = (1, 8, 32)
DEEP_EPOCHS = 3  # of studies/deep, from which the time of a whole training is extrapolated
PARTS = ("training", "deep", "scaling", "dvc", "trials", "serving", "load_test")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="training runs per model and baseline (default: 3)")
    parser.add_argument("--only", choices=PARTS, help="measure one part again and keep the other results")
    args = parser.parse_args()
    if subprocess.run(["dvc", "status", "--quiet", "dvc.yaml"], check=False).returncode:
        raise UserError("the pipeline is not up to date; run `dvc repro` first")

    from fashion.evaluation.results import train_recipes
    from fashion.models.training import dtype_policy

    recipes = train_recipes(Path(), read_yaml(Path("params.yaml")))
    path = REPORT.with_suffix(".json")
    machines = read_json(path) if path.exists() else {}
    kind = dtype_policy("auto").removeprefix("mixed_")
    results = machines.get(kind, {})
    if results.get("dataset") != load_params().dataset.name:
        results = {}
    if args.only not in (None, "training") and not results:
        raise UserError(f"{path} has no results of {kind} with this data set; run with --only training first")
    for part in [args.only] if args.only else PARTS:
        if part == "deep" and not trial.variants("deep", load_params()):
            continue  # the project does not have that study
        results |= training(args.repeats) if part == "training" else {part: measure(part)}
        timed = {"training": results["time_to_accuracy"], "deep": ["deep"]}.get(part, [])
        results["recipes"] = results.get("recipes", {}) | {name: recipes[name] for name in timed if name in recipes}
        results["train_time_ratio"] = train_time_ratios(results)
        machines = dict(sorted({**machines, kind: results}.items()))
        write_json(path, machines)  # the next part may fail
    write_text(REPORT.with_suffix(".md"), report.markdown(machines))
    figure.write()
    print(report.markdown(machines))


def train_time_ratios(results: Mapping[str, Any]) -> dict[str, float]:
    """Return the training time of each model, relative to the tutorial CNN's (medians)."""
    runs = results["time_to_accuracy"]
    seconds = {name: statistics.median(run["seconds"] for run in runs[name]) for name in runs}
    ratios = {name: one / seconds["tutorial"] for name, one in seconds.items()}
    deep = results.get("deep")
    return ratios | ({"deep": deep["seconds"] / deep["tutorial_seconds"]} if deep else {})


def training(repeats: int) -> dict[str, Any]:
    """Return what is measured of the models in params.yaml, and the machine."""
    return {
        "machine": machine(),
        "dataset": load_params().dataset.name,
        "variants": trial.variants("short", load_params()),
        "time_to_accuracy": time_to_accuracy(repeats),
        "utilisation": python("benchmarks.utilisation"),
        "overhead": {"help_seconds": stage_help()},
    }


def measure(part: str) -> dict[str, Any]:
    """Return the results of a part, with the current commit."""
    own = {"deep": deep, "scaling": scaling}
    results = own[part]() if part in own else python(f"benchmarks.{part}")
    return {**results, "commit": git(Path(), "rev-parse", "--short", "HEAD")}


def python(module: str, *arguments: str) -> Any:
    """Run a module and return the last line of its output, parsed as JSON."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise UserError(f"`python -m {module} {' '.join(arguments)}` failed")
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> dict[str, Any]:
    """Return the machine, the versions and the commit that the results depend on."""
    import keras
    import tensorflow as tf

    model = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    flags = next((line.split() for line in _lines("/proc/cpuinfo") if line.startswith("flags")), [])
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "instructions": [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags],
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "commit": git(Path(), "rev-parse", "--short", "HEAD"),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


def time_to_accuracy(repeats: int) -> dict[str, list[Any]]:
    """Train all models and baselines alternately, with another seed in each round."""
    names = trial.names(load_params())
    runs: dict[str, list[Any]] = {name: [] for name in names}
    for seed in range(1, repeats + 1):
        for name in names:
            runs[name].append(python("benchmarks.trial", name, str(seed)))
            print(f"{name}: {runs[name][-1]}", flush=True)
    return runs


def deep() -> dict[str, Any]:
    """Time the first epochs of studies/deep and, for comparison, a training run of the tutorial CNN."""
    tutorial = python("benchmarks.trial", "tutorial", "1")
    ((name, changes),) = trial.variants("deep", load_params()).items()
    start = python("benchmarks.trial", name, "1", "--epochs", str(DEEP_EPOCHS))
    return {
        "seconds": start["seconds"] * changes["epochs"] / DEEP_EPOCHS,
        "epochs": changes["epochs"],
        "timed_epochs": DEEP_EPOCHS,
        "tutorial_seconds": tutorial["seconds"],
    }


def scaling() -> dict[str, Any]:
    """Measure training, prediction and export of the first model on copies of the training images."""
    model = next(iter(load_params().models))
    runs = [python("benchmarks.scaling", model, str(times)) for times in SCALES]
    return {"model": model, "runs": runs}


def stage_help() -> dict[str, float]:
    """Return the shortest of three times that each stage takes to respond to `--help`."""
    stages = read_yaml(Path("dvc.yaml"))["stages"]
    return {name: min(seconds([sys.executable, "-m", f"stages.{name}", "--help"]) for _ in range(3)) for name in stages}


if __name__ == "__main__":
    run_command(main)
