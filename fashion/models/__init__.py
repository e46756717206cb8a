"""The networks and their training: the only room that imports TensorFlow.

Importing this package lets `keras.saving.load_model` read the trained models. It imports TensorFlow and Keras, with
these settings:

- oneDNN's kernels are used on every processor. TensorFlow leaves them off where there is no AVX-512, and on such a
  processor they train the CNN in three quarters of the time.
- Its start-up chatter about instruction sets and GPUs is not shown. Part of it is written before TensorFlow reads the
  variable that should make it quiet, so standard error is closed to it for the time of the import.
"""

import os

os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

_stderr = os.dup(2)
try:
    _nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(_nowhere, 2)
    os.close(_nowhere)
    import tensorflow  # noqa: F401
finally:
    os.dup2(_stderr, 2)
    os.close(_stderr)

from fashion.models import layers, optimizers  # noqa: E402, F401 - Keras finds ours by their names once imported
