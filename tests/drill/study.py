"""A study of short trials that train nothing. Ray's nodes import it, so it imports no test."""

import argparse
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
STEPS = 10
PAUSE = 0.1  # seconds per step


def train(trial: Trial, _data: Any, _store: Store) -> dict[str, Any]:
    """Work in steps for a second; return an accuracy and errors that depend on the trial alone."""
    digest = trial.key.encode()
    for _ in range(STEPS):
        time.sleep(PAUSE)
        digest = hashlib.sha256(digest).digest()
    return {"val_accuracy": digest[0] / 255, "errors": " ".join(map(str, digest))}


def main() -> None:
    """Run the trials and write the table as stages/study.py does."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill.study", description=__doc__)
    parser.add_argument("table", type=Path, help="results to write (.csv)")
    args = parser.parse_args()
    results = trials.run(TRIALS, dict, train)
    write_text(args.table, pd.DataFrame(results).to_csv(index=False))


if __name__ == "__main__":
    from tests.drill import study  # under its own name, by which Ray's nodes import it

    run_command(study.main)
