"""A command that DVC runs stops if DVC is killed: DVC would otherwise start it again while it still runs."""

import os

import psutil

from fashion.errors import UserError


def _dvc() -> psutil.Process | None:
    """Return the process of DVC, None if it did not start this one."""
    if "DVC_STAGE" not in os.environ:
        return None
    # DVC runs a command in a shell, which may stay between the two.
    return next(process for process in psutil.Process().parents() if "-c" not in process.cmdline())


DVC = _dvc()  # on import, since DVC may be killed while the others are imported


def check() -> None:
    """Raise a `UserError` if DVC started this process and has been killed."""
    try:
        runs = DVC is None or (DVC.is_running() and DVC.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it ended between the two calls
        runs = False
    if not runs:
        raise UserError("DVC has ended, so this stage stops; run `dvc repro` again")
