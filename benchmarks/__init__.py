"""Speed and cost, compared with published networks: `make bench`, on an otherwise idle machine."""

import fashion  # noqa: F401 - before NumPy and TensorFlow, whose environment variables it unsets
