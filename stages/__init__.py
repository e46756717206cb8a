"""One thin script per DVC stage: paths from the command line, params from params.yaml, the rest from the library.

Stages alike, as train_dnn and train_cnn, are scripts of their own, so that each depends on its own network and params.
What is slow to import is imported once the arguments are parsed, so that `--help` and a mistyped argument are answered
at once.

Before a stage imports anything else, its environment is made the same for everybody:

- Variables that change what NumPy, TensorFlow, Keras or Matplotlib do are removed.
- Temporary files go to DVC's own folder for them, on the disk that has room for the results. /tmp may be small or full.
"""

import os
from pathlib import Path

CHANGE_RESULTS = (
    *("DNNL_", "KERAS_", "KMP_", "MKL_", "NPY_", "OMP_", "ONEDNN_", "OPENBLAS_", "TF_", "XLA_"),
    *("MATPLOTLIBRC", "MPLBACKEND"),  # Keras imports Matplotlib, and a figure needs no window
)

for name in [name for name in os.environ if name.startswith(CHANGE_RESULTS)]:
    del os.environ[name]
if (scratch := Path(".dvc", "tmp")).is_dir():
    os.environ["TMPDIR"] = str(scratch.absolute())
