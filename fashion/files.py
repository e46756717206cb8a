"""Reading files, and writing them atomically: they are complete or absent."""

import glob
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

from fashion.errors import UserError

IGNORED = (".DS_Store", "Thumbs.db", "desktop.ini")  # by DVC: as in .dvcignore
# What numpy raises for a damaged .npy file.
NPY_ERRORS = (ValueError, TypeError, SyntaxError, EOFError, OverflowError, MemoryError, RecursionError, TokenError)


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file next to `path`; rename it to `path` if the block succeeds, remove it otherwise.

    Temporary files of processes that were killed while they wrote to `path` are deleted.

    Raises:
        UserError: the file cannot be written (no space left, no permission, ...); an existing file is unchanged.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            if (pid := left.name.split(".")[-2]).isdecimal() and not _is_running(int(pid)):
                left.unlink(missing_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only checks
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's process, or no process ID
        return True
    return True


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, atomically."""
    with atomic_write(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def zip_archive(contents: Mapping[str, bytes]) -> bytes:
    """Return an uncompressed zip archive, byte-identical for the same contents.

    `numpy.savez` would not do: what it writes into the zip headers differs between releases of Python.
    """
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # dated 1 January 1980, the zip format's zero
    return file.getvalue()


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error


def list_folder(folder: Path) -> dict[str, str]:
    """Return the MD5 of each file in a folder, by path relative to it, except those that DVC ignores."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in IGNORED):
        with path.open("rb") as file:
            files[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "md5").hexdigest()
    return files
