"""The scripts that the workflows call, run as in CI: a bare repository as origin, a DVC remote, and clones.

The project is that of tests/flowers.py. A program that prints the same responses stands in for GitHub's.
"""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fashion.dvc import Lock
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
    """An origin, a DVC remote, and clones next to them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.origin = folder, folder / "origin.git"
        self.author = Flowers(folder / "author")

    @classmethod
    def create(cls, folder: Path, flowers: Flowers) -> "Hub":
        """Return a hub whose author is on the branch `work`."""
        hub = cls(folder)
        flowers.copy(hub.author.folder)
        shutil.copytree(ROOT / ".ci", hub.author.folder / ".ci")
        hub.author.run("dvc", "remote", "add", "--default", "storage", "../storage")
        hub.author.git("add", "-A")
        hub.author.git("commit", "-m", "remote and scripts")
        hub.author.run("dvc", "push")
        hub.author.run("git", "init", "--bare", "-b", "main", str(hub.origin))
        hub.author.git("remote", "add", "origin", str(hub.origin))
        hub.author.git("push", "origin", "main")
        hub.author.git("checkout", "-b", "work")
        return hub

    def copy(self, folder: Path) -> "Hub":
        """Return a copy, with its own origin and DVC remote."""
        shutil.copytree(self.folder, folder, symlinks=True)
        hub = Hub(folder)
        hub.author.git("remote", "set-url", "origin", str(hub.origin))
        return hub

    def clone(self, name: str, branch: str = "main") -> Flowers:
        clone = Flowers(self.folder / name)
        subprocess.run(["git", "clone", "-q", "-b", branch, self.origin, clone.folder], check=True)
        return clone

    def propose(self, change: Callable[[Flowers], object], push: bool = True) -> None:
        """Let the author push a change to the branch `work`."""
        change(self.author)
        self.author.git("add", "-A")
        self.author.git("commit", "--allow-empty", "-m", "work")
        self.author.git("push", "origin", "work")
        if push:
            self.author.run("dvc", "push")

    def review(self) -> tuple[subprocess.CompletedProcess[str], str]:
        """Run the review as CI does; return the process and the review."""
        runner = self.clone("runner", "work")
        done = runner.run(".ci/review", "origin/main", "review", check=False)
        return done, (runner.folder / "review" / "review.md").read_text()


@pytest.fixture(scope="session")
def original_hub(tmp_path_factory: pytest.TempPathFactory, original_flowers: Flowers) -> Hub:
    """Return a hub to copy. Leave it as you found it."""
    return Hub.create(tmp_path_factory.mktemp("hub"), original_flowers)


@pytest.fixture
def hub(tmp_path: Path, original_hub: Hub) -> Hub:
    return original_hub.copy(tmp_path / "hub")


def edit_code(author: Flowers) -> None:
    with (author.folder / "train.py").open("a") as file:
        file.write("# another line\n")


def edit_code_and_run(author: Flowers) -> None:
    edit_code(author)
    author.change()


def touch_nothing(author: Flowers) -> None:
    (author.folder / "README.md").write_text("Flowers\n")


@pytest.mark.parametrize(
    ("change", "verdict", "error"),
    [
        (lambda author: author.change(columns=1), "worse", "significantly worse"),
        pytest.param(edit_code_and_run, "unchanged", None, marks=pytest.mark.slow),
        (edit_code, "unchanged", "dvc.lock is out of date: train.py changed"),
    ],
    ids=["worse", "unchanged", "stale"],
)
def test_review(hub: Hub, change: Callable[[Flowers], object], verdict: str, error: str | None) -> None:
    hub.propose(change)
    done, text = hub.review()
    assert f"**flowers: {verdict}.**" in text
    assert done.returncode == (0 if error is None else 1), done.stderr
    assert error is None or error in done.stderr


@pytest.mark.slow
def test_review_of_an_improvement(hub: Hub) -> None:
    hub.author.change(columns=1)
    hub.author.git("push", "origin", "work:main")
    hub.propose(lambda author: author.change(columns=4))
    done, text = hub.review()
    assert done.returncode == 0, done.stderr
    assert "**flowers: better.**" in text
    assert "- params: `model.columns`: `1` → `4`" in text
    runner = hub.folder / "runner" / "review"
    assert '<img src="figures/confusion-flowers.png"' in text
    assert (runner / "figures" / "confusion-flowers.png").exists()
    assert "better" in (runner / "index.html").read_text()


@pytest.mark.slow
def test_review_against_merge_base(hub: Hub) -> None:
    """Main has changed since the change left it."""
    hub.propose(touch_nothing)
    hub.author.change(columns=1)
    hub.author.git("push", "origin", "work:main")
    done, text = hub.review()
    assert done.returncode == 0, done.stderr
    assert "**flowers: unchanged.**" in text


def test_caches() -> None:
    """Every run, even a failed one, saves one, and starts with the latest for its dvc.lock, else for its branch."""
    action, retrain = (
        yaml.safe_load((ROOT / name).read_text()) for name in ("action.yml", ".github/workflows/retrain.yml")
    )
    for steps, branch in (
        (action["runs"]["steps"], "github.head_ref || github.ref_name"),
        (retrain["jobs"]["retrain"]["steps"], "github.event.repository.default_branch"),
    ):
        restore, save = (step for step in steps if "actions/cache/" in step.get("uses", ""))
        of_branch = f"dvc-${{{{ {branch} }}}}-"
        of_lock = f"{of_branch}${{{{ hashFiles('dvc.lock') }}}}-"
        assert restore["with"]["key"] == f"{of_lock}${{{{ github.run_id }}}}-${{{{ github.run_attempt }}}}"
        assert restore["with"]["restore-keys"].split("\n")[:2] == [of_lock, of_branch]
        assert save["with"]["key"] == f"${{{{ steps.{restore['id']}.outputs.cache-primary-key }}}}"
        assert save["if"] == "${{ !cancelled() }}"


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").iterdir()), ids=lambda path: path.stem)
def test_permissions(path: Path) -> None:
    """What runs the code of a pull request can only read; what may write takes its code from the default branch."""
    workflow = yaml.safe_load(path.read_text().replace("\non:", "\ntriggers:"))  # YAML 1.1 takes `on` for true
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        checkout = next(step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@"))["with"]
        if "write" not in job["permissions"].values():
            assert job["permissions"] == {"contents": "read"}
            assert checkout["persist-credentials"] is False
            assert not re.search(r"\bsecrets\b", str(job))
        else:
            assert not workflow["triggers"].keys() & {"pull_request", "pull_request_target"}
            assert "ref" not in checkout or checkout["ref"] == "${{ github.event.repository.default_branch }}"


@pytest.mark.parametrize("installed", [True, pytest.param(False, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_action(hub: Hub, original_flowers: Flowers, tmp_path: Path, installed: bool) -> None:
    """The scripts of the action's steps, in a project that has the command already and in one that has not."""
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    hub.propose(lambda author: author.change(columns=1))
    runner = hub.clone("runner", "work")
    if installed:
        (runner.folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    values = {"${{ inputs.base }}": "main", "${{ inputs.folder }}": action["inputs"]["folder"]["default"]}
    summary, status = tmp_path / "summary.md", []
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # of the job's Python
    for step in action["runs"]["steps"]:
        if "run" in step:
            variables = {name: values[value] for name, value in step["env"].items()}
            variables |= {"GITHUB_ACTION_PATH": str(ROOT), "GITHUB_STEP_SUMMARY": str(summary)}
            shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
            environment = {**os.environ, **variables, "RUNNER_TEMP": str(tmp_path), "PATH": path}
            status.append(subprocess.run(shell, cwd=runner.folder, env=environment, check=False).returncode)
    assert status == [1, 0], "the gate fails, the summary is written"
    assert "**flowers: worse.**" in summary.read_text()
    assert "<img" not in summary.read_text()
    assert (runner.folder / "review" / "index.html").exists()
    assert (tmp_path / "fashion" / "bin" / "fashion").exists() != installed
    if not installed:
        check_without_extras(tmp_path / "fashion" / "bin", original_flowers.copy(tmp_path / "project"))


def check_without_extras(programs: Path, project: Flowers) -> None:
    """The package without extras reviews another project."""
    project.commit_predictions()
    project.git("checkout", "-b", "work")
    project.change(columns=1)
    assert "tensorflow" not in project.run(str(programs / "python"), "-m", "pip", "list").stdout
    fashion = str(programs / "fashion")
    assert "**flowers: worse.**" in project.run(fashion, "review", "--html", "review.html").stdout
    assert "data:image/png;base64," in (project.folder / "review.html").read_text()
    error = project.run(fashion, "demo", check=False).stderr
    assert "error: the package " in error
    assert "pip install 'fashion[train,serve,cluster]'" in error


def test_review_of_a_failing_pipeline(hub: Hub) -> None:
    def break_it(author: Flowers) -> None:
        (author.folder / "train.py").write_text("import nothing_of_that_name\n")

    hub.propose(break_it)
    done, text = hub.review()
    assert done.returncode == 1
    assert "`dvc repro` failed" in text


def test_failing_review(hub: Hub) -> None:
    hub.propose(lambda author: author.write_params({**author.params(), "review": {"wrong": 1}}))
    done, text = hub.review()
    assert done.returncode == 1
    assert "`fashion review` failed" in text


@pytest.mark.slow
@pytest.mark.parametrize("url", ["../nowhere", "http://127.0.0.1:9/"])
def test_review_without_remote(hub: Hub, url: str) -> None:
    def move(author: Flowers) -> None:
        author.run("dvc", "remote", "modify", "storage", "url", url)
        author.change(columns=1)

    hub.propose(move, push=False)
    done, text = hub.review()
    assert "**flowers: worse.**" in text
    assert done.returncode == 1


def forget(author: Flowers, output: str) -> None:
    """Remove an output from the cache."""
    digest = Lock.read(author.folder).outputs[output] or ""
    (author.folder / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]).unlink()


