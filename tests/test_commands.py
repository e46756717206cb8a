"""The command line: help without anything heavy, errors without a traceback, results as the README has them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fashion.evaluation import results
from tests.conftest import ROOT

MODULES = ["fashion.cli", *(f"stages.{path.stem}" for path in sorted((ROOT / "stages").glob("[a-z]*.py")))]
HEAVY = {"tensorflow", "keras", "numpy", "pandas", "matplotlib", "jinja2", "requests", "pooch", "dvc"}


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", MODULES)
def test_help_imports_nothing_heavy(module: str) -> None:
    done = python("-X", "importtime", "-m", module, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: ")
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert imported & HEAVY == set()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["stages.preprocess", "nowhere", "a", "b", "c", "d"],
            "error: nowhere/train_images.idx: No such file or directory",
        ),
        (["stages.evaluate", "nowhere.keras", "nowhere.npz", "a", "b", "c"], "error: nowhere.npz: not a split"),
        (["stages.plot", *"abcdef", "--model", *"mhmp"], "error: a: not a split"),
        (["fashion.cli", "results", "--reports", "nowhere"], "error: no metrics.json in a folder of nowhere/"),
    ],
)
def test_missing_input_is_one_line(arguments: list[str], says: str) -> None:
    """And the only one: TensorFlow, which evaluate imports, starts in silence."""
    done = python("-m", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(says)
    assert len(done.stderr.splitlines()) == 1


METRICS = {"accuracy": 0.5, "accuracy_interval": {"low": 0.25, "high": 0.75}, "loss": 1.25, "parameters": 1234}


def test_results_as_a_table_and_as_json(tmp_path: Path) -> None:
    for name, accuracy in (("wide", 0.9), ("deep", 0.5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps({**METRICS, "accuracy": accuracy}))
    table = python("-m", "fashion.cli", "results", "--reports", str(tmp_path)).stdout
    assert table.splitlines() == [
        "| Model | Parameters | Test accuracy (95 % interval) | Test loss |",
        "|-------|------------|-------------------------------|-----------|",
        "| DEEP  | 1,234      | 50.00% (25.00% to 75.00%)     | 1.2500    |",
        "| WIDE  | 1,234      | 90.00% (25.00% to 75.00%)     | 1.2500    |",
    ]
    found = json.loads(python("-m", "fashion.cli", "results", "--json", "--reports", str(tmp_path)).stdout)
    assert found["deep"] == METRICS


def test_readme_has_the_committed_results(tmp_path: Path) -> None:
    """As committed, or as they stand here: another processor gives slightly different weights."""
    listed = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "HEAD", "reports"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in (path for path in listed if path.endswith("/metrics.json")):
        content = subprocess.run(["git", "show", f"HEAD:{name}"], cwd=ROOT, capture_output=True, check=True).stdout
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(content)
    tables = [results.markdown(results.read(folder / "reports")) for folder in (tmp_path, ROOT)]
    readme = (ROOT / "README.md").read_text()
    assert any(table in readme for table in tables), f"paste into README.md what `fashion results` prints:\n{tables[1]}"
