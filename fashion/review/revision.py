"""The files of a revision, read from Git and the DVC cache without checking it out."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from fashion.dvc import MD5_PATTERN, Lock, git, read_committed
from fashion.errors import UserError
from fashion.files import list_folder


@dataclass(frozen=True)
class Revision:
    """A commit, or the working tree.

    Attributes:
        root: folder of the project.
        commit: hash; None for the working tree.
        name: shown to people.
        rebuilt: whether `root` is a worktree of the commit in which the pipeline was run again.
    """

    root: Path
    commit: str | None
    name: str
    rebuilt: bool = False

    def read(self, path: str) -> bytes | None:
        """Return the content of a file or an output; None if there is none or the cache lacks it."""
        content = self.file(path)
        return self._cached(self.recorded(path)) if content is None else content

    def listing(self, path: str) -> dict[str, str] | None:
        """Return the MD5 of each file in an output folder; None if it is not a folder or not in the cache."""
        if self._on_disk and (files := list_folder(self.root / path)):
            return files
        digest = self.recorded(path)
        return self.cached_listing(digest) if digest else None

    def cached_listing(self, digest: str) -> dict[str, str] | None:
        """Return the MD5 of each file in the folder with this MD5; None if it is a file's, or the cache lacks it.

        Raises:
            UserError: the cached content is not DVC's list of the files of a folder.
        """
        content = self._cached(digest) if digest.endswith(".dir") else None
        try:
            return None if content is None else {str(file["relpath"]): str(file["md5"]) for file in json.loads(content)}
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(f"dvc.lock of {self.name}: {digest} is not the MD5 of a folder; run `dvc repro`") from error

    def file(self, path: str) -> bytes | None:
        """Return the content of a file in the working tree or in Git; None if there is none."""
        if not self._on_disk:
            return read_committed(self.root, str(self.commit), path)
        return (self.root / path).read_bytes() if (self.root / path).is_file() else None

    @property
    def _on_disk(self) -> bool:
        """Whether `root` has the files of this revision."""
        return not self.commit or self.rebuilt

    @cached_property
    def lock(self) -> Lock:
        """The project's dvc.lock.

        Raises:
            UserError: the revision has none, or it cannot be read.
        """
        lock = self._lock("dvc.lock")
        if lock is None:
            raise UserError(f"{self.name} has no dvc.lock, so it has no results; choose another revision")
        return lock

    def _lock(self, path: str) -> Lock | None:
        content = self.file(path)
        return None if content is None else Lock.parse(content, f"{path} of {self.name}")

    def recorded(self, path: str) -> str | None:
        """Return the MD5 of an output, or of a file in one, from the dvc.lock of the project or a folder around it."""
        record = self.record(path)
        if record is None:
            return None
        _, lock, output = record
        if path == output:
            return lock.outputs[output]
        return (self.listing(output) or {}).get(path.removeprefix(f"{output}/"))

    def record(self, path: str) -> tuple[str, Lock, str] | None:
        """Return where an output, or a file in one, is recorded: the folder of the dvc.lock, the lock, the output."""
        folders = [str(folder) for folder in PurePosixPath(path).parents][:-1]
        for place in ("", *folders):
            lock = self._lock(f"{place}/dvc.lock") if place else self.lock
            for output in (path, *folders):
                if lock and output in lock.outputs:
                    return place, lock, output
        return None

    def lacks(self, path: str) -> bool:
        """Return whether an output in dvc.lock is missing here, wholly or in part."""
        digest = self.recorded(path)
        if digest is None or self.file(path) is not None:
            return False
        files = self.listing(path) if digest.endswith(".dir") else {"": digest}
        return files is None or not all(
            (self._on_disk and (self.root / path / name).is_file()) or self._cache_file(md5).is_file()
            for name, md5 in files.items()
        )

    def _cached(self, digest: str | None) -> bytes | None:
        """Return the cached content with this MD5, None if there is none."""
        return self._cache_file(digest).read_bytes() if digest and self._cache_file(digest).is_file() else None

    def _cache_file(self, digest: str) -> Path:
        """Return where DVC's cache has the content with this MD5, if it does.

        Raises:
            UserError: dvc.lock has something else as an MD5, such as a path.
        """
        if not MD5_PATTERN.fullmatch(str(digest)):
            raise UserError(f"dvc.lock of {self.name}: {digest!r:.50} is not an MD5; run `dvc repro`")
        return self._cache / digest[:2] / digest[2:]

    @cached_property
    def _cache(self) -> Path:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        try:
            with Repo(str(self.root)) as repo:
                return Path(repo.cache.local.path)
        except DvcException as error:
            raise UserError(f"{self.root.absolute()} is not a DVC project: {error}") from error


def working_tree(root: Path) -> Revision:
    """Return the project as it is on disk."""
    return Revision(root, None, "the working tree")


def commit(root: Path, name: str) -> Revision:
    """Return the commit that a branch, a tag or a hash names.

    Raises:
        UserError: there is none.
    """
    problem = f"unknown revision {name}; list revisions with `git log --all`, or run `git fetch`"
    found = git(root, "rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}", problem=problem)
    return Revision(root, found, found[:7] if found.startswith(name) else f"{name} ({found[:7]})")


def merge_base(head: Revision, branch: str) -> Revision:
    """Return the commit where head left a branch, here or on the remote `origin`.

    Raises:
        UserError: head has no commit yet, there is no such branch, or the two have no commit in common.
    """
    root = head.root
    git(root, "rev-parse", "--verify", "HEAD^{commit}", problem="this repository has no commit yet; commit first")
    for name in (branch, f"origin/{branch}"):
        if git(root, "rev-parse", "--revs-only", f"{name}^{{commit}}"):
            break
    else:
        raise UserError(f"there is no branch {branch} or origin/{branch}; set the base (--base REV)")
    shallow = git(root, "rev-parse", "--is-shallow-repository") == "true"
    found = git(
        root,
        "merge-base",
        name,
        head.commit or "HEAD",
        problem=f"{name} and {head.name} have no commit in common"
        + (": this clone is shallow; run `git fetch --unshallow` or name a base (--base REV)" if shallow else ""),
    )
    return Revision(root, found, f"{name} ({found[:7]})")


def stale(root: Path) -> list[str]:
    """Return what has changed in the working tree since dvc.lock was written: paths, params, commands.

    Outputs that are merely missing do not count.

    Raises:
        UserError: there is no dvc.lock, or DVC fails.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    lock = Lock.read(root)
    try:
        with Repo(str(root)) as repo:
            status = repo.status(targets=["dvc.yaml"])
    except DvcException as error:
        raise UserError(f"`dvc status` failed: {error}") from error
    found = set()
    for name, problems in status.items():
        stage = name.rpartition(":")[2]
        if stage not in lock.stages:
            found.add(f"stage {stage}")
            continue
        for problem in problems:
            if isinstance(problem, str):
                if problem != "always changed":  # with always_changed in dvc.yaml, or without deps
                    found.add(f"{stage}: {problem.removeprefix('changed ')}")
                continue
            for path, state in {**problem.get("changed deps", {}), **problem.get("changed outs", {})}.items():
                if isinstance(state, dict):  # params
                    found |= {f"{path}: {key}" for key in state}
                elif state == "modified" or not lock.upstream(path):
                    found.add(path)
    return sorted(found)


