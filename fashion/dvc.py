"""What DVC and Git recorded: dvc.lock, the hashes in it, and the files of commits."""

import hashlib
import json
import re
import subprocess
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from fashion.errors import UserError, one_line
from fashion.files import list_folder
from fashion.yaml_limits import CONVERSION_ERRORS, check_limits

MAX_COMMITTED = 64 * 2**20  # bytes of a file in Git
MD5_PATTERN = re.compile(r"[0-9a-f]{32}(\.dir)?")  # of a file or a folder, in dvc.lock


class _Loader(yaml.CSafeLoader):
    """PyYAML's fast loader, with 1e-05 a number, and yes, no, on and off text, as in YAML 1.2, which DVC writes."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
for _letter in "yYnNoO":
    _Loader.yaml_implicit_resolvers[_letter] = [
        (tag, pattern) for tag, pattern in _Loader.yaml_implicit_resolvers[_letter] if tag != "tag:yaml.org,2002:bool"
    ]


class Lock:
    """The content of a dvc.lock.

    Args:
        stages: entries by stage name, as in the file.
    """

    def __init__(self, stages: Mapping[str, Any]) -> None:
        self.stages = stages

    @classmethod
    def read(cls, folder: Path) -> "Lock":
        """Read the dvc.lock in a folder.

        Raises:
            UserError: it is missing, or as for `parse`.
        """
        try:
            content = (path := folder / "dvc.lock").read_bytes()
        except FileNotFoundError as error:
            raise UserError(f"{path} is missing; run this in the project's folder, after `make`") from error
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: bytes, name: str) -> "Lock":
        """Parse a dvc.lock; `name` is its name in error messages.

        Raises:
            UserError: it is not what DVC writes, or exceeds a limit of `fashion.yaml_limits`.
        """
        try:
            check_limits(content, name)
            lock = cls(dict(yaml.load(content, _Loader)["stages"]))  # noqa: S506 - a safe loader
            for stage in lock.stages:
                if not isinstance(stage, str):
                    raise ValueError(f"expected the name of a stage, found {stage!r}")
                lock.params(stage)
                for path, digest in (lock.inputs(stage) | lock._files(stage, "outs")).items():
                    if not (isinstance(path, str) and isinstance(digest, str | None)):
                        raise ValueError(f"stage {stage}: expected a path and an MD5, found {path!r} and {digest!r}")
            for path, (digest, count) in lock.folders.items():
                if not (isinstance(digest, str) and isinstance(count, int)):
                    raise ValueError(f"{path}: expected an MD5 and a number of files, found {digest!r} and {count!r}")
        except (yaml.YAMLError, *CONVERSION_ERRORS) as error:
            raise UserError(
                f"{name} cannot be read ({one_line(error)}); if a merge left conflicts in it, run "
                "`git checkout --ours` on it and `dvc repro`; if DVC was killed, run `make`"
            ) from error
        return lock

    @cached_property
    def outputs(self) -> dict[str, str | None]:
        """The MD5 of each output, by path."""
        return {path: md5 for stage in self.stages for path, md5 in self._files(stage, "outs").items()}

    @cached_property
    def folders(self) -> dict[str, tuple[str, int]]:
        """The MD5 and the number of files of each folder that a stage reads but no stage writes, by path."""
        inputs = [entry for stage in self.stages.values() for entry in stage.get("deps", ())]
        return {
            entry["path"]: (entry["md5"], entry["nfiles"])
            for entry in inputs
            if "md5" in entry and "nfiles" in entry and entry["path"] not in self.outputs
        }

    def maker(self, path: str) -> str:
        """Return the name of the stage that makes an output.

        Raises:
            UserError: no stage does.
        """
        stage = next((stage for stage in self.stages if path in self._files(stage, "outs")), None)
        if stage is None:
            raise UserError(f"{path} is not in dvc.lock; run `dvc repro`")
        return stage

    def upstream(self, path: str) -> list[str]:
        """Return the stages that a file depends on: the one that makes it, those that make its inputs, and so on.

        Args:
            path: an output, or a file or folder inside or around one.
        """
        stages: list[str] = []
        paths = [path]
        while paths:
            folder = f"{paths.pop()}/"
            for stage in self.stages:
                outputs = [f"{output}/" for output in self._files(stage, "outs")]
                if stage not in stages and any(folder.startswith(o) or o.startswith(folder) for o in outputs):
                    stages.append(stage)
                    paths += self.inputs(stage)
        return stages

    def inputs(self, stage: str) -> dict[str, str | None]:
        """Return the MD5 of each dependency of a stage, by path; None for one outside the project without an MD5."""
        return self._files(stage, "deps")

    def params(self, stage: str) -> dict[str, dict[str, Any]]:
        """Return the params of a stage by file, such as {"params.yaml": {"training.epochs": 15}}."""
        return {file: dict(values) for file, values in self.stages[stage].get("params", {}).items()}

    def check_made_from(self, path: str, source: str) -> None:
        """Check that an output was made from what `source`, another output, is now.

        Raises:
            UserError: `source` has changed since, or is no input of the stage that makes `path`.
        """
        made_from = self.inputs(self.maker(path)).get(source)
        if made_from is None or made_from != self.outputs.get(source):
            raise UserError(f"{path} was made from another version of {source}; run `dvc repro`")

    def _files(self, stage: str, kind: str) -> dict[str, str | None]:
        return {entry["path"]: entry.get("md5") for entry in self.stages[stage].get(kind, ())}


def read_output(root: Path, lock: Lock, path: str) -> bytes:
    """Return the content of an output; `path` is relative to the project's folder.

    Raises:
        UserError: no stage makes it, it is missing, or its content is not what dvc.lock records.
    """
    stage = lock.maker(path)
    try:
        content = (root / path).read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run `dvc repro {stage}`") from error
    _compare(md5(content), lock, path, stage)
    return content


def check_folder(root: Path, lock: Lock, path: str) -> None:
    """Check an output folder against dvc.lock.

    Raises:
        UserError: as for `read_output`.
    """
    stage = lock.maker(path)
    files = list_folder(root / path)
    if not files:
        raise UserError(f"{path} is missing; run `dvc repro {stage}`")
    _compare(folder_md5(files), lock, path, stage)


def _compare(found: str, lock: Lock, path: str, stage: str) -> None:
    expected = lock.outputs[path]
    if found != expected:
        raise UserError(
            f"{path} was altered: its MD5 is {found}, dvc.lock has {expected}; delete it and run `dvc repro {stage}`"
        )


def folder_md5(files: Mapping[str, str]) -> str:
    """Return the MD5 that DVC records for a folder with these files."""
    listing = [{"md5": digest, "relpath": path} for path, digest in sorted(files.items())]
    return md5(json.dumps(listing).encode()) + ".dir"


def md5(content: bytes) -> str:
    """Return the MD5 of a file's content, as DVC records it."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def git(root: Path, *arguments: str, problem: str | None = None) -> str:
    """Run Git and return its output without surrounding white space.

    Args:
        root: folder to run it in.
        arguments: of the command, such as "rev-parse", "HEAD".
        problem: message of the error if Git fails; Git's own by default.

    Raises:
        UserError: Git is missing or fails.
    """
    done = _run_git(root, *arguments)
    if done.returncode:
        raise UserError(problem or done.stderr.decode(errors="replace").strip())
    return done.stdout.decode(errors="replace").strip()


def read_committed(root: Path, commit: str, path: str) -> bytes | None:
    """Return the content of a file in a commit, None if it has none; `path` is relative to `root`.

    Raises:
        UserError: the file is longer than `MAX_COMMITTED`, or Git is missing.
    """
    name = f"{commit}:./{path}"
    size = _run_git(root, "cat-file", "-s", name)
    if size.returncode:
        return None
    if (length := int(size.stdout)) > MAX_COMMITTED:
        raise UserError(f"{path} of {commit}: {length:,} bytes; the limit for files in Git is {MAX_COMMITTED:,}")
    return _run_git(root, "show", name).stdout


def _run_git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise UserError("git is not installed; install it and try again") from error
