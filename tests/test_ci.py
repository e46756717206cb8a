"""The scripts that the workflows call, run as CI would: a bare repository as origin, a DVC remote, clones of both.

The project is that of tests/flowers.py, so nothing here knows of this one. GitHub is a program that answers as it does.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fashion.evaluation.figures import png
from tests.conftest import ROOT
from tests.flowers import Flowers

GH = f"""#!{sys.executable}
import json, os, pathlib, sys
log = pathlib.Path(os.environ["GH_LOG"])
words = sys.argv[1:]
files = [word.removeprefix("body=@") for word in words if word.startswith("body=@")]
with log.open("a") as file:
    file.write(json.dumps({{"words": words, "body": files and pathlib.Path(files[0]).read_text()}}) + "\\n")
if any(word.endswith("/pulls") for word in words):
    print(os.environ.get("PULL", ""))
elif "--paginate" in words:
    print(os.environ.get("COMMENT", ""))
"""


class Hub:
    """An origin and a DVC remote, and clones that play everyone."""

    def __init__(self, folder: Path, flowers: Flowers) -> None:
        self.folder, self.origin = folder, folder / "origin.git"
        main = flowers.copy(folder / "main")
        shutil.copytree(ROOT / ".ci", main.folder / ".ci")
        main.run("dvc", "remote", "add", "--default", "storage", str(folder / "storage"))
        main.git("add", "-A")
        main.git("commit", "-m", "remote and scripts")
        main.run("dvc", "push")
        main.run("git", "init", "--bare", "-b", "main", str(self.origin))
        main.git("remote", "add", "origin", str(self.origin))
        main.git("push", "origin", "main")

    def clone(self, name: str, branch: str = "main") -> Flowers:
        clone = Flowers(self.folder / name)
        subprocess.run(["git", "clone", "-q", "-b", branch, self.origin, clone.folder], check=True)
        return clone

    def propose(self, change: Callable[[Flowers], object], push: bool = True) -> None:
        """Have an author push a change to the branch `work`."""
        author = self.clone("author")
        author.git("checkout", "-b", "work")
        author.run("dvc", "pull")
        change(author)
        author.git("add", "-A")
        author.git("commit", "--allow-empty", "-m", "work")
        author.git("push", "origin", "work")
        if push:
            author.run("dvc", "push")

    def review(self) -> tuple[subprocess.CompletedProcess[str], str]:
        """Run the review as CI does, and return what it printed and what it wrote."""
        runner = self.clone("runner", "work")
        done = runner.run(".ci/review", "origin/main", "review", check=False)
        return done, (runner.folder / "review" / "review.md").read_text()


@pytest.fixture
def hub(tmp_path: Path, original_flowers: Flowers) -> Hub:
    return Hub(tmp_path, original_flowers)


def comment_on_the_code(author: Flowers) -> None:
    with (author.folder / "train.py").open("a") as file:
        file.write("# another line\n")


def comment_and_run(author: Flowers) -> None:
    comment_on_the_code(author)
    author.change()


def touch_nothing(author: Flowers) -> None:
    (author.folder / "README.md").write_text("Flowers\n")


@pytest.mark.parametrize(
    ("change", "verdict", "says"),
    [
        (lambda author: author.change(columns=1), "worse", "significantly worse"),
        (lambda author: author.change(strength=0.9), "different within noise", None),
        (comment_and_run, "unchanged", None),
        (touch_nothing, "unchanged", None),
        (comment_on_the_code, "unchanged", "dvc.lock was written with another train.py"),
    ],
    ids=["worsen", "within noise, params only", "code only", "untouched", "stale lock"],
)
def test_review_of_a_change(hub: Hub, change: Callable[[Flowers], object], verdict: str, says: str | None) -> None:
    hub.propose(change)
    done, text = hub.review()
    assert f"**flowers: {verdict}.**" in text
    assert done.returncode == (0 if says is None else 1), done.stderr
    assert says is None or says in done.stderr


def test_review_of_an_improvement(hub: Hub) -> None:
    hub.clone("maintainer").run("dvc", "pull")
    maintainer = Flowers(hub.folder / "maintainer")
    maintainer.change(columns=1)
    maintainer.git("push", "origin", "main")
    maintainer.run("dvc", "push")
    hub.propose(lambda author: author.change(columns=4))
    done, text = hub.review()
    assert done.returncode == 0, done.stderr
    assert "**flowers: better.**" in text
    assert "- params: `model.columns`: `1` → `4`" in text
    runner = hub.folder / "runner" / "review"
    assert "](pictures/confusion-flowers.png)" in text
    assert (runner / "pictures" / "confusion-flowers.png").exists()
    assert "better" in (runner / "index.html").read_text()


def test_review_is_against_where_the_change_left_main(hub: Hub) -> None:
    """Main has improved since, and the change is not to blame."""
    maintainer = hub.clone("maintainer")
    maintainer.run("dvc", "pull")
    maintainer.change(columns=1)
    maintainer.git("push", "origin", "main")
    maintainer.run("dvc", "push")
    hub.propose(touch_nothing)
    maintainer.change(columns=4)
    maintainer.git("push", "origin", "main")
    done, text = hub.review()
    assert done.returncode == 0, done.stderr
    assert "**flowers: unchanged.**" in text


def test_review_of_a_pipeline_that_fails_says_so(hub: Hub) -> None:
    def break_it(author: Flowers) -> None:
        (author.folder / "train.py").write_text("import nothing_of_that_name\n")

    hub.propose(break_it)
    done, text = hub.review()
    assert done.returncode == 1
    assert "`dvc repro` failed" in text


def test_review_of_what_nobody_pushed_trains_both_sides(hub: Hub) -> None:
    hub.propose(lambda author: author.change(columns=1), push=False)
    (hub.folder / "storage").rename(hub.folder / "emptied")
    done, text = hub.review()
    assert "**flowers: worse.**" in text
    assert done.returncode == 1


def test_review_of_a_fork_that_cannot_reach_the_remote_trains_both_sides(hub: Hub) -> None:
    def move(author: Flowers) -> None:
        author.run("dvc", "remote", "modify", "storage", "url", "http://127.0.0.1:9/")
        author.change(columns=1)

    hub.propose(move, push=False)
    done, text = hub.review()
    assert "**flowers: worse.**" in text
    assert done.returncode == 1


def test_retrain_proposes_nothing_where_nothing_changed(hub: Hub) -> None:
    runner = hub.clone("runner")
    assert runner.run(".ci/retrain").stdout.endswith("dvc.lock is up to date: nothing to propose.\n")


def test_retrain_leaves_what_is_not_committed_alone(hub: Hub) -> None:
    runner = hub.clone("runner")
    (runner.folder / "notes.txt").write_text("mine")
    done = runner.run(".ci/retrain", "model.strength=0.9", check=False)
    assert done.returncode == 1
    assert done.stderr == "error: there are changes that are not committed; commit or stash them first\n"
    assert "strength: 0.9" not in (runner.folder / "params.yaml").read_text()


def test_retrain_proposes_a_branch_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):
        monkeypatch.setenv("PROPOSAL", str(hub.folder / f"{name}.txt"))
        hub.clone(name).run(".ci/retrain", "model.strength=0.9")
    branch = (hub.folder / "first.txt").read_text().strip()
    assert branch.startswith("retrain/")
    assert (hub.folder / "second.txt").read_text().strip() == branch
    colleague = hub.clone("colleague", branch)
    message = colleague.run("git", "log", "-1", "--format=%B").stdout
    assert "**flowers: different within noise.**" in message
    assert "strength: 0.9" in (colleague.folder / "params.yaml").read_text()
    colleague.run("dvc", "pull")
    assert "Data and pipelines are up to date." in colleague.run("dvc", "repro").stdout
    main = hub.clone("main again").run("git", "log", "--format=%s").stdout
    assert main.splitlines() == ["remote and scripts", "change"], "nothing was pushed to main"


def test_retrain_mends_a_stale_lock(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    maintainer = hub.clone("maintainer")
    comment_on_the_code(maintainer)
    maintainer.git("commit", "-am", "not run")
    maintainer.git("push", "origin", "main")
    monkeypatch.setenv("PROPOSAL", str(hub.folder / "proposal.txt"))
    runner = hub.clone("runner")
    runner.run(".ci/retrain")
    mended = hub.clone("mended", (hub.folder / "proposal.txt").read_text().strip())
    mended.run("dvc", "pull")
    assert "Data and pipelines are up to date." in mended.run("dvc", "repro").stdout


def test_retrain_proposes_nothing_worse(hub: Hub) -> None:
    runner = hub.clone("runner")
    done = runner.run(".ci/retrain", "model.columns=1", check=False)
    assert done.returncode == 1
    assert "significantly worse" in done.stderr
    assert runner.run("git", "ls-remote", "--heads", "origin").stdout.count("\n") == 1


@pytest.fixture
def commenting(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that posts a review as comment.yml does, and returns what GitHub was told."""
    from matplotlib.figure import Figure

    programs = hub.folder / "bin"
    programs.mkdir()
    (programs / "gh").write_text(GH)
    (programs / "gh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    for name, value in {
        "GH_LOG": str(hub.folder / "gh.log"),
        "GH_TOKEN": "token",
        "GITHUB_REPOSITORY": "someone/flowers",
        "ORIGIN": str(hub.origin),
        "HEAD_OWNER": "someone",
        "HEAD_BRANCH": "work",
        "HEAD_SHA": "0123456789",
    }.items():
        monkeypatch.setenv(name, value)
    pictures = hub.folder / "review" / "pictures"
    pictures.mkdir(parents=True)
    (pictures / "curves.png").write_bytes(png(Figure(figsize=(1, 1))))
    (pictures / "page.png").write_text("<script>alert()</script>")
    (pictures / "$(touch hacked).png").write_bytes(png(Figure(figsize=(1, 1))))
    (pictures / "link.png").symlink_to("/etc/passwd")
    (pictures.parent / "review.md").write_text("Better. $(touch hacked)\n\n![curves](pictures/curves.png)\n")

    def comment(**environment: str) -> list[dict[str, Any]]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        Flowers(hub.folder / "main").run(".ci/comment", str(pictures.parent))
        return [json.loads(line) for line in (hub.folder / "gh.log").read_text().splitlines()]

    return comment


def test_comment_is_posted_with_its_pictures(hub: Hub, commenting: Callable[..., list[dict[str, Any]]]) -> None:
    post = commenting(PULL="7")[-1]
    assert "POST" in post["words"]
    assert "repos/someone/flowers/issues/7/comments" in post["words"]
    pictures = hub.clone("pictures", "review-pictures/7")
    commit = pictures.run("git", "rev-parse", "HEAD").stdout.strip()
    assert f"![curves](https://github.com/someone/flowers/raw/{commit}/curves.png)" in str(post["body"])
    assert "Better. $(touch hacked)" in str(post["body"])
    assert pictures.run("git", "ls-files").stdout.split() == ["curves.png"]
    assert not list(hub.folder.rglob("hacked"))


def test_comment_is_updated_and_not_repeated(commenting: Callable[..., list[dict[str, Any]]]) -> None:
    patch = commenting(PULL="7", COMMENT="42")[-1]
    assert "PATCH" in patch["words"]
    assert "repos/someone/flowers/issues/comments/42" in patch["words"]


def test_nothing_is_posted_where_the_pull_request_moved_on(commenting: Callable[..., list[dict[str, Any]]]) -> None:
    assert len(commenting(PULL="")) == 1, "it asked, and that was all"
