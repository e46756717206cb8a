"""The pipeline's outputs, read only if they are what dvc.lock says that it wrote."""

import hashlib
from pathlib import Path

import yaml

from fashion.errors import UserError


class Artifacts:
    """The outputs of a project's pipeline.

    Attributes:
        root: folder of the project.
        recorded: of each output, the stage that made it and its MD5.
    """

    def __init__(self, root: Path) -> None:
        """Read which outputs there are.

        Raises:
            UserError: dvc.lock is missing or not YAML.
        """
        self.root = root
        lock = root / "dvc.lock"
        try:
            stages = yaml.load(lock.read_bytes(), yaml.CSafeLoader)["stages"]
            self.recorded: dict[str, tuple[str, str]] = {
                out["path"]: (stage, out["md5"]) for stage, entry in stages.items() for out in entry.get("outs", ())
            }
            self._inputs = {
                stage: {dep["path"]: dep["md5"] for dep in entry.get("deps", ())} for stage, entry in stages.items()
            }
        except FileNotFoundError as error:
            raise UserError(f"{lock} is missing; run this in the folder of the project, after `make`") from error
        except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{lock}: not what `dvc repro` writes ({' '.join(str(error).split())})") from error

    def read(self, path: str) -> bytes:
        """Return the content of an output; `path` is relative to the project.

        Raises:
            UserError: the pipeline has not made it, or it was altered since.
        """
        if path not in self.recorded:
            raise UserError(f"dvc.lock knows no {path}; `dvc repro` makes the outputs of the pipeline")
        stage, expected = self.recorded[path]
        try:
            content = (self.root / path).read_bytes()
        except FileNotFoundError as error:
            raise UserError(f"{path} is missing; `dvc repro {stage}` makes it") from error
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != expected:
            raise UserError(
                f"{path} was altered: its MD5 is {found}, dvc.lock says {expected}; "
                f"delete it and run `dvc repro {stage}`"
            )
        return content

    def read_made_from(self, source: str, path: str) -> bytes:
        """Return the content of an output as `read` does, if `source`, another output, is still what it was made from.

        Raises:
            UserError: as for `read`, or `source` was made anew since.
        """
        content, (stage, _) = self.read(path), self.recorded[path]
        if source not in self.recorded or self._inputs[stage].get(source) != self.recorded[source][1]:
            raise UserError(f"{path} was made from another {source}; run `dvc repro`")
        return content
