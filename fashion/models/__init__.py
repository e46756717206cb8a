"""The networks and their training.

Importing this package imports TensorFlow and Keras and registers the project's layers with Keras, so that
`keras.saving.load_model` can read the trained models. TensorFlow's start-up messages are hidden, since some of
them ignore TF_CPP_MIN_LOG_LEVEL.
"""

from fashion.silence import silence_stderr

with silence_stderr():
    import tensorflow  # noqa: F401

from fashion.models import layers  # noqa: F401 - registers them
