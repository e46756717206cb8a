"""The readers survive the inputs that ever failed and a hundred mutated ones; the drill reports planted faults."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.drill import fuzz

pytest.importorskip("atheris", reason="has no wheel for this platform")


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_mutated_inputs(reader: str, tmp_path: Path) -> None:
    result = fuzz.fuzz(tmp_path, 100, "", reader)
    assert result.faults == []
    assert result.tried >= 100


@pytest.mark.parametrize(
    ("planted", "message"),
    [
        ("error", "ValueError: invalid literal for int"),
        ("processor", "TimeoutError: .* seconds of processor time, expected at most 1"),
        ("hang", "timeout after"),
        ("memory", "MemoryError: .* bytes, expected at most 67,108,864"),
    ],
)
def test_planted_fault(planted: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "MAX_FAULTS", 1)
    (fault,) = fuzz.fuzz(tmp_path, 1, planted, "idx", memory=2**26).faults
    assert re.search(message, fault)


def test_peak_memory_is_not_the_parents() -> None:
    block = b"1" * 2**28
    command = [sys.executable, "-c", "from tests.drill import fuzz; print(fuzz.peak_memory())"]
    peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 2**20 < peak < len(block)
