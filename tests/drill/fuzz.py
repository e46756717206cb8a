"""Coverage-guided fuzzing of nine readers of untrusted files, with atheris.

A reader must return or raise a `UserError`, within `SECONDS` of processor time and `MEMORY` bytes. Each runs in its own
process, so that a crash is reported, too. An input that fails is added to tests/corpus/READER, which is run first.
"""

import argparse
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from fashion.errors import UserError
from tests.drill.row import Result, Row, Run

SECONDS = 1
HANG = 10  # seconds of wall time
MEMORY = 2**30
INPUTS = 10_000
MAX_FAULTS = 5  # each ends a process; then the row ends
CORPUS = Path("tests", "corpus")
FAULT = re.compile(r"(?:Uncaught Python exception: ===\n|ERROR: libFuzzer: )(.{1,200})")
TOKENS = (  # that change the meaning of a file more often than random bytes do
    *b"!!int |!!bool |!!timestamp |&a |*a|<<: |? |- |[|{|''|0x|1:1|.nan|1e999|-1|9999-12-31T23:59:59-23:59".split(b"|"),
    *b'%YAML 1.1\n--- |18446744073709551616|"|,|\n|\0|../|\n--\n|-> |IDAT|zTXt|iCCP|Exif\0\0|\xef\xbb\xbf'.split(b"|"),
    *(b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"),
)


def _compute(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def peak_memory() -> int:
    """Return this process's peak resident memory in bytes; `getrusage` would include the parent's."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status["VmHWM"].removesuffix("kB"))


PLANTED: dict[str, Callable[[], object]] = {
    "error": lambda: int("?"),
    "processor": lambda: _compute(2 * SECONDS),
    "hang": lambda: threading.Event().wait(),
    "memory": lambda: b"1" * 2**28,
}
READERS = {
    "idx": "IDX files",
    "folder": "folder of images",
    "image": "image for `fashion predict`",
    "params": "params.yaml",
    "lock": "dvc.lock",
    "predictions": "predictions.csv",
    "trials": "trials.csv",
    "array": "array (.npy)",
    "model": "exported model and its detector",
}


def fuzz(folder: Path, inputs: int, planted: str, reader: str, memory: int = MEMORY) -> Result:
    """Run a reader on mutated inputs, in a new process after each fault.

    Args:
        folder: empty.
        inputs: number of inputs.
        planted: one of `PLANTED`, or empty.
        reader: one of `READERS`.
        memory: bytes that the reader may use.
    """
    if find_spec("atheris") is None:
        raise UserError("atheris is not installed: it runs on Linux with an x86-64 processor only; run the drill there")
    result = Result()
    count = folder / "count"
    while result.tried < inputs and len(result.faults) < MAX_FAULTS:
        command = [sys.executable, "-m", "tests.drill.fuzz", reader, str(folder), str(inputs - result.tried)]
        arguments = [f"--seed={len(result.faults) + 1}", f"--planted={planted}", f"--memory={memory}"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, errors="replace", check=False)
        if not count.exists():
            raise RuntimeError(f"the reader {reader} did not start:\n{done.stderr}")
        result.tried += int(count.read_text())
        count.unlink()
        if done.returncode:
            message = FAULT.search(done.stdout + done.stderr)
            result.faults.append(message[1] if message else f"exit code {done.returncode}")
            result.tried = max(result.tried, len(result.faults))  # failing inputs of the corpus are not in the count
    return result


def main() -> None:
    """Fuzz one reader in this process; libFuzzer ends it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("reader")
    parser.add_argument("folder", type=Path)
    parser.add_argument("inputs", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--planted")
    parser.add_argument("--memory", type=int)
    args = parser.parse_args()
    import atheris

    with atheris.instrument_imports(include=["fashion", "PIL"]):
        from tests.drill import readers

        seeds, read = getattr(readers, f"read_{args.reader}")(args.folder)
    seeds += [path.read_bytes() for path in sorted((CORPUS / args.reader).glob("*"))]
    corpus = args.folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    count = os.open(args.folder / "count", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.pwrite(count, b"0", 0)
    runs = 0
    before = peak_memory()

    def one(content: bytes) -> None:
        nonlocal runs
        runs += 1
        os.pwrite(count, str(max(0, runs - len(seeds) - 1)).encode(), 0)  # libFuzzer starts with an empty input
        started = time.process_time()
        if args.planted and runs > len(seeds) + 1:
            PLANTED[args.planted]()
        with suppress(UserError):
            read(content)
        seconds = time.process_time() - started
        if (growth := peak_memory() - before) > args.memory:
            raise MemoryError(f"{growth:,} bytes, expected at most {args.memory:,}")
        if seconds > SECONDS:
            raise TimeoutError(f"{seconds:.1f} seconds of processor time, expected at most {SECONDS}")

    faults = args.folder if args.planted else CORPUS / args.reader
    faults.mkdir(parents=True, exist_ok=True)
    tokens = args.folder / "tokens"
    tokens.write_text("".join('"' + "".join(map("\\x{:02x}".format, token)) + '"\n' for token in TOKENS))
    limits = [
        "-keep_seed=1",
        f"-dict={tokens}",
        f"-timeout={HANG}",
        f"-rss_limit_mb={4 * MEMORY // 2**20}",
        f"-runs={args.inputs + len(seeds) + 1}",
    ]
    atheris.Setup([sys.argv[0], *limits, f"-seed={args.seed}", f"-artifact_prefix={faults}/", str(corpus)], one)
    atheris.Fuzz()


def row(reader: str) -> Run:
    """Return the `Run` of a reader."""
    return lambda folder, inputs, planted: fuzz(folder, inputs, "error" if planted else "", reader)


ROWS = tuple(Row(f"Fuzzed: {name}", INPUTS, row(reader)) for reader, name in READERS.items())

if __name__ == "__main__":
    main()
