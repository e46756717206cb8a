"""The cost of inference, as a number that does not depend on the machine."""

import keras
import tensorflow as tf
from tensorflow.compat.v1.profiler import ProfileOptionBuilder, profile

from fashion.silence import silence_stderr


def inference_flops(model: keras.Model) -> int:
    """Return the floating-point operations of a prediction for one image, as TensorFlow's profiler counts them.

    A multiply-add counts as two.
    """
    images = tf.TensorSpec((1, *model.input_shape[1:]), model.inputs[0].dtype)
    with silence_stderr():  # the profiler warns about deprecated TensorFlow code
        graph = tf.function(model, autograph=False).get_concrete_function(images, training=False).graph
        options = ProfileOptionBuilder(ProfileOptionBuilder.float_operation()).with_empty_output().build()
        return int(profile(graph, options=options).total_float_ops)
