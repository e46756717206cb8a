"""The networks and their training: the only room that imports TensorFlow.

Importing any module of this package first imports TensorFlow in silence: it says at every start which instructions it
was compiled for and that there is no GPU, partly before it reads the variable that should make it quiet.
"""

import os
import sys

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_stderr = os.dup(sys.__stderr__.fileno())
try:
    with open(os.devnull, "w") as _nowhere:
        os.dup2(_nowhere.fileno(), 2)
    import tensorflow  # noqa: F401
finally:
    os.dup2(_stderr, 2)
    os.close(_stderr)