@pytest.fixture(params=["remote", "cache"])
def hub_with_images(tmp_path: Path, original_flowers: Flowers, request: pytest.FixtureRequest) -> Hub:
    """A hub whose project has a folder of images.

    Clones get the images from the remote or, while it is down, from a shared cache that lacks the predictions.
    """
    flowers = original_flowers.copy(tmp_path / "flowers")
    flowers.track_images()
    hub = Hub.create(tmp_path, flowers)
    down = request.param == "cache"
    address = "ssh://127.0.0.1:9/storage" if down else str(tmp_path / "storage")
    hub.author.run("dvc", "remote", "modify", "storage", "url", address)
    if down:
        hub.author.run("dvc", "cache", "dir", str(hub.author.folder / ".dvc" / "cache"))
        forget(hub.author, "probabilities.npy")
    hub.author.git("commit", "-am", "storage")
    hub.author.git("push", "origin", "work:main")
    return hub


@pytest.mark.slow
def test_review_of_new_images(hub_with_images: Hub, request: pytest.FixtureRequest) -> None:
    down = "cache" in request.node.name

    def add(author: Flowers) -> None:
        author.add_images("tulip", range(10))
        author.change()
        if down:
            forget(author, "probabilities.npy")

    hub_with_images.propose(add, push=not down)
    done, text = hub_with_images.review()
    assert done.returncode == 0, done.stderr
    assert "- files in `images`: 150 → 160\n- 10 added: 10 in tulip (" in text
    assert "from 75 to 80 examples" in text
    assert "was run again here" in text, "the base, in another worktree"
    assert len(list((hub_with_images.folder / "runner" / "images").rglob("*/*"))) == 160


