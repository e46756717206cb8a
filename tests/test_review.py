"""`fashion review` in another project: a table of flowers, scikit-learn, and nothing of this project but the command."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
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
Run = Callable[..., subprocess.CompletedProcess[str]]


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

    def git(self, *arguments: str) -> None:
        self.run("git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments)

    def change(self, **model: float) -> None:
        """Change params of the model, run the pipeline, commit."""
        params = yaml.safe_load((self.folder / "params.yaml").read_text())
        params["model"] |= model
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params))
        self.run("dvc", "repro")
        self.git("add", "-A")
        self.git("commit", "-m", "change", "--allow-empty")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Flowers:
    flowers = Flowers(tmp_path_factory.mktemp("flowers"))
    flowers.run("git", "init", "-b", "main")
    flowers.run("dvc", "init")
    (flowers.folder / "train.py").write_text(TRAIN)
    (flowers.folder / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE))
    (flowers.folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    flowers.change()
    return flowers


@pytest.fixture
def flowers(original: Flowers, tmp_path: Path) -> Flowers:
    """A copy of it, with its cache, on a branch."""
    subprocess.run(["cp", "-r", str(original.folder), str(tmp_path / "copy")], check=True)
    copy = Flowers(tmp_path / "copy")
    copy.git("checkout", "-b", "work")
    return copy


def test_nothing_changed(flowers: Flowers) -> None:
    done = flowers.review("--gate")
    assert done.returncode == 0, done.stderr
    assert "**flowers: unchanged.**" in done.stdout
    assert "- params: none" in done.stdout
    assert "stages that did not, as nothing they need differs: train" in done.stdout


def test_a_real_loss_fails_the_gate(flowers: Flowers, tmp_path: Path) -> None:
    flowers.change(columns=1)
    page, pictures = tmp_path / "review.html", tmp_path / "pictures"
    done = flowers.review("--gate", "--html", str(page), "--pictures", str(pictures))
    assert done.returncode == 1
    assert done.stderr.startswith("error: flowers is significantly worse: ")
    assert "**flowers: worse.**" in done.stdout
    assert "- params: `model.columns`: `4` → `1`" in done.stdout
    assert "stages that ran again: train" in done.stdout
    assert [path.name for path in pictures.iterdir()] == ["confusion-flowers.png"], "no curves, no images of flowers"
    assert f"({pictures}/confusion-flowers.png)" in done.stdout
    assert "data:image/png;base64," in page.read_text()
    assert "http" not in page.read_text()


def test_noise_passes_the_gate(flowers: Flowers) -> None:
    flowers.change(strength=0.9)
    done = flowers.review("--gate")
    assert done.returncode == 0, done.stderr
    assert "**flowers: different within noise.**" in done.stdout


def test_an_improvement_is_seen_from_the_other_side(flowers: Flowers) -> None:
    flowers.change(columns=1)
    done = flowers.review("--base", "work", "--head", "main", "--gate")
    assert done.returncode == 0, done.stderr
    assert "**flowers: better.**" in done.stdout


def test_below_its_floor_fails_the_gate(flowers: Flowers) -> None:
    params = yaml.safe_load((flowers.folder / "params.yaml").read_text())
    params["review"]["models"]["flowers"]["floor"] = 0.999
    (flowers.folder / "params.yaml").write_text(yaml.safe_dump(params))
    done = flowers.review("--gate")
    assert done.returncode == 1
    assert "below its floor of 99.90%" in done.stderr


def test_code_that_was_not_run_is_told(flowers: Flowers) -> None:
    with (flowers.folder / "train.py").open("a") as file:
        file.write("# another line\n")
    done = flowers.review()
    assert "dvc.lock of the working tree was not written with what is there now: train.py." in done.stdout


def test_a_missing_cache_is_told_and_rebuilt(flowers: Flowers) -> None:
    flowers.change(columns=1)
    flowers.run("rm", "-r", ".dvc/cache")
    done = flowers.review("--gate")
    assert done.returncode == 1
    assert done.stderr.startswith("error: flowers cannot be tested, as predictions are missing; ")
    assert "Not in the DVC cache: truth.npz of main" in done.stdout
    assert "**flowers: not comparable.**" in done.stdout
    assert "points | not comparable |" in done.stdout, "the metrics are in Git"
    done = flowers.review("--gate", "--rebuild")
    assert done.returncode == 1, done.stderr
    assert "**flowers: worse.**" in done.stdout
    assert flowers.run("git", "worktree", "list").stdout.count("\n") == 1


def test_other_test_cases_are_not_compared(flowers: Flowers) -> None:
    script = flowers.folder / "train.py"
    script.write_text(script.read_text().replace("% 2 == 0", "% 3 == 0"))
    flowers.change()
    done = flowers.review()
    assert "The test cases of the two revisions differ" in done.stdout
    assert "**flowers: not comparable.**" in done.stdout


@pytest.mark.parametrize("first", ["base", "head"])
def test_a_model_of_one_side(flowers: Flowers, first: str) -> None:
    flowers.git("rm", "--cached", "dvc.lock", "metrics.json")
    for name in ("metrics", "lock"):
        flowers.run("rm", {"metrics": "metrics.json", "lock": "dvc.lock"}[name])
    pipeline = yaml.safe_load((flowers.folder / "dvc.yaml").read_text())
    pipeline["stages"] = {"other": {"cmd": "echo > other.txt", "outs": ["other.txt"]}}
    (flowers.folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    for path in ("probabilities.npy", "truth.npz"):
        (flowers.folder / path).unlink()
    flowers.change()
    ends = ("main", "work") if first == "base" else ("work", "main")
    done = flowers.review("--base", ends[0], "--head", ends[1])
    assert done.returncode == 0, done.stderr
    assert f"**flowers: {'gone' if first == 'base' else 'new'}.**" in done.stdout


def test_bad_revisions_are_one_clear_line(flowers: Flowers, tmp_path: Path) -> None:
    assert flowers.review("--base", "nowhere").stderr.startswith("error: there is no revision nowhere here")
    flowers.git("checkout", "--orphan", "empty")
    assert flowers.review().stderr.startswith("error: this repository has no commit yet")
    flowers.git("rm", "-rf", "--cached", ".")
    flowers.git("commit", "--allow-empty", "-m", "nothing")
    assert "have no commit in common" in flowers.review().stderr
    assert flowers.review("--base", "empty").stderr.startswith("error: empty")
    assert "has no dvc.lock" in flowers.review("--base", "empty").stderr
    flowers.git("branch", "-D", "main", "work")
    assert flowers.review().stderr.startswith("error: there is no branch main, nor origin/main")


def test_a_shallow_clone_is_told(flowers: Flowers, tmp_path: Path) -> None:
    flowers.change(columns=3)
    flowers.change(columns=2)
    url = f"file://{flowers.folder}"
    flowers.run("git", "clone", "--depth", "1", "--no-single-branch", "-b", "work", url, str(tmp_path / "shallow"))
    done = Flowers(tmp_path / "shallow").review()
    assert done.returncode == 1
    assert "this clone is shallow; run `git fetch --unshallow`" in done.stderr


def test_a_project_without_the_declaration(flowers: Flowers) -> None:
    (flowers.folder / "params.yaml").write_text("model: {columns: 4, strength: 1.0}\n")
    assert flowers.review().stderr.startswith("error: params.yaml has no section `review`")
