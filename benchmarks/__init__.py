"""Speed and cost against named baselines. `make bench` measures, on a machine that does nothing else meanwhile."""

import fashion  # noqa: F401 - before NumPy and TensorFlow, whose environment variables it unsets
