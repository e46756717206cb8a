"""The layers."""

from typing import Any
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from fashion.models import layers, processor

GENERATOR = np.random.default_rng(1)


@pytest.mark.parametrize("shape", [(60, 5, 6, 3), (60, 3)])
@pytest.mark.parametrize("scale", [False, True])
def test_fused_normalisation(shape: tuple[int, ...], scale: bool) -> None:
    inputs = GENERATOR.normal(2, 3, shape).astype(np.float32)
    fused = layers.FusedBatchNormalization(momentum=0.6, scale=scale)
    reference = keras.layers.BatchNormalization(momentum=0.6, scale=scale)
    fused.build(shape)
    reference.build(shape)
    start = [GENERATOR.uniform(0.5, 2, weight.shape) for weight in reference.weights]
    fused.set_weights(start)
    reference.set_weights(start)
    np.testing.assert_allclose(fused(inputs, training=True), reference(inputs, training=True), atol=1e-3)
    np.testing.assert_allclose(fused.moving_mean, reference.moving_mean, rtol=1e-5)
    np.testing.assert_allclose(fused.moving_variance, reference.moving_variance, rtol=2e-2)  # the unbiased variance
    fused.moving_variance.assign(reference.moving_variance)
    np.testing.assert_allclose(fused(inputs), reference(inputs), atol=1e-3)


def test_fused_normalisation_in_bfloat16() -> None:
    layer = layers.FusedBatchNormalization(dtype="mixed_bfloat16")
    outputs = layer(GENERATOR.normal(2, 3, (60, 5, 6, 3)), training=True)
    assert outputs.dtype == "bfloat16"
    assert {weight.dtype for weight in layer.weights} == {"float32"}


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(("height", "width"), [(3, 3), (7, 4)])
def test_fast_convolution(size: int, height: int, width: int) -> None:
    images = tf.constant(GENERATOR.normal(size=(6, height, width, 4)), tf.float32)
    fast = layers.FastConv2D(5, size, padding="same", use_bias=False)
    reference = keras.layers.Conv2D(5, size, padding="same", use_bias=False)
    fast.build(images.shape)
    reference.build(images.shape)
    reference.set_weights(fast.get_weights())

    def outputs_and_gradients(layer: keras.layers.Layer) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images, training=True)
            loss = tf.reduce_sum(tf.sin(outputs))
        return [outputs, *tape.gradient(loss, [images, layer.kernel.value])]

    with mock.patch.object(layers, "_convolution", wraps=layers._convolution) as used:
        results = outputs_and_gradients(fast)
    used.assert_called_once()
    for found, expected in zip(results, outputs_and_gradients(reference), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(fast(images), reference(images))
    same = layers.FastConv2D.from_config(fast.get_config())
    same.build(images.shape)
    same.set_weights(fast.get_weights())
    np.testing.assert_array_equal(same(images, training=True), fast(images, training=True))


@pytest.mark.parametrize(
    "options", [{"strides": 2}, {"padding": "valid"}, {"use_bias": True}, {"activation": "relu"}, {"dilation_rate": 2}]
)
def test_fast_convolution_with_other_options(options: dict[str, Any]) -> None:
    images = GENERATOR.normal(size=(6, 7, 7, 4)).astype(np.float32)
    options = {"padding": "same", "use_bias": False, **options}
    fast, reference = layers.FastConv2D(5, 3, **options), keras.layers.Conv2D(5, 3, **options)
    for layer in (fast, reference):
        layer.build(images.shape)
    reference.set_weights(fast.get_weights())
    np.testing.assert_array_equal(fast(images, training=True), reference(images))


@pytest.mark.skipif(not processor.uses_amx(), reason="FastConv2D interleaves images with AMX only")
@pytest.mark.parametrize(("count", "width"), [(1, 1), (33, 2), (32, 3), (65, layers.NARROW)])
@pytest.mark.parametrize("size", [3, 5])
def test_fast_convolution_with_amx(count: int, width: int, size: int) -> None:
    """With small integers, there is no rounding."""
    fast = layers.FastConv2D(5, size, padding="same", use_bias=False, dtype="mixed_bfloat16")
    reference = keras.layers.Conv2D(5, size, padding="same", use_bias=False)
    images = tf.constant(GENERATOR.integers(-1, 2, (count, 2, width, 4)), tf.float32)
    weights = tf.constant(GENERATOR.integers(-1, 2, (count, 2, width, 5)), tf.float32)  # of the outputs, in the loss
    for layer in (fast, reference):
        layer.build(images.shape)
    reference.set_weights([GENERATOR.integers(-1, 2, (size, size, 4, 5)).astype(np.float32)])
    fast.set_weights(reference.get_weights())

    def gradients(layer: keras.layers.Layer) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(weights * tf.cast(layer(images, training=True), "float32"))
        return [*tape.gradient(loss, [images, layer.kernel.value])]

    with mock.patch.object(layers, "_interleaved", wraps=layers._interleaved) as used:
        results = gradients(fast)
    assert used.call_count == 2
    for found, expected in zip(results, gradients(reference), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("width", "amx"), [(layers.NARROW + 1, True), (layers.NARROW, False), (None, True)])
def test_fast_convolution_in_bfloat16(monkeypatch: pytest.MonkeyPatch, width: int | None, amx: bool) -> None:
    """Without AMX and for wide images, it is Keras' layer."""
    monkeypatch.setattr(processor, "uses_amx", lambda: amx)
    monkeypatch.setattr(layers, "_convolution", None)
    layer = layers.FastConv2D(5, 3, padding="same", use_bias=False, dtype="mixed_bfloat16")
    layer.build((2, 7, width, 4))
    call = tf.function(lambda images: layer(images, training=True))
    (outputs,) = call.get_concrete_function(tf.TensorSpec((2, 7, width, 4))).outputs
    assert outputs.dtype == "bfloat16"


def test_standardisation() -> None:
    images = GENERATOR.integers(0, [200, 100, 2], (50, 8, 9, 3)).astype(np.uint8)
    pixels = layers.standardization(images)(images).numpy()
    np.testing.assert_allclose(pixels.mean(axis=(0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(pixels.std(axis=(0, 1, 2)), 1, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_whitening_kernel(channels: int) -> None:
    rough = GENERATOR.normal(size=(1200, 12, 12, channels))
    pixels = (rough + np.roll(rough, 1, axis=1) + np.roll(rough, 1, axis=2)).astype(np.float32)
    kernel = layers.whitening_kernel(pixels, 3)
    half = 9 * channels - 1
    assert kernel.shape == (3, 3, channels, 2 * half)
    features = keras.ops.conv(pixels, kernel).numpy().reshape(-1, 2 * half)
    np.testing.assert_allclose(features[:, half:], -features[:, :half], atol=1e-4)
    np.testing.assert_allclose(features[:, :half].T @ features[:, :half] / len(features), np.eye(half), atol=2e-2)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 5), (5, 3), (4, 4)])
def test_dirac_initializer(inputs: int, outputs: int) -> None:
    images = GENERATOR.normal(size=(2, 6, 6, inputs)).astype(np.float32)
    kernel = layers.DiracInitializer()((3, 3, inputs, outputs))
    copied = keras.ops.conv(images, kernel, padding="same").numpy()
    same = min(inputs, outputs)
    np.testing.assert_allclose(copied[..., :same], images[..., :same], rtol=1e-6)
    assert (np.asarray(kernel)[..., same:] != 0).all()
