"""Stop a stage whose DVC was killed: the next `dvc repro` would otherwise start a second one beside it."""

import os

import psutil

from fashion.errors import UserError


def _dvc() -> psutil.Process | None:
    """Return the process of DVC, None if it did not start this one."""
    if "DVC_STAGE" not in os.environ:
        return None
    # DVC runs a command in a shell, which may remain in between.
    return next((process for process in psutil.Process().parents() if "-c" not in process.cmdline()), None)


DVC = _dvc()  # on import: DVC may be killed during the slow imports that follow


def check() -> None:
    """Raise a `UserError` if DVC started this process and has been killed."""
    try:
        runs = DVC is None or (DVC.is_running() and DVC.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it ended between the two calls
        runs = False
    if not runs:
        raise UserError("DVC is no longer running, so this stage stops; run `dvc repro` again")
