"""Stores of checkpoints."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from fashion.files import write_bytes
from fashion.locks import locked

FOLDER = Path(".dvc", "tmp", "checkpoints")


@runtime_checkable
class Store(Protocol):
    """Keeps the last checkpoint of a training run."""

    def read(self) -> bytes | None:
        """Return the checkpoint, None if there is none."""

    def write(self, content: bytes) -> None:
        """Replace the checkpoint."""


@dataclass(frozen=True)
class FileStore:
    """Keeps a checkpoint in a file."""

    path: Path

    def read(self) -> bytes | None:
        """Return the checkpoint, None if there is none."""
        return self.path.read_bytes() if self.path.exists() else None

    def write(self, content: bytes) -> None:
        """Replace the checkpoint, atomically."""
        write_bytes(self.path, content)


@contextmanager
def file_store(output: Path, key: str) -> Iterator[FileStore]:
    """Yield the store of a training run; if the block succeeds, delete its checkpoint.

    Args:
        output: the model to write.
        key: see `fashion.models.networks.training_key`; checkpoints of `output` with another key are deleted.

    Raises:
        UserError: another process trains the same model.
    """
    name = str(output).replace("/", "-")
    with locked(FOLDER / f"{name}.lock", f"another process is training {output}; wait for it to end"):
        path = FOLDER / f"{name}.{key}.npz"
        for other in FOLDER.glob(f"{name}.*.npz"):
            if other != path:
                other.unlink()
        yield FileStore(path)
        path.unlink(missing_ok=True)
