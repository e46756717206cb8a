"""Running exported models with LiteRT, without TensorFlow.

The class names and the preprocessing of image files are in the file: a zip archive at its end holds labels.txt with a
name per line, as in LiteRT's metadata format, and preprocessing.txt with the method.
"""

import io
import os
import zipfile
from collections.abc import Sequence

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from jaxtyping import Float32

from fashion.data.dataset import Images, prediction_batch
from fashion.errors import UserError
from fashion.silence import silence_stderr

LABELS = "labels.txt"
PREPROCESSING = "preprocessing.txt"


def with_metadata(content: bytes, classes: Sequence[str], preprocessing: str) -> bytes:
    """Return a LiteRT file with metadata added.

    Args:
        content: the whole of the file.
        classes: the class names, in the order of the outputs.
        preprocessing: the method that makes a model input from an image file.
    """
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(zipfile.ZipInfo(LABELS), "\n".join(classes))
        archive.writestr(zipfile.ZipInfo(PREPROCESSING), preprocessing)
    return file.getvalue()


class LiteRTModel:
    """An exported model, ready to predict. Not thread-safe.

    Attributes:
        classes: the class names, in the order of the outputs.
        preprocessing: the method that makes a model input from an image file.
        image_shape: height, width and number of channels of the input images.
    """

    def __init__(self, content: bytes, name: str) -> None:
        """Read a LiteRT file.

        Args:
            content: the whole of the file.
            name: of the file, for error messages.

        Raises:
            UserError: it is not a model that the export stage wrote.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                self.classes = archive.read(LABELS).decode().split("\n")
                self.preprocessing = archive.read(PREPROCESSING).decode()
            with silence_stderr():
                interpreter = Interpreter(model_content=content, num_threads=os.cpu_count())
                interpreter.allocate_tensors()
                self._run = interpreter.get_signature_runner()
        except (zipfile.BadZipFile, KeyError, ValueError) as error:
            raise UserError(f"{name}: not a model written by the export stage ({error}); run `dvc repro`") from error
        ((self._input, details),) = self._run.get_input_details().items()
        self.image_shape: tuple[int, int, int] = tuple(details["shape"][1:].tolist())

    def __call__(self, images: Images) -> tuple[Float32[np.ndarray, "n classes"], Float32[np.ndarray, "n features"]]:
        """Return the probabilities and the features of at least one image."""
        size = prediction_batch(self.image_shape)
        batches = [self._run(**{self._input: images[i : i + size]}) for i in range(0, len(images), size)]
        probabilities, features = (
            np.concatenate([batch[name] for batch in batches]) for name in ("probabilities", "features")
        )
        return probabilities, features
