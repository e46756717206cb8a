"""Locks between processes."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fashion.errors import UserError


@contextmanager
def locked(path: Path, problem: str) -> Iterator[None]:
    """Hold a lock on the file `path`, created if missing.

    Raises:
        UserError: another process holds it; `problem` is the message.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(problem) from None
        yield