@pytest.mark.slow
def test_retrain_with_images(hub_with_images: Hub) -> None:
    runner = hub_with_images.clone("runner")
    assert runner.run(".ci/retrain").stdout.endswith("dvc.lock is up to date: nothing to propose.\n")
    assert len(list((runner.folder / "images").rglob("*/*"))) == 150


def test_retrain_unchanged(hub: Hub) -> None:
    runner = hub.clone("runner")
    assert runner.run(".ci/retrain").stdout.endswith("dvc.lock is up to date: nothing to propose.\n")


def test_retrain_with_uncommitted_changes(hub: Hub) -> None:
    runner = hub.clone("runner")
    (runner.folder / "notes.txt").write_text("mine")
    done = runner.run(".ci/retrain", "model.strength=0.9", check=False)
    assert done.returncode == 1
    assert done.stderr == "error: there are uncommitted changes; commit or stash them first\n"
    assert "strength: 0.9" not in (runner.folder / "params.yaml").read_text()


def test_retrain_with_the_same_params(hub: Hub) -> None:
    strength = hub.author.params()["model"]["strength"]
    done = hub.clone("runner").run(".ci/retrain", f"model.strength={strength}")
    assert done.stdout.endswith("dvc.lock is up to date: nothing to propose.\n")


def test_retrain_with_an_unknown_param(hub: Hub) -> None:
    done = hub.clone("runner").run(".ci/retrain", "model.size=3", check=False)
    assert done.returncode == 1
    assert "error: model.size: params.yaml has no such key; write +model.size=VALUE to add it\n" in done.stderr


