"""Measure everything and write reports/benchmarks.json and reports/benchmarks.md: `make bench`, after `make`.

Every measurement is a process of its own. What is compared is measured in turns, so that a slow minute of the machine
falls on all alike, and stated as a ratio of medians.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import report
from fashion.errors import UserError, run_command
from fashion.files import read_json, write_json, write_text

REPORT = Path("reports/benchmarks")
TRIALS = ("tutorial", "cnn", "cnn-short", "dnn", "demo")
GROWTH = (1, 2, 4, 8)
NO_OPS = 7
STAGE_STARTS = {  # what a stage does before its real work, after reading its arguments and params
    "fetch": "from fashion.data import sources",
    "preprocess": "from fashion.data import audit, dataset, idx, splitting\n"
    "for part in ('train', 'test'): idx.read_split(raw / f'{part}_images.idx', raw / f'{part}_labels.idx', 10)",
    "train_dnn": "from fashion.data import dataset\nfrom fashion.models import archive, dnn, training\n"
    "dataset.load(data / 'train.npz'), dataset.load(data / 'validation.npz')",
    "train_cnn": "from fashion.data import dataset\nfrom fashion.models import archive, cnn, training\n"
    "dataset.load(data / 'train.npz'), dataset.load(data / 'validation.npz')",
    "evaluate": "import numpy\nfrom fashion.data import dataset\nfrom fashion.evaluation import metrics\n"
    "from fashion.models import archive\n"
    "dataset.load(data / 'test.npz'), saving.load(models / 'cnn' / 'model.keras')",
    "export": "from fashion.data import dataset\nfrom fashion.evaluation import calibration, metrics, parity\n"
    "from fashion.models import archive, export\nfrom fashion.export.ood import OODDetector\n"
    "[dataset.load(data / f'{name}.npz') for name in ('train', 'validation', 'test')]\n"
    "saving.load(models / 'cnn' / 'model.keras')",
    "card": "import numpy\nfrom fashion.data import dataset\nfrom fashion.evaluation import card\n"
    "dataset.load(data / 'test.npz')",
    "plot": "import numpy, pandas\nfrom fashion.data import dataset\nfrom fashion.evaluation import figures, report\n"
    "[dataset.load(data / f'{name}.npz') for name in ('train', 'validation', 'test')]",
}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="trainings of each model and baseline (default: 3)")
    parser.add_argument(
        "--only", choices=["deep", "serving", "load"], help="measure one part anew and keep all other figures"
    )
    args = parser.parse_args()
    if subprocess.run(["dvc", "status", "--quiet", "dvc.yaml"], check=False).returncode:
        raise UserError("the pipeline is not up to date; run `dvc repro` first")
    if args.only:
        parts = {"deep": deep, "serving": serving, "load": load}
        results = read_json(REPORT.with_suffix(".json")) | {args.only: parts[args.only]()}
    else:
        results = {
            "machine": machine(),
            "time_to_accuracy": time_to_accuracy(args.repeats),
            "deep": deep(),
            "utilisation": python("benchmarks.utilisation"),
            "growth": [python("benchmarks.scaling", str(times)) for times in GROWTH],
            "overhead": {"no_op_seconds": no_op(), "stage_start_seconds": stage_starts()},
            "serving": serving(),
            "load": load(),
        }
    unit = statistics.median(trial["seconds"] for trial in results["time_to_accuracy"]["tutorial"])
    results["train_time_ratio"] = {
        name: statistics.median(trial["seconds"] for trial in trials) / unit
        for name, trials in results["time_to_accuracy"].items()
    } | {"deep": results["deep"]["seconds"] / results["deep"]["tutorial_seconds"]}
    write_json(REPORT.with_suffix(".json"), results)
    write_text(REPORT.with_suffix(".md"), report.markdown(results))
    print(report.markdown(results))


def python(module: str, *arguments: str) -> Any:
    """Run a module; return what the last line that it prints says, as JSON."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise UserError(f"`python -m {module} {' '.join(arguments)}` failed")
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
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
        "commit": commit(),
    }


def commit() -> str | None:
    """Return the commit that is measured, if it is known."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


def time_to_accuracy(repeats: int) -> dict[str, list[Any]]:
    """Train each model and baseline in turns, with a seed per round."""
    trials: dict[str, list[Any]] = {name: [] for name in TRIALS}
    for seed in range(1, repeats + 1):
        for name in TRIALS:
            trials[name].append(python("benchmarks.trial", name, str(seed)))
            print(f"{name}: {trials[name][-1]}", flush=True)
    return trials


def deep() -> dict[str, Any]:
    """Time the start of a training of studies/deep, and beside it a whole one of the tutorial's CNN."""
    tutorial = python("benchmarks.trial", "tutorial", "1")
    return {**python("benchmarks.deep"), "tutorial_seconds": tutorial["seconds"], "commit": commit()}


def serving() -> dict[str, Any]:
    """Time the exported models."""
    return {**python("benchmarks.serving"), "commit": commit()}


def load() -> dict[str, Any]:
    """Let many clients ask the demo."""
    return {**python("benchmarks.load_test"), "commit": commit()}


def no_op() -> Mapping[str, list[float]]:
    """Time `dvc repro` with nothing to do, here and in a project of a single empty stage, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        for command in (
            ["git", "init", "-q"],
            ["dvc", "init", "-q"],
            ["dvc", "stage", "add", "-q", "-n", "empty", ":"],
        ):
            subprocess.run(command, cwd=folder, check=True)
        times: dict[str, list[float]] = {"this project": [], "empty project": []}
        for _ in range(NO_OPS + 1):
            for name, where in (("this project", "."), ("empty project", folder)):
                times[name].append(_seconds(["dvc", "repro", "--quiet"], where))
    return {name: seconds[1:] for name, seconds in times.items()}  # without the first, which reads from the disk


def stage_starts() -> dict[str, dict[str, float]]:
    """Time what each stage does before its real work: the best of three."""
    paths = "from pathlib import Path\ndata, raw, models = Path('data'), Path('data/raw'), Path('models')\n"
    return {
        stage: {
            "arguments_and_params": min(
                _seconds([sys.executable, "-m", f"stages.{stage}", "--help"]) for _ in range(3)
            ),
            "libraries_and_inputs": min(_seconds([sys.executable, "-c", paths + code]) for _ in range(3)),
        }
        for stage, code in STAGE_STARTS.items()
    }


def _seconds(command: list[str], where: str = ".") -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=where, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    run_command(main)
