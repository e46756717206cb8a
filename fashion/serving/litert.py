"""Running an exported model, and the names of the classes in its file.

They are a zip archive at its end that holds labels.txt, a name a line: so LiteRT's metadata format has it.
"""

import io
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from jaxtyping import Float32, UInt8

from fashion.errors import UserError

BATCH = 500  # images
LABELS = "labels.txt"


def with_labels(content: bytes, classes: Sequence[str]) -> bytes:
    """Return a LiteRT file with the names of its classes, in the order of its outputs."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(zipfile.ZipInfo(LABELS), "\n".join(classes))
    return file.getvalue()


class Network:
    """An exported network, ready to answer. Not for several threads at once.

    Attributes:
        classes: their names, in the order of the outputs.
        image_shape: height and width of the images that it takes, in pixels.
    """

    def __init__(self, content: bytes, name: str) -> None:
        """Read a LiteRT file.

        Args:
            content: the whole of the file.
            name: of the file, for messages.

        Raises:
            UserError: it is not a model that the export stage wrote.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                self.classes = archive.read(LABELS).decode().split("\n")
            with _quiet():
                interpreter = Interpreter(model_content=content, num_threads=os.cpu_count())
                interpreter.allocate_tensors()
                self._run = interpreter.get_signature_runner()
        except (zipfile.BadZipFile, KeyError, ValueError) as error:
            raise UserError(f"{name}: not a model of the export stage ({error}); run `dvc repro`") from error
        ((self._input, details),) = self._run.get_input_details().items()
        self.image_shape: tuple[int, int] = tuple(details["shape"][1:].tolist())

    def __call__(
        self, images: UInt8[np.ndarray, "n height width"]
    ) -> tuple[Float32[np.ndarray, "n classes"], Float32[np.ndarray, "n features"]]:
        """Return the probabilities and the features that they follow from, of at least one image."""
        answers = [self._run(**{self._input: images[i : i + BATCH]}) for i in range(0, len(images), BATCH)]
        probabilities, features = (
            np.concatenate([answer[name] for answer in answers]) for name in ("probabilities", "features")
        )
        return probabilities, features


@contextmanager
def _quiet() -> Iterator[None]:
    """Close standard error to what libraries of C++ report of themselves; their errors come as exceptions."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