def stale_message(changed: Sequence[str]) -> str:
    """Return a sentence about what `stale` found."""
    return (
        f"dvc.lock is out of date: {', '.join(changed)} changed since it was written; run `dvc repro` and commit what "
        "it changes"
    )


@contextmanager
def rebuilt(revision: Revision) -> Iterator[Revision]:
    """Run the pipeline of a commit again in a temporary worktree, which shares the cache, and yield its revision.

    What a remote has is fetched first.

    Raises:
        UserError: a stage failed; DVC has printed why.
    """

    def run(*command: str) -> int:
        # The own programs last: stages use the Python that `dvc repro` would.
        path = f"{os.environ['PATH']}{os.pathsep}{Path(sys.executable).parent}"
        return subprocess.run(
            command, cwd=root, env={**os.environ, "PATH": path}, stdout=sys.stderr, check=False
        ).returncode

    dvc = [sys.executable, "-m", "dvc"]
    folder = revision.root / ".dvc" / "tmp"  # /tmp may lack the space
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as cleanup:
        cleanup.callback(git, revision.root, "worktree", "prune")
        tree = Path(cleanup.enter_context(tempfile.TemporaryDirectory(dir=folder))) / "tree"
        root = tree / git(revision.root, "rev-parse", "--show-prefix")
        no_hooks = ["-c", f"core.hooksPath={os.devnull}"]
        git(revision.root, *no_hooks, "worktree", "add", "--detach", str(tree), str(revision.commit))
        run(*dvc, "cache", "dir", "--local", str(revision._cache.parents[1]))
        run(*dvc, "pull", "--run-cache", "--allow-missing")  # fails without a remote; `dvc repro` makes what it lacks
        run(*dvc, "checkout", "--allow-missing")  # a folder of images, which no stage makes
        if run(*dvc, "repro"):
            raise UserError(f"`dvc repro` failed at {revision.name}")
        yield Revision(root, revision.commit, revision.name, rebuilt=True)
