"""A revision of a project, read from Git and from the DVC cache alone, without checking it out."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from fashion.errors import UserError

DVC = [sys.executable, "-m", "dvc"]


@dataclass(frozen=True)
class Revision:
    """A commit, or the working tree.

    Attributes:
        root: folder of the project.
        commit: its hash, None for the working tree.
        name: for people.
        rebuilt: whether `root` is a worktree of that commit, in which the pipeline was run again.
    """

    root: Path
    commit: str | None
    name: str
    rebuilt: bool = False

    def read(self, path: str) -> bytes | None:
        """Return a file's content, None if the revision has no such file or the cache lacks it."""
        if self.commit is None or self.rebuilt:
            if (self.root / path).is_file():
                return (self.root / path).read_bytes()
        else:
            shown = subprocess.run(
                ["git", "show", f"{self.commit}:./{path}"], cwd=self.root, capture_output=True, check=False
            )
            if shown.returncode == 0:
                return shown.stdout
        digest = None if path.endswith("dvc.lock") else self.recorded(path)
        cached = self._cache / digest[:2] / digest[2:] if digest else None
        return cached.read_bytes() if cached and cached.is_file() else None

    def paths(self, pattern: str) -> list[str]:
        """Return the paths of Git that match a pattern, such as `reports/*/metrics.json`."""
        return [
            path
            for path in git(self.root, "ls-tree", "-r", "--name-only", self.commit or "HEAD").splitlines()
            if fnmatch(path, pattern)
        ]

    @cached_property
    def _cache(self) -> Path:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        try:
            return Path(Repo(str(self.root)).cache.local.path)
        except DvcException as error:
            raise UserError(f"{self.root.absolute()} is not a DVC project: {error}") from error

    @cached_property
    def lock(self) -> Mapping[str, Any]:
        """What dvc.lock records: stages by name.

        Raises:
            UserError: the revision has none, or it cannot be read.
        """
        stages = self._locked("dvc.lock")
        if stages is None:
            raise UserError(f"{self.name} has no dvc.lock: it was never run with DVC; choose another revision")
        return stages

    def _locked(self, path: str) -> dict[str, Any] | None:
        content = self.read(path)
        try:
            return None if content is None else dict(yaml.safe_load(content)["stages"])
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} of {self.name} cannot be read; if a merge left conflicts in it, "
                f"run `git checkout --ours {path}` and `dvc repro`"
            ) from error

    def recorded(self, path: str) -> str | None:
        """Return the hash of an output as dvc.lock records it, the project's or that of a study around the output."""
        folders = [str(folder) for folder in PurePosixPath(path).parents][:-1]
        locks = itertools.chain([self.lock], (self._locked(f"{folder}/dvc.lock") or {} for folder in folders))
        outs = (out for stages in locks for stage in stages.values() for out in stage.get("outs", []))
        return next((str(out["md5"]) for out in outs if out["path"] == path), None)

    def lacks(self, path: str) -> bool:
        """Tell whether dvc.lock records an output that is not in the cache."""
        return self.recorded(path) is not None and self.read(path) is None


def working_tree(root: Path) -> Revision:
    """Return the project as it is on disk."""
    return Revision(root, None, "the working tree")


def resolve(root: Path, base: str | None, head: str | None, main: str) -> list[Revision]:
    """Return base (by default where head left the branch `main`) and head (by default the working tree).

    Raises:
        UserError: there is no such revision, or no way to tell where the branches part.
    """
    git(root, "rev-parse", "--git-dir")  # raises Git's own message if it cannot read the repository
    end = _commit(root, head) if head else working_tree(root)
    if base:
        return [_commit(root, base), end]
    git(root, "rev-parse", "--verify", "HEAD^{commit}", problem="this repository has no commit yet; commit first")
    branch = next((name for name in (main, f"origin/{main}") if _exists(root, name)), None)
    if branch is None:
        raise UserError(f"there is no branch {main}, nor origin/{main}: name the revision to compare with (--base REV)")
    shallow = git(root, "rev-parse", "--is-shallow-repository") == "true"
    parting = git(
        root,
        "merge-base",
        branch,
        end.commit or "HEAD",
        problem=f"{branch} and {end.name} have no commit in common"
        + (": this clone is shallow; run `git fetch --unshallow` or name a base (--base REV)" if shallow else ""),
    )
    return [Revision(root, parting, f"{branch} ({parting[:7]})"), end]