@pytest.mark.slow
def test_retrain_proposes_one_branch(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):
        monkeypatch.setenv("PROPOSAL", str(hub.folder / f"{name}.txt"))
        hub.clone(name).run(".ci/retrain", "model.strength=0.9")
    branch = (hub.folder / "first.txt").read_text().strip()
    assert branch.startswith("retrain/")
    assert (hub.folder / "second.txt").read_text().strip() == branch
    colleague = hub.clone("colleague", branch)
    message = colleague.run("git", "log", "-1", "--format=%B").stdout
    assert "**flowers: within noise.**" in message
    assert "strength: 0.9" in (colleague.folder / "params.yaml").read_text()
    colleague.run("dvc", "pull")
    assert "Data and pipelines are up to date." in colleague.run("dvc", "repro").stdout
    main = hub.clone("main again").run("git", "log", "--format=%s").stdout
    assert main.splitlines() == ["remote and scripts", "change"], "nothing was pushed to main"


@pytest.mark.slow
def test_retrain_of_a_stale_lock(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    maintainer = hub.clone("maintainer")
    edit_code(maintainer)
    maintainer.git("commit", "-am", "not run")
    maintainer.git("push", "origin", "main")
    monkeypatch.setenv("PROPOSAL", str(hub.folder / "proposal.txt"))
    runner = hub.clone("runner")
    runner.run(".ci/retrain")
    mended = hub.clone("mended", (hub.folder / "proposal.txt").read_text().strip())
    mended.run("dvc", "pull")
    assert "Data and pipelines are up to date." in mended.run("dvc", "repro").stdout


@pytest.mark.slow
def test_retrain_worse(hub: Hub) -> None:
    runner = hub.clone("runner")
    done = runner.run(".ci/retrain", "model.columns=1", check=False)
    assert done.returncode == 1
    assert "**flowers: worse.**" in done.stderr, "the review"
    assert "significantly worse" in done.stderr
    assert runner.run("git", "ls-remote", "--heads", "origin").stdout.count("\n") == 1


@pytest.fixture
def commenting(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that posts a review as comment.yml does, and returns the requests to GitHub."""
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
    figures = hub.folder / "review" / "figures"
    figures.mkdir(parents=True)
    (figures / "curves.png").write_bytes(png(Figure(figsize=(1, 1))))
    (figures / "changed-v1.2.png").write_bytes(png(Figure(figsize=(1, 1))))
    (figures / "page.png").write_text("<script>alert()</script>")
    (figures / "$(touch hacked).png").write_bytes(png(Figure(figsize=(1, 1))))
    (figures / "link.png").symlink_to("/etc/passwd")
    (figures.parent / "review.md").write_text('Better. $(touch hacked)\n\n<img src="figures/curves.png">\n')

    def comment(**environment: str) -> list[dict[str, Any]]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        hub.author.run(".ci/comment", str(figures.parent))
        return [json.loads(line) for line in (hub.folder / "gh.log").read_text().splitlines()]

    return comment


def test_comment(hub: Hub, commenting: Callable[..., list[dict[str, Any]]]) -> None:
    post = commenting(PULL="7")[-1]
    assert "POST" in post["words"]
    assert "repos/someone/flowers/issues/7/comments" in post["words"]
    figures = hub.clone("figures", "review-figures/7")
    commit = figures.run("git", "rev-parse", "HEAD").stdout.strip()
    assert f'<img src="https://github.com/someone/flowers/raw/{commit}/curves.png">' in str(post["body"])
    assert "Better. $(touch hacked)" in str(post["body"])
    assert figures.run("git", "ls-files").stdout.split() == ["changed-v1.2.png", "curves.png"]
    assert not list(hub.folder.rglob("hacked"))


def test_comment_limits(hub: Hub, commenting: Callable[..., list[dict[str, Any]]]) -> None:
    """At most twenty figures, each with less than half a megabyte."""
    figures = hub.folder / "review" / "figures"
    content = (figures / "curves.png").read_bytes()
    (figures / "a.png").write_bytes(content.ljust(500_000))
    (figures / "b.png").write_bytes(content.ljust(499_999))
    for number in range(20):
        shutil.copy(figures / "curves.png", figures / f"curves-{number:02}.png")
    commenting(PULL="7")
    names = hub.clone("figures", "review-figures/7").run("git", "ls-files").stdout.split()
    assert "a.png" not in names
    assert "b.png" in names
    assert len(names) == 20


def test_comment_mentions_nobody(hub: Hub, commenting: Callable[..., list[dict[str, Any]]]) -> None:
    text = "@a &commat;b &#64;c &#0064;d &#x40;e &#X40;f <b>&#64g</b>"
    (hub.folder / "review" / "review.md").write_text(text)
    body = str(commenting(PULL="7")[-1]["body"])
    assert re.findall("@.", html.unescape(body)) == 7 * ["@\N{ZERO WIDTH SPACE}"]


def test_comment_is_updated(commenting: Callable[..., list[dict[str, Any]]]) -> None:
    patch = commenting(PULL="7", COMMENT="42")[-1]
    assert "PATCH" in patch["words"]
    assert "repos/someone/flowers/issues/comments/42" in patch["words"]


def test_comment_of_an_old_commit(commenting: Callable[..., list[dict[str, Any]]]) -> None:
    assert len(commenting(PULL="")) == 1, "only the search for the pull request"


def test_long_comment(hub: Hub, commenting: Callable[..., list[dict[str, Any]]]) -> None:
    """It is cut between two blocks, and what is folded is closed."""
    blocks = [f"block {number}: {'x' * 2000}" for number in range(40)]
    text = "\n\n".join(["**worse**", "<details><summary>More</summary>", *blocks, "</details>"])
    (hub.folder / "review" / "review.md").write_text(text)
    body = str(commenting(PULL="7")[-1]["body"])
    kept = [block for block in body.split("\n\n") if block.startswith("block ")]
    assert kept == blocks[: len(kept)]
    assert 20 < len(kept) < 40
    assert "</details>\n\n_Cut here; " in body
    assert len(body) < 65536


def test_review_without_common_ancestor(hub: Hub) -> None:
    runner = hub.clone("runner", "main")
    done = runner.run(".ci/review", "origin/nothing", "review", check=False)
    assert done.returncode == 1
    assert "error: origin/nothing and HEAD have no common ancestor in this clone" in done.stderr
