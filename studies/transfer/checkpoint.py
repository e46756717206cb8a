"""Reading the arrays of a PyTorch checkpoint without PyTorch.

The format is the one before PyTorch 1.6: five pickles (magic number, protocol version, machine, arrays by name, keys of
the storages), then the length and the numbers of each storage. Arrays are views of storages.

A pickle can call any function, so the unpickler admits only the four names that such a file needs. Damage is not
detected: check the SHA-256 of a file before reading it.
"""

import io
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np

from fashion.errors import UserError


def read(content: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of a checkpoint by name.

    Args:
        content: the whole file, whose SHA-256 the caller has checked.

    Raises:
        UserError: the file refers to anything but arrays.
    """
    file = io.BytesIO(content)
    unpickler = _Unpickler(file)
    *_, arrays, keys = (unpickler.load() for _ in range(5))
    for key in keys:
        storage = unpickler.storages[key]
        file.read(8)  # its length
        storage[:] = np.frombuffer(file.read(storage.nbytes), storage.dtype)
    return dict(arrays)


class _Unpickler(pickle.Unpickler):
    """Creates arrays, and no other objects.

    Attributes:
        storages: the storages by key, still without their numbers.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        admitted = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _view,
            ("torch", "FloatStorage"): "<f4",
            ("torch", "LongStorage"): "<i8",
        }
        if (module, name) not in admitted:
            raise UserError(f"the checkpoint refers to {module}.{name}, which weights do not need; do not use it")
        return admitted[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, dtype, key, _, length, _ = pid
        return self.storages.setdefault(key, np.empty(length, dtype))


def _view(storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> np.ndarray:
    """Return a view of a storage; offset and strides are numbers of elements."""
    return np.ndarray(shape, storage.dtype, storage, offset * storage.itemsize, [n * storage.itemsize for n in strides])
