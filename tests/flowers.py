"""Another project than this one: a table of flowers and scikit-learn. It adopts `fashion review` by declaring it."""

import subprocess
import sys
from pathlib import Path

import yaml

TRAIN = """
import json, sys
import numpy as np
import yaml
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

rows, labels = load_iris(return_X_y=True)
test = np.arange(len(rows)) % 2 == 0
params = yaml.safe_load(open("params.yaml"))["model"]
rows = rows[:, : params["columns"]]
model = LogisticRegression(C=params["strength"], max_iter=1000).fit(rows[~test], labels[~test])
np.save("probabilities.npy", model.predict_proba(rows[test]))
np.savez("truth.npz", labels=labels[test])
accuracy = model.score(rows[test], labels[test])
json.dump({"accuracy": accuracy, "loss": 1.0}, open("metrics.json", "w"))
"""
PIPELINE = {
    "stages": {
        "train": {
            "cmd": "python train.py",
            "deps": ["train.py"],
            "params": ["model"],
            "outs": ["probabilities.npy", "truth.npz"],
            "metrics": [{"metrics.json": {"cache": False}}],
        }
    }
}
PARAMS = {
    "model": {"columns": 4, "strength": 1.0},
    "review": {
        "main": "main",
        "truth": "truth.npz",
        "classes": ["setosa", "versicolor", "virginica"],
        "calibration_bins": 5,
        "significance": 0.05,
        "models": {
            "flowers": {
                "predictions": "probabilities.npy",
                "metrics": "metrics.json",
                "history": None,
                "seeds": None,
                "floor": 0.5,
            }
        },
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
        return self.run(sys.executable, "-m", "fashion.cli", "review", *arguments, check=False)

    def git(self, *arguments: str, check: bool = True) -> None:
        self.run("git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments, check=check)

    def change(self, **model: float) -> None:
        """Change params of the model, run the pipeline, commit."""
        params = yaml.safe_load((self.folder / "params.yaml").read_text())
        params["model"] |= model
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params))
        self.run("dvc", "repro")
        self.git("add", "-A")
        self.git("commit", "-m", "change", "--allow-empty")

    @classmethod
    def create(cls, folder: Path) -> "Flowers":
        """Return the project, run once and committed on main."""
        flowers = cls(folder)
        flowers.run("git", "init", "-b", "main")
        flowers.run("dvc", "init")
        (folder / "train.py").write_text(TRAIN)
        (folder / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE))
        (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
        flowers.change()
        return flowers

    def copy(self, folder: Path) -> "Flowers":
        """Return a copy with its cache."""
        self.run("cp", "-r", str(self.folder), str(folder))
        return Flowers(folder)
