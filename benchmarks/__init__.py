"""Speed and cost, compared with published networks: `make bench`, on a machine that does nothing else meanwhile."""

import fashion  # noqa: F401 - before NumPy and TensorFlow, whose environment variables it unsets
