"""The package without extras, in an environment of its own, reviews another project."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.flowers import Flowers


def run(*command: str | Path, folder: Path = ROOT, check: bool = True) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)  # downloads packages
def test_review_without_extras(original_flowers: Flowers, tmp_path: Path) -> None:
    project = original_flowers.copy(tmp_path / "project")
    project.commit_predictions()
    project.git("checkout", "-b", "work")
    project.change(columns=1)

    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ".")
    (wheel,) = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel)
    assert "tensorflow" not in run(python, "-m", "pip", "list")

    fashion = python.with_name("fashion")
    assert "**flowers: worse.**" in run(fashion, "review", "--html", "review.html", folder=project.folder)
    assert "data:image/png;base64," in (project.folder / "review.html").read_text()
    error = run(fashion, "demo", folder=project.folder, check=False)
    assert "error: the package " in error
    assert "pip install 'fashion[train,serve,cluster]'" in error
