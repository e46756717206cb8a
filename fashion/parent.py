"""A command that DVC runs stops if DVC is killed: DVC would otherwise start it again while it still runs."""

import os

import psutil

from fashion.errors import UserError


class Parent:
    """The process that runs this one: DVC, or None if it was not started by DVC."""

    def __init__(self) -> None:
        # DVC runs a command in a shell, which may stay between the two.
        above = psutil.Process().parents() if "DVC_STAGE" in os.environ else []
        self.process = next((process for process in above if "-c" not in process.cmdline()), None)

    def check(self) -> None:
        """Raise a `UserError` if the process has ended."""
        if self.process and not (self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE):
            raise UserError("DVC has ended, so this stage stops; run `dvc repro` again")
