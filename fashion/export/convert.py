"""Conversion of a trained model to LiteRT: raw pixels in, probabilities and features out.

The model is rebuilt in float32 first: LiteRT cannot load models exported from bfloat16.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float32

from fashion.data.dataset import Images, Split, prediction_batch
from fashion.errors import UserError
from fashion.models.optimizers import OUTPUT
from fashion.silence import silence_stderr

Features = Float32[np.ndarray, "n features"]
Logits = Float32[np.ndarray, "n classes"]


def to_float32(model: keras.Model) -> keras.Model:
    """Return the model with the same weights, computing in float32."""
    rebuilt = type(model).from_config(_with_policy(model.get_config(), "float32"))
    rebuilt.set_weights(model.get_weights())
    return rebuilt


class FeatureExtractor:
    """A model that returns the inputs and outputs of its layer `OUTPUT`: features and logits.

    Attributes:
        size: number of features of an image.
    """

    def __init__(self, model: keras.Model) -> None:
        output = model.get_layer(OUTPUT)
        self._model = keras.Model(model.inputs, [output.input, output.output])
        self.size: int = output.input.shape[-1]

    def batches(self, split: Split) -> Iterator[tuple[slice, Features, Logits]]:
        """Yield each batch's slice of the split, its features and its logits."""
        size = prediction_batch(split.image_shape)
        for start in range(0, len(split.images), size):
            batch = slice(start, start + size)
            yield batch, *self._model.predict_on_batch(split.images[batch])

    def __call__(self, split: Split) -> tuple[Features, Logits]:
        """Return the features and the logits of all images."""
        features, logits = zip(*((features, logits) for _, features, logits in self.batches(split)), strict=True)
        return np.concatenate(features), np.concatenate(logits)


def with_temperature(model: keras.Model, temperature: float) -> keras.Model:
    """Return the model with its logits divided by `temperature` before the softmax.

    Its outputs are "probabilities" (n, classes) and "features" (n, features), as in `FeatureExtractor`.
    """
    output = model.get_layer(OUTPUT)
    scaled = keras.layers.Rescaling(1 / temperature, name="temperature", dtype="float32")(output.output)
    probabilities = keras.layers.Softmax(name="probabilities", dtype="float32")(scaled)
    return keras.Model(model.inputs, {"probabilities": probabilities, "features": output.input}, name=model.name)


def to_litert(model: keras.Model, **options: Any) -> bytes:
    """Return `model` as a LiteRT file, in float32 unless the converter's `options` say otherwise.

    Raises:
        UserError: no space is left for temporary files.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        only_builtins = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
        try:
            with silence_stderr():
                model.export(path, format="litert", verbose=False, target_spec=only_builtins, **options)
        except tf.errors.ResourceExhaustedError as error:
            if "No space left" in error.message:
                raise UserError(
                    f"No space left on device for temporary files in {tempfile.gettempdir()}; free some and try again"
                ) from error
            raise
        return path.read_bytes()


def to_litert_int8(model: keras.Model, images: Images) -> bytes:
    """Return `model` as a LiteRT file with int8 weights and activations, with ranges calibrated on `images`.

    Source: B. Jacob et al., Quantization and training of neural networks for efficient integer-arithmetic-only
    inference, CVPR 2018.
    """
    return to_litert(
        model,
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=lambda: ([image[None]] for image in images),
    )


def _with_policy(config: Any, name: str) -> Any:
    """Return a Keras config with every dtype policy replaced by `name`."""
    if isinstance(config, list | tuple):
        return type(config)(_with_policy(item, name) for item in config)
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return {**config, "config": {"name": name}}
    return {key: _with_policy(value, name) for key, value in config.items()}
