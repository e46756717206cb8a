"""The networks and their training.

Importing this package imports TensorFlow and Keras and registers the project's layers and optimisers with Keras, so
that `keras.saving.load_model` can read the trained models. It enables oneDNN on every processor: TensorFlow disables it
on those without AVX-512, where the CNN then trains a third slower. TensorFlow's start-up messages are hidden; some are
written before it reads the variable that should silence them.
"""

import os

from fashion.silence import silence_stderr

os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

with silence_stderr():
    import tensorflow  # noqa: F401

from fashion.models import layers, optimizers  # noqa: F401 - registers them
