"""One thin script per DVC stage: paths from the command line, params from params.yaml, the rest from the library.

Stages alike, as train_dnn and train_cnn, are scripts of their own, so that each depends on its own network and params.
What is slow to import is imported once the arguments are parsed, so that `--help` and a mistyped argument are answered
at once.

A stage puts temporary files into .dvc/tmp, since /tmp may be too small.
"""

import os
from pathlib import Path

if (scratch := Path(".dvc", "tmp")).is_dir():
    os.environ["TMPDIR"] = str(scratch.absolute())
