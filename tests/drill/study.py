"""A study of short trials that train nothing. Ray's workers import it, so it must not import pytest or the tests."""

import hashlib
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pandas as pd

from fashion import trials
from fashion.errors import run_command
from fashion.files import write_text
from fashion.stores import Store
from fashion.trials import Trial

sys.modules["tensorflow"] = MagicMock()  # each worker would import it, which takes longer than its trials
TRIALS = [Trial(variant, "none", seed, None, f"{variant}{seed}") for variant in ("a", "b") for seed in range(6)]


def train(trial: Trial, _data: Any, _store: Store) -> dict[str, Any]:
    """Work for a second; return an accuracy and errors that depend on the trial alone."""
    time.sleep(1)
    digest = hashlib.sha256(trial.key.encode()).digest()
    return {"val_accuracy": digest[0] / 255, "errors": " ".join(map(str, digest))}


def main() -> None:
    """Run the trials and write trials.csv as stages/study.py does."""
    write_text(Path("trials.csv"), pd.DataFrame(trials.run(TRIALS, dict, train)).to_csv(index=False))


if __name__ == "__main__":
    from tests.drill import study  # under its own name, by which Ray's nodes import it

    run_command(study.main)
