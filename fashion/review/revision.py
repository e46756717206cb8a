"""A revision of a project, read from Git and from the DVC cache without checking it out."""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from fashion.errors import UserError

WORKING_TREE = "the working tree"


class Revision:
    """A commit, or the working tree.

    Attributes:
        root: folder of the project.
        commit: its hash, None for the working tree.
        name: for people.
    """

    def __init__(self, root: Path, commit: str | None, name: str | None = None) -> None:
        self.root = root
        self.commit = commit
        self.name = name or (commit[:7] if commit else WORKING_TREE)

    @cached_property
    def _files(self) -> Any:
        from dvc.api import DVCFileSystem
        from dvc.exceptions import DvcException

        try:
            return DVCFileSystem(str(self.root), rev=self.commit)
        except DvcException as error:
            raise UserError(f"{self.root.absolute()} is not a DVC project: {error}") from error

    def read(self, path: str) -> bytes | None:
        """Return a file's content, None if the revision has no such file or neither the cache nor a remote holds it."""
        try:
            return bytes(self._files.read_bytes(path))
        except FileNotFoundError:
            return None

    def paths(self, pattern: str) -> list[str]:
        """Return the paths that match a pattern, such as `reports/*/metrics.json`."""
        return sorted(path.lstrip("/") for path in self._files.glob(pattern))

    @cached_property
    def lock(self) -> Mapping[str, Any]:
        """What dvc.lock records: stages by name.

        Raises:
            UserError: the revision has none.
        """
        content = self.read("dvc.lock")
        if content is None:
            raise UserError(f"{self.name} has no dvc.lock: it was never run with DVC; choose another revision")
        return dict(yaml.safe_load(content).get("stages") or {})

    def recorded(self, path: str) -> str | None:
        """Return the hash of an output as dvc.lock records it."""
        outs = (out for stage in self.lock.values() for out in stage.get("outs", []))
        return next((str(out["md5"]) for out in outs if out["path"] == path), None)

    def lacks(self, path: str) -> bool:
        """Tell whether dvc.lock records an output that neither the cache nor a remote holds."""
        return self.recorded(path) is not None and self.read(path) is None

    def stale(self) -> list[str]:
        """Return, a line each, the code and the params that are not those dvc.lock was written with."""
        outs = {out["path"] for stage in self.lock.values() for out in stage.get("outs", [])}
        found = set()
        for stage in self.lock.values():
            for dep in stage.get("deps", []):
                if dep["path"] in outs or dep.get("md5", ".dir").endswith(".dir"):
                    continue
                content = self.read(dep["path"])
                if content is None or hashlib.md5(content, usedforsecurity=False).hexdigest() != dep["md5"]:
                    found.add(dep["path"])
            for file, recorded in stage.get("params", {}).items():
                content = self.read(file)
                now = flat(yaml.safe_load(content) if content else {})
                found |= {f"{file}: {key}" for key, value in flat(recorded).items() if now.get(key) != value}
        return sorted(found)


def flat(values: Any, key: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted keys."""
    if not isinstance(values, Mapping):
        return {key: values}
    return {
        inner: leaf
        for name, value in values.items()
        for inner, leaf in flat(value, f"{key}.{name}".lstrip(".")).items()
    }


def resolve(root: Path, base: str | None, head: str | None, main: str) -> tuple[Revision, Revision]:
    """Return base (by default where head left the branch `main`) and head (by default the working tree).

    Raises:
        UserError: there is no such revision, or no way to tell where the branches part.
    """
    git(root, "rev-parse", "--git-dir", problem=f"{root.absolute()} is not in a Git repository")
    git(root, "rev-parse", "--verify", "HEAD^{commit}", problem="this repository has no commit yet; commit first")
    ends = (
        Revision(root, commit(root, head), head and f"{head} ({commit(root, head)[:7]})")
        if head
        else Revision(root, None)
    )
    if base:
        return Revision(root, commit(root, base), f"{base} ({commit(root, base)[:7]})"), ends
    branch = next((name for name in (main, f"origin/{main}") if _exists(root, name)), None)
    if branch is None:
        raise UserError(f"there is no branch {main}, nor origin/{main}: name the revision to compare with (--base REV)")
    shallow = git(root, "rev-parse", "--is-shallow-repository") == "true"
    parting = git(
        root,
        "merge-base",
        branch,
        ends.commit or "HEAD",
        problem=f"{branch} and {ends.name} have no commit in common"
        + (
            ": this clone is shallow; run `git fetch --unshallow` or name one that it has (--base REV)"
            if shallow
            else ""
        ),
    )
    return Revision(root, parting, f"{branch} ({parting[:7]})"), ends


def commit(root: Path, revision: str) -> str:
    """Return the hash of a revision."""
    return git(
        root,
        "rev-parse",
        "--verify",
        "--end-of-options",
        f"{revision}^{{commit}}",
        problem=f"there is no revision {revision} here; `git log --all` lists them, `git fetch` gets new ones",
    )


@contextmanager
def rebuilt(revisions: Iterable[Revision], needed: Iterable[str]) -> Iterator[list[Revision]]:
    """Yield the revisions, and for each commit that lacks an artifact it needs, the result of its pipeline run again.

    It runs in a worktree of its own, which shares the cache and is removed in the end.

    Raises:
        UserError: a stage failed; DVC has told why.
    """
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as worktrees:
        yield [
            _run_again(revision, Path(scratch) / revision.commit, worktrees)
            if revision.commit and any(revision.lacks(path) for path in needed)
            else revision
            for revision in revisions
        ]


def _run_again(revision: Revision, tree: Path, worktrees: ExitStack) -> Revision:
    dvc = [sys.executable, "-m", "dvc"]
    programs = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    cache = subprocess.run([*dvc, "cache", "dir"], cwd=revision.root, capture_output=True, text=True, check=True)
    git(revision.root, "worktree", "add", "--detach", str(tree), revision.commit or "HEAD")
    worktrees.callback(git, revision.root, "worktree", "remove", "--force", str(tree))
    subprocess.run([*dvc, "cache", "dir", "--local", cache.stdout.strip()], cwd=tree, check=True)
    if subprocess.run([*dvc, "repro"], cwd=tree, env=programs, stdout=sys.stderr, check=False).returncode:
        raise UserError(f"`dvc repro` failed at {revision.name}")
    return Revision(tree, None, revision.name)


def git(root: Path, *arguments: str, problem: str | None = None) -> str:
    """Return what Git says.

    Raises:
        UserError: Git fails; the message is `problem`, if given, and Git's own.
    """
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(problem or f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def _exists(root: Path, revision: str) -> bool:
    arguments = ["git", "rev-parse", "--quiet", "--verify", f"{revision}^{{commit}}"]
    return subprocess.run(arguments, cwd=root, capture_output=True, check=False).returncode == 0
