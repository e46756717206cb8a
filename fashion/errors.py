"""Errors that the user can fix, and the exit codes of commands."""

import io
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

STAGE_TIMES = "FASHION_STAGE_TIMES"  # environment variable: path of the file to append stage durations to


class UserError(Exception):
    """An error that the user can fix. The message states what was found, what was expected and what to do."""


def run_command(main: Callable[[], None]) -> NoReturn:
    """Run `main` and exit with 0 on success, 1 after a `UserError` or `OSError`, 128 + N after signal N.

    SIGTERM unwinds the stack as Ctrl-C does, so both remove temporary files. Characters outside the terminal's encoding
    are printed as escape sequences, as are control characters in errors.
    """
    signal.signal(signal.SIGTERM, _raise_interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        started = time.monotonic()
        _check_checkout()
        main()
        if sys.stdout:  # None if the shell closed it
            sys.stdout.flush()
        _record_time(time.monotonic() - started)
    except UserError as error:
        print_error(str(error))
        sys.exit(1)
    except BrokenPipeError:  # the process that reads the output, such as `head`, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        print_error(f"{error.filename or 'I/O'}: {error.strerror or error}")
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        signum = interrupt.args[0] if interrupt.args else signal.SIGINT
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signum)
    sys.exit(0)


def one_line(error: object) -> str:
    """Return the message of an error on one line."""
    return " ".join(str(error).split())


def print_error(message: str) -> None:
    """Print an error message to standard error, with control characters escaped."""
    print(f"error: {escaped(message)}", file=sys.stderr)


def escaped(text: str) -> str:
    """Return `text` with control characters other than newlines as escape sequences; a terminal would obey them."""
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], text)


def _raise_interrupt(signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signum)


def _check_checkout() -> None:
    """Raise a `UserError` if the current folder is another checkout of this project."""
    local = Path("fashion", "errors.py")
    if local.is_file() and not local.samefile(__file__):
        raise UserError(
            f"this command runs the code in {Path(__file__).parents[1]}, but the current folder is another checkout; "
            "run `make setup` here and use the .venv of this folder"
        )


def _record_time(seconds: float) -> None:
    """Append the duration of a DVC stage to the file that `STAGE_TIMES` names, if it is set."""
    stage, path = os.environ.get("DVC_STAGE"), os.environ.get(STAGE_TIMES)
    if stage and path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{stage}\t{seconds:.1f}\n")
