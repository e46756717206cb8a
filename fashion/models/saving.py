"""Model files (.keras) that are byte-identical for the same model, so that DVC detects no change after retraining it.

Keras' own files contain the date, the time stamps of the zip format and memory addresses.
"""

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import keras

from fashion.errors import UserError
from fashion.files import write_bytes, zip_archive


def save(model: keras.Model, path: Path) -> None:
    """Write `model` as a .keras file."""
    with tempfile.TemporaryDirectory() as scratch:
        unstable = Path(scratch) / "model.keras"
        model.save(unstable)
        with zipfile.ZipFile(unstable) as source:
            contents = {name: source.read(name) for name in sorted(source.namelist())}
    for name, content in contents.items():
        if name.endswith(".json"):
            contents[name] = json.dumps(_stable(json.loads(content), {})).encode()
    write_bytes(path, zip_archive(contents))


def load(path: Path) -> keras.Model:
    """Read a .keras file.

    Raises:
        UserError: the file is missing or not a Keras model.
    """
    try:
        return keras.saving.load_model(path)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a Keras model ({error}); run `dvc repro`") from error


def _stable(value: Any, numbers: dict[int, int]) -> Any:
    """Return parsed JSON without the date, and with objects numbered in order instead of by memory address."""
    if isinstance(value, list):
        return [_stable(item, numbers) for item in value]
    if not isinstance(value, dict):
        return value
    stable = {key: _stable(item, numbers) for key, item in value.items() if key != "date_saved"}
    if "shared_object_id" in stable:
        stable["shared_object_id"] = numbers.setdefault(stable["shared_object_id"], len(numbers) + 1)
    return stable
