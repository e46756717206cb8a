"""`fashion review` in another project: what it says of every kind of change, and of what it cannot compare."""

from pathlib import Path

import pytest
import yaml

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
