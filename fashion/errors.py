"""What a user can put right, and how a command ends when it meets it."""

import io
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

STAGE_TIMES = "FASHION_STAGE_TIMES"  # an environment variable: the file for the times of the stages


class UserError(Exception):
    """Something the user can put right; the message tells what was found, what was expected and what to do."""


def run_command(main: Callable[[], None]) -> NoReturn:
    """Run a command and exit: 0 when done, 1 after a `UserError` or `OSError`, 128 + its number after a signal.

    SIGTERM unwinds the stack just as Ctrl-C does, so that temporary files are removed in both cases. A character that
    the terminal's encoding lacks is printed as an escape.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        started = time.monotonic()
        _check_folder()
        main()
        if sys.stdout:  # None if the shell closed it
            sys.stdout.flush()
        _record_time(time.monotonic() - started)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of the output, such as `head`, closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        print(f"error: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        number = interrupt.args[0] if interrupt.args else signal.SIGINT
        print("interrupted", file=sys.stderr)
        sys.exit(128 + number)
    sys.exit(0)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number)


def _check_folder() -> None:
    """Refuse to run one checkout's code in another checkout."""
    own = Path("fashion", "errors.py")
    if own.is_file() and not own.samefile(__file__):
        raise UserError(
            f"this command runs the code in {Path(__file__).parents[1]}, but the current folder is another checkout; "
            "run `make setup` here, then use its own .venv"
        )


def _record_time(seconds: float) -> None:
    """Append the time of this stage to the file that `STAGE_TIMES` names, if it is set and DVC runs this."""
    stage, path = os.environ.get("DVC_STAGE"), os.environ.get(STAGE_TIMES)
    if stage and path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{stage}\t{seconds:.1f}\n")
