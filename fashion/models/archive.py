"""Keras archives that are the same bytes for the same model, so that DVC sees an identical retraining as no change."""

import json
import tempfile
import zipfile
from pathlib import Path

import keras

from fashion.errors import UserError
from fashion.files import atomic_write


def save(model: keras.Model, path: Path) -> None:
    """Write `model` as a .keras archive that holds neither the date of its making nor zip timestamps."""
    with tempfile.TemporaryDirectory() as scratch:
        dated = Path(scratch) / "model.keras"
        model.save(dated)
        with zipfile.ZipFile(dated) as source, atomic_write(path) as file, zipfile.ZipFile(file, "w") as target:
            for name in sorted(source.namelist()):
                content = source.read(name)
                if name == "metadata.json":
                    metadata = json.loads(content)
                    del metadata["date_saved"]
                    content = json.dumps(metadata).encode()
                target.writestr(zipfile.ZipInfo(name), content)


def load(path: Path) -> keras.Model:
    """Read an archive that `save` wrote.

    Raises:
        UserError: the file is missing or not a Keras archive.
    """
    try:
        return keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a Keras model ({error}); run `dvc repro`") from error