def _commit(root: Path, name: str) -> Revision:
    problem = f"there is no revision {name} here; `git log --all` lists them, `git fetch` gets new ones"
    commit = git(root, "rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}", problem=problem)
    return Revision(root, commit, commit[:7] if commit.startswith(name) else f"{name} ({commit[:7]})")


def behind(found: Iterable[str]) -> str:
    """Return what a person must know of what `stale` found."""
    what = f"dvc.lock was written with another {', '.join(found)}"
    return f"{what}; run `dvc repro` and commit dvc.lock with what it changes"


def stale(root: Path) -> list[str]:
    """Return, a line each, what differs between the working tree and what its dvc.lock was written with.

    As `dvc status` tells it; outputs that are merely not there do not count.
    """
    done = subprocess.run([*DVC, "status", "--json", "dvc.yaml"], cwd=root, capture_output=True, check=False)
    if done.returncode:
        raise UserError(f"`dvc status` failed: {done.stderr.decode(errors='replace').strip()}")
    made = {out["path"] for stage in working_tree(root).lock.values() for out in stage.get("outs", [])}
    lines = set()
    for stage, problems in json.loads(done.stdout).items():
        for problem in problems:
            if isinstance(problem, str):  # "changed command"
                lines.add(f"{stage}: {problem}")
                continue
            for path, state in {**problem.get("changed deps", {}), **problem.get("changed outs", {})}.items():
                if isinstance(state, dict):  # of a file of params
                    lines |= {f"{path}: {key}" for key in state}
                elif path not in made or state == "modified":
                    lines.add(path)
    return sorted(lines)


@contextmanager
def rebuilt(revisions: Iterable[Revision], lacks: Callable[[Revision], bool]) -> Iterator[list[Revision]]:
    """Yield the revisions, and for each commit that lacks something, what its pipeline makes when it is run again.

    It runs in a worktree of its own, which shares the cache and is removed in the end. What a remote has is fetched.

    Raises:
        UserError: a stage failed; DVC has told why.
    """
    revisions = list(revisions)
    folder = revisions[0].root / ".dvc" / "tmp"  # /tmp may lack the space
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch, ExitStack() as worktrees:
        yield [
            _run_again(revision, Path(scratch) / str(index), worktrees)
            if revision.commit and lacks(revision)
            else revision
            for index, revision in enumerate(revisions)
        ]


def _run_again(revision: Revision, tree: Path, worktrees: ExitStack) -> Revision:
    def run(*command: str) -> int:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            command, cwd=root, env={**os.environ, "PATH": path}, stdout=sys.stderr, check=False
        ).returncode

    root = tree / git(revision.root, "rev-parse", "--show-prefix")
    worktrees.callback(git, revision.root, "worktree", "prune")
    worktrees.callback(git, revision.root, "worktree", "remove", "--force", str(tree))
    no_hooks = ["-c", f"core.hooksPath={os.devnull}"]
    git(revision.root, *no_hooks, "worktree", "add", "--detach", str(tree), str(revision.commit))
    run(*DVC, "cache", "dir", "--local", str(revision._cache.parents[1]))
    run(*DVC, "pull", "--run-cache", "--allow-missing")  # fails without a remote; what it lacks is made below
    if run(*DVC, "repro"):
        raise UserError(f"`dvc repro` failed at {revision.name}")
    return Revision(root, revision.commit, revision.name, rebuilt=True)


def md5(content: bytes) -> str:
    """Return the hash of a file's content as DVC writes it."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def git(root: Path, *arguments: str, problem: str | None = None) -> str:
    """Return what Git says.

    Raises:
        UserError: Git is missing or fails; the message is `problem`, or else Git's own.
    """
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise UserError("git is not installed; a review reads the project's revisions from it") from error
    if done.returncode:
        raise UserError(problem or done.stderr.decode(errors="replace").strip())
    return done.stdout.decode(errors="replace").strip()


def _exists(root: Path, revision: str) -> bool:
    arguments = ["git", "rev-parse", "--quiet", "--verify", f"{revision}^{{commit}}"]
    return subprocess.run(arguments, cwd=root, capture_output=True, check=False).returncode == 0
