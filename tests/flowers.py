"""Another project: a table of flowers and a linear classifier. A section `review` in its params.yaml is all it adds."""

import io
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from fashion import cli
from fashion.errors import UserError

# As short as it can be: every test of a change runs it.
TRAIN = """
import json
import os
import numpy as np
import yaml

rng = np.random.default_rng(0)
labels = np.arange(150) % 3
rows = rng.normal(size=(150, 4)) + 1.8 * np.eye(4)[labels]
test = np.arange(len(rows)) % 2 == 0
params = yaml.safe_load(open("params.yaml"))["model"]
rows = rows[:, : params["columns"]]
means = np.stack([rows[~test & (labels == label)].mean(axis=0) for label in range(3)])
scores = np.exp(-params["strength"] * ((rows[test, None] - means) ** 2).sum(axis=2))
probabilities = scores / scores.sum(axis=1, keepdims=True)
np.save("probabilities.npy", probabilities)
os.makedirs("test_set", exist_ok=True)
np.save("test_set/labels.npy", labels[test])
accuracy = (probabilities.argmax(axis=1) == labels[test]).mean()
json.dump({"accuracy": accuracy, "loss": 1.0}, open("metrics.json", "w"))
"""
# Appended to TRAIN: predictions in Git instead of probabilities in the cache.
WRITE_PREDICTIONS = """
os.remove("probabilities.npy")
names = ("setosa", "versicolor", "virginica")
with open("predictions.csv", "w") as file:
    print("actual,predicted,confidence,probability", file=file)
    for row, actual, predicted in zip(probabilities, labels[test], probabilities.argmax(axis=1)):
        print(names[actual], names[predicted], f"{row[predicted]:.4g}", f"{row[actual]:.4g}", sep=",", file=file)
"""
# TRAIN for a project with a folder of images: a row per file, plus test images and an audit.
TRAIN_ON_IMAGES = (
    TRAIN.replace("150", "count").replace("rng =", "count = sum(len(names) for *_, names in os.walk('images'))\nrng =")
    + """
np.save("test_set/images.npy", np.arange(count)[test].astype(np.uint8).reshape(-1, 1, 1, 1))
counts = dict(zip(("setosa", "versicolor", "virginica"), np.bincount(labels[~test]).tolist()))
os.makedirs("reports", exist_ok=True)
json.dump({"images": {"train": counts}}, open("reports/audit.json", "w"))
"""
)
PIPELINE = {
    "stages": {
        "train": {
            "cmd": "python train.py",
            "deps": ["train.py"],
            "params": ["model"],
            "outs": ["probabilities.npy", "test_set"],
            "metrics": [{"metrics.json": {"cache": False}}],
        }
    }
}
PARAMS: dict[str, Any] = {
    "model": {"columns": 4, "strength": 1.0},
    "review": {
        "base_branch": "main",
        "test_set": "test_set",
        "significance": 0.05,
        "min_accuracy": {"flowers": 0.5},
        "classes": ["setosa", "versicolor", "virginica"],
        "calibration_bins": 5,
        "models": {"flowers": {"predictions": "probabilities.npy", "metrics": "metrics.json"}},
    },
}


class Flowers:
    """The other project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done

    def review(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `fashion review`, in this process where possible: starting another one takes longer than it."""
        if "--rebuild" in arguments:  # runs other programs, whose output goes where a process's own does
            return self.run(sys.executable, "-m", "fashion.cli", "review", *arguments, check=False)
        stdout, stderr, status = io.StringIO(), io.StringIO(), 0
        command = ["fashion", "review", *arguments]
        with (
            chdir(self.folder),
            redirect_stdout(stdout),
            redirect_stderr(stderr),
            mock.patch.object(sys, "argv", command),
        ):
            try:
                cli.main()
            except UserError as error:
                print(f"error: {error}", file=sys.stderr)
                status = 1
        return subprocess.CompletedProcess(command, status, stdout.getvalue(), stderr.getvalue())

    def git(self, *arguments: str, check: bool = True) -> None:
        self.run("git", *arguments, check=check)

    def params(self) -> Any:
        return yaml.safe_load((self.folder / "params.yaml").read_text())

    def write_params(self, params: Any) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params))

    def change(self, **model: float) -> None:
        """Change params of the model, run the pipeline, commit."""
        params = self.params()
        params["model"] |= model
        self.write_params(params)
        self.run("dvc", "repro")
        self.git("add", "-A")
        self.git("commit", "-m", "change", "--allow-empty")

    def commit_predictions(self) -> None:
        """Write predictions.csv, which Git tracks, instead of probabilities.npy, run the pipeline, commit."""
        with (self.folder / "train.py").open("a") as file:
            file.write(WRITE_PREDICTIONS)
        pipeline, params = yaml.safe_load((self.folder / "dvc.yaml").read_text()), self.params()
        pipeline["stages"]["train"]["outs"] = [{"predictions.csv": {"cache": False}}, "test_set"]
        (self.folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
        params["review"]["models"]["flowers"]["predictions"] = "predictions.csv"
        self.write_params(params)
        self.change()

    def track_images(self) -> None:
        """Add a folder `images`, which DVC tracks and the pipeline reads, run the pipeline, commit."""
        (self.folder / "train.py").write_text(TRAIN_ON_IMAGES)
        pipeline = yaml.safe_load((self.folder / "dvc.yaml").read_text())
        pipeline["stages"]["train"]["deps"].append("images")
        pipeline["stages"]["train"]["metrics"].append({"reports/audit.json": {"cache": False}})
        (self.folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
        self.add_images("rose", range(150))
        self.run("dvc", "add", "images")
        self.change()

    def add_images(self, name: str, numbers: range) -> None:
        """Add files to `images`, in a folder of this name."""
        folder = self.folder / "images" / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in numbers:
            (folder / f"{number:03}").write_text(f"{name} {number}")

    @classmethod
    def create(cls, folder: Path) -> "Flowers":
        """Return the project, run once and committed on main."""
        flowers = cls(folder)
        flowers.run("git", "init", "-b", "main")
        flowers.run("dvc", "init")
        (folder / "train.py").write_text(TRAIN)
        (folder / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE))
        flowers.write_params(PARAMS)
        flowers.change()
        return flowers

    def copy(self, folder: Path) -> "Flowers":
        """Return a copy with its cache."""
        self.run("cp", "-r", str(self.folder), str(folder))
        return Flowers(folder)
