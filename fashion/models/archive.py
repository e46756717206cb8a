"""Keras archives that are the same bytes for the same model, so that DVC sees an identical retraining as no change.

What Keras itself writes differs from one time to the next: it holds the date, the time stamps of the zip format, and
the addresses that the parts of the model had in memory.
"""

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import keras

from fashion.errors import UserError
from fashion.files import atomic_write


def save(model: keras.Model, path: Path) -> None:
    """Write `model` as a .keras archive."""
    with tempfile.TemporaryDirectory() as scratch:
        unstable = Path(scratch) / "model.keras"
        model.save(unstable)
        with zipfile.ZipFile(unstable) as source, atomic_write(path) as file, zipfile.ZipFile(file, "w") as target:
            for name in sorted(source.namelist()):
                content = source.read(name)
                if name.endswith(".json"):
                    content = json.dumps(_stable(json.loads(content), {})).encode()
                target.writestr(zipfile.ZipInfo(name), content)  # of 1 January 1980, the zip format's zero


def load(path: Path) -> keras.Model:
    """Read an archive that `save` wrote.

    Raises:
        UserError: the file is missing or not a Keras archive.
    """
    try:
        return keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a Keras model ({error}); run `dvc repro`") from error


def _stable(value: Any, numbers: dict[int, int]) -> Any:
    """Return parsed JSON without the date of saving, and with objects numbered in order instead of by address."""
    if isinstance(value, list):
        return [_stable(item, numbers) for item in value]
    if not isinstance(value, dict):
        return value
    stable = {key: _stable(item, numbers) for key, item in value.items() if key != "date_saved"}
    if "shared_object_id" in stable:
        stable["shared_object_id"] = numbers.setdefault(stable["shared_object_id"], len(numbers) + 1)
    return stable
