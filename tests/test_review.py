"""`fashion review` in another project: what it says of every kind of change, and of what it cannot compare."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fashion.review.compare import TestSet
from tests.flowers import Flowers


@pytest.fixture
def flowers(original_flowers: Flowers, tmp_path: Path) -> Flowers:
    """A copy of the project on a branch."""
    copy = original_flowers.copy(tmp_path / "copy")
    copy.git("checkout", "-b", "work")
    return copy


def test_nothing_changed(flowers: Flowers) -> None:
    done = flowers.review("--gate")
    assert done.returncode == 0, done.stderr
    assert "**flowers: unchanged.**" in done.stdout
    assert "- params: none" in done.stdout
    assert "stages that had not, as nothing they need differs: train" in done.stdout


def test_a_real_loss_fails_the_gate(flowers: Flowers, tmp_path: Path) -> None:
    flowers.change(columns=1)
    page, pictures = tmp_path / "review.html", tmp_path / "pictures"
    done = flowers.review("--gate", "--html", str(page), "--pictures", str(pictures))
    assert done.returncode == 1
    assert done.stderr.startswith("error: flowers is significantly worse: ")
    assert "**flowers: worse.**" in done.stdout
    assert "- params: `model.columns`: `4` → `1`" in done.stdout
    assert "stages that had to run again: train" in done.stdout
    assert [path.name for path in pictures.iterdir()] == ["confusion-flowers.png"], "no curves, no images of flowers"
    assert "](pictures/confusion-flowers.png)" in done.stdout
    assert "data:image/png;base64," in page.read_text()
    assert "http" not in page.read_text()


def test_the_model_of_a_study_is_reviewed(flowers: Flowers) -> None:
    study = flowers.folder / "studies" / "copy"
    study.mkdir(parents=True)
    outputs = {"probabilities.npy": "outs", "metrics.json": "metrics"}
    stages = {
        name.partition(".")[0]: {
            "wdir": "../..",
            "cmd": f"cp {name} studies/copy/{name}",
            "deps": [name],
            kind: [f"studies/copy/{name}"],
        }
        for name, kind in outputs.items()
    }
    (study / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    params = yaml.safe_load((flowers.folder / "params.yaml").read_text())
    models = params["review"]["models"]
    paths = {"predictions": "studies/copy/probabilities.npy", "metrics": "studies/copy/metrics.json"}
    models["copy"] = models["flowers"] | paths
    (flowers.folder / "params.yaml").write_text(yaml.safe_dump(params))
    for columns in (4, 1):
        flowers.change(columns=columns)
        flowers.run("dvc", "repro", "studies/copy/dvc.yaml")
        flowers.git("add", "-A")
        flowers.git("commit", "-m", "the study")
    for name in outputs:
        (study / name).unlink()
    done = flowers.review("--base", "HEAD~2", "--head", "HEAD")
    assert "**copy, flowers: worse.**" in done.stdout, done.stderr
    assert "Not in the DVC cache" not in done.stdout


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
    done = flowers.review("--gate")
    assert done.returncode == 1
    assert done.stderr.startswith("error: dvc.lock was written with another train.py; run `dvc repro`")
    assert "**Not of the code and params that are there. flowers: unchanged.**" in done.stdout
    assert "> The gate fails: dvc.lock was written with another train.py;" in done.stdout


def test_a_missing_cache_is_told_and_rebuilt(flowers: Flowers) -> None:
    flowers.change(columns=1)
    flowers.run("rm", "-r", ".dvc/cache")
    done = flowers.review("--gate")
    assert done.returncode == 1
    assert done.stderr.startswith("error: flowers cannot be tested, as predictions are missing")
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


def test_the_same_pictures_in_another_file_are_the_same_cases() -> None:
    images, labels = np.arange(8, dtype=np.uint8).reshape(2, 2, 2), np.array([0, 1])
    truth = TestSet("of one release of Python", labels, images)
    assert truth.same_as(TestSet("of another", labels.copy(), images.copy()))
    assert not truth.same_as(TestSet("of another", labels[::-1], images))
    assert not truth.same_as(TestSet("of another", labels, images + 1))
    assert not truth.same_as(TestSet("of another", labels, None))


@pytest.mark.parametrize("first", ["base", "head"])
def test_a_model_of_one_side(flowers: Flowers, first: str) -> None:
    code = "import numpy, sklearn.datasets as d; numpy.savez('truth.npz', labels=d.load_iris(return_X_y=True)[1][::2])"
    pipeline = {"stages": {"other": {"cmd": f'python -c "{code}"', "outs": ["truth.npz"]}}}
    (flowers.folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    for name in ("dvc.lock", "metrics.json", "probabilities.npy", "truth.npz"):
        (flowers.folder / name).unlink()
    flowers.change()
    ends = ("main", "work") if first == "base" else ("work", "main")
    done = flowers.review("--base", ends[0], "--head", ends[1])
    assert done.returncode == 0, done.stderr
    assert f"**flowers: {'gone' if first == 'base' else 'new'}.**" in done.stdout


def test_bad_revisions_are_one_clear_line(flowers: Flowers) -> None:
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


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.arange(75) % 3 + 1, "expected a row of labels, whole numbers from 0 to 2, found int64 of shape (75,)"),
        (np.zeros((75, 1), int), "found int64 of shape (75, 1)"),
        (np.zeros(75), "found float64 of shape (75,)"),
        (np.zeros(0, int), "found int64 of shape (0,)"),
        (np.zeros(9, int), "expected probabilities of shape (9, 3)"),
    ],
)
def test_test_cases_that_cannot_be(flowers: Flowers, labels: np.ndarray, says: str) -> None:
    np.savez(flowers.folder / "truth.npz", labels=labels)
    done = flowers.review()
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_predictions_that_are_no_probabilities(flowers: Flowers) -> None:
    np.save(flowers.folder / "probabilities.npy", np.full((75, 3), np.nan))
    assert "whose rows sum to 1" in flowers.review().stderr


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("truth", "metrics.json", "metrics.json of the working tree is not an .npz file with labels"),
        ("truth", "probabilities.npy", "probabilities.npy of the working tree is not an .npz file with labels"),
        ("predictions", "truth.npz", "results of flowers of the working tree cannot be read"),
        ("classes", ["a", "b"], "truth.npz of the working tree: expected a row of labels, whole numbers from 0 to 1"),
        ("classes", [*"abcd"], "probabilities.npy of the working tree: expected probabilities of shape (75, 4)"),
        ("history", "metrics.json", "results of flowers of the working tree cannot be read"),
        ("main", "nowhere", "there is no branch nowhere"),
    ],
)
def test_params_that_do_not_fit_the_files(flowers: Flowers, key: str, value: Any, says: str) -> None:
    params = yaml.safe_load((flowers.folder / "params.yaml").read_text())
    section = params["review"] if key in params["review"] else params["review"]["models"]["flowers"]
    section[key] = value
    (flowers.folder / "params.yaml").write_text(yaml.safe_dump(params))
    done = flowers.review()
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {says}")
    assert len(done.stderr.splitlines()) == 1


def test_a_git_that_refuses_to_answer_says_why(flowers: Flowers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    done = flowers.review()
    assert done.returncode == 1
    assert "detected dubious ownership" in done.stderr
    assert "git config --global --add safe.directory" in done.stderr


def test_a_model_that_is_no_longer_declared_is_gone(flowers: Flowers) -> None:
    params = yaml.safe_load((flowers.folder / "params.yaml").read_text())
    params["review"]["models"] = {}
    params["review"]["significance"] = 0.001
    (flowers.folder / "params.yaml").write_text(yaml.safe_dump(params))
    done = flowers.review("--gate")
    assert done.returncode == 1
    assert "**flowers: gone.**" in done.stdout
    assert "`review.significance`: `0.05` → `0.001`" in done.stdout


def test_conflicts_in_the_lock_are_told(flowers: Flowers) -> None:
    with (flowers.folder / "dvc.lock").open("a") as file:
        file.write("<<<<<<< ours\n=======\n>>>>>>> theirs\n")
    assert "run `git checkout --ours dvc.lock` and `dvc repro`" in flowers.review().stderr


def test_a_project_in_a_folder_of_its_repository(original_flowers: Flowers, tmp_path: Path) -> None:
    Flowers(tmp_path).run("git", "init", "-b", "main")
    inner = original_flowers.copy(tmp_path / "inner")
    inner.run("rm", "-rf", ".git")
    inner.run("dvc", "config", "core.no_scm", "false")
    inner.change()
    inner.git("checkout", "-b", "work")
    inner.change(columns=1)
    inner.run("rm", "-r", ".dvc/cache")
    done = inner.review("--rebuild")
    assert done.returncode == 0, done.stderr
    assert "**flowers: worse.**" in done.stdout
