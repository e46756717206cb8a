"""Classify Fashion-MNIST: the library that the stages, the command line and the tests share.

Importing it, before NumPy or TensorFlow, unsets the environment variables that configure these libraries, Keras and
Matplotlib, and lets Keras ignore the user's keras.json: a result depends on the code, the params, the data and the
processor alone.
"""

import os

UNSET_PREFIXES = (
    *("DNNL_", "GOTO_", "KERAS_", "KMP_", "MKL_", "NPY_", "OMP_", "ONEDNN_", "OPENBLAS_", "TF_", "XLA_"),
    *("MATPLOTLIBRC", "MPLBACKEND"),  # Keras imports Matplotlib; no display is needed
)

for name in [name for name in os.environ if name.startswith(UNSET_PREFIXES)]:
    del os.environ[name]
os.environ |= {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": os.devnull}
