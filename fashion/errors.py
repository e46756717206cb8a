"""What a user can put right, and how a command ends when it meets it."""

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn


class UserError(Exception):
    """Something the user can put right; the message tells what was found, what was expected and what to do."""


def run_command(main: Callable[[], None]) -> NoReturn:
    """Run a command and exit: 0 when done, 1 after a `UserError` or `OSError`, 128 + its number after a signal.

    SIGTERM unwinds the stack just as Ctrl-C does, so that temporary files are removed in both cases.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
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
