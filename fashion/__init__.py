"""Image classification with Keras and DVC: the library of the stages and of the `fashion` command.

Importing it, before NumPy or TensorFlow, unsets the environment variables that configure these libraries, Keras and
Matplotlib, and makes Keras ignore the user's keras.json: results depend only on the code, params, data and processor.

It enables oneDNN on every processor. TensorFlow disables it on those without AVX-512, where the CNN then trains a third
slower.
"""

import os

UNSET_PREFIXES = (
    *("DNNL_", "GOTO_", "KERAS_", "KMP_", "MKL_", "NPY_", "OMP_", "ONEDNN_", "OPENBLAS_", "TF_", "XLA_"),
    *("MATPLOTLIBRC", "MPLBACKEND"),  # Keras imports Matplotlib; no display is needed
)

for name in [name for name in os.environ if name.startswith(UNSET_PREFIXES)]:
    del os.environ[name]
os.environ |= {
    "KERAS_BACKEND": "tensorflow",
    "KERAS_HOME": os.devnull,
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "1",
}
