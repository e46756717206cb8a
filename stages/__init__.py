"""One script per DVC stage: it parses arguments, reads params and inputs, calls the library, and writes outputs.

train_dnn and train_cnn are separate scripts, so that a change of one network or of its params retrains it alone. Slow
imports follow the parsing of the arguments, so that `--help` and a mistyped argument respond quickly.

Temporary files go to .dvc/tmp, since /tmp may be too small.
"""

import os
from pathlib import Path

if (scratch := Path(".dvc", "tmp")).is_dir():
    os.environ["TMPDIR"] = str(scratch.absolute())
