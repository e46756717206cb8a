"""Rows of the drill's table: what each row tries, how often, and the result."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TypeVar

T = TypeVar("T")


class AttemptError(Exception):
    """An attempt failed. The message states what was found and what was expected."""


@dataclass
class Result:
    """The result of a row.

    Attributes:
        tried: number of attempts.
        faults: a message for each failed attempt.
        seconds: the recovery times of the other attempts; empty if there is nothing to recover.
    """

    tried: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


Run = Callable[[Path, int, bool], Result]
"""Makes a number of attempts in an empty folder; raises `AttemptError` if they cannot go on. If the last argument is
true, it also plants a fault of the kind that the row looks for, so `faults` must not be empty."""


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: what happens, as the table states it.
        tries: number of attempts in a whole drill.
        run: makes the attempts.
        skip: why they cannot be made on this machine; empty if they can.
    """

    name: str
    tries: int
    run: Run
    skip: str = ""


def once(function: Callable[..., T]) -> Callable[..., T]:
    """Return a function that computes each result once, even if threads call it at the same time."""
    cached, lock = cache(function), Lock()

    def call(*arguments: object) -> T:
        with lock:
            return cached(*arguments)

    return call


Attempt = Callable[[Path, random.Random, bool], float]
"""Makes one attempt in an empty folder with its number as the name, with random choices from the generator; the last
argument is as for `Run`. Returns the seconds to recover; raises `AttemptError`."""


def repeated(attempt: Attempt, parallel: int = 1) -> Run:
    """Return a `Run` that makes independent attempts, `parallel` at a time, each with its number as the seed."""

    def run(folder: Path, tries: int, planted: bool) -> Result:
        def one(number: int) -> float | str:
            own = folder / str(number)
            own.mkdir()
            try:
                return attempt(own, random.Random(number), planted)  # noqa: S311 - repeatable
            except AttemptError as error:
                return f"attempt {number}: {error}"

        with ThreadPoolExecutor(parallel) as pool:
            outcomes = list(pool.map(one, range(tries)))
        return Result(
            tries,
            [outcome for outcome in outcomes if isinstance(outcome, str)],
            [outcome for outcome in outcomes if isinstance(outcome, float)],
        )

    return run
