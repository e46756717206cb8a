"""One thin script per DVC stage: paths from the command line, params from params.yaml, the rest from the library.

Stages alike, as train_dnn and train_cnn, are scripts of their own, so that each depends on its own network and params.
What is slow to import is imported once the arguments are parsed, so that `--help` and a mistyped argument are answered
at once.

Before a stage imports anything else, it

- unsets the environment variables that configure NumPy, TensorFlow, Keras and Matplotlib,
- puts temporary files into .dvc/tmp, since /tmp may be too small.
"""

import os
from pathlib import Path

UNSET_PREFIXES = (
    *("DNNL_", "KERAS_", "KMP_", "MKL_", "NPY_", "OMP_", "ONEDNN_", "OPENBLAS_", "TF_", "XLA_"),
    *("MATPLOTLIBRC", "MPLBACKEND"),  # Keras imports Matplotlib; no display is needed
)

for name in [name for name in os.environ if name.startswith(UNSET_PREFIXES)]:
    del os.environ[name]
if (scratch := Path(".dvc", "tmp")).is_dir():
    os.environ["TMPDIR"] = str(scratch.absolute())
