"""Reading the arrays of a PyTorch checkpoint without PyTorch, and without running what the file says.

The format is the one before PyTorch 1.6: five pickles, of a magic number, a protocol version, facts of the machine, the
arrays by name and the keys of the storages; then each storage's length and numbers.

A pickle is a program. Each is read through without being run first, and refused if it has an instruction that such a
file does not need, or too many of them: without ever calling anything, pickles can fill the memory (by the number of
a place to keep something in) or crash the interpreter (by a key of a dictionary that is nested a million times). Then
the names that such a file needs are admitted and all others refused. What a pickle may still do is to take long, by a
key that holds a tuple twice that holds a tuple twice, and so on: read only files that are known by their SHA-256.
"""

import io
import pickle
import pickletools
import struct
from collections import OrderedDict
from collections.abc import Callable
from reprlib import repr as shortened
from typing import Any, NamedTuple

import numpy as np

from fashion.errors import UserError

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
PICKLES = 5
DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}
MOST_INSTRUCTIONS = 20_000  # twice as many as those of EfficientNet-Lite0's largest pickle
INSTRUCTIONS = """
    PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINUNICODE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 TUPLE
    EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS BINPUT BINGET LONG_BINPUT LONG_BINGET GLOBAL REDUCE BUILD
    BINPERSID
"""
DAMAGE = (  # what pickle and NumPy raise on bytes that are no such file
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
    struct.error,
)


class Storage(NamedTuple):
    """Numbers that the file holds after the pickles, by the key under which it does.

    Like `Tensor`, a tuple: a pickle can write into any object that has attributes to write to.
    """

    key: str
    dtype: str
    length: int


class Tensor(NamedTuple):
    """A view of a storage: where its first element is, and how many elements lie between neighbours along each axis."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(content: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of a checkpoint by their names.

    Args:
        content: the whole of the file.

    Raises:
        UserError: it is no such checkpoint, or names something that one has no need of.
    """
    file = io.BytesIO(content)
    try:
        magic, version, _, tensors, keys = (_unpickle(file) for _ in range(PICKLES))
        if (magic, version) != (MAGIC_NUMBER, PROTOCOL_VERSION):
            raise ValueError(f"magic number and version are {shortened(magic)} and {shortened(version)}")
        if type(tensors) is not OrderedDict or type(keys) is not list or {*map(type, keys)} - {str}:
            raise ValueError("neither arrays by name nor keys of storages")
        for name, view in OrderedDict.items(tensors):
            _check(name, view)
        views = dict(OrderedDict.items(tensors))
        storages = {view.storage.key: view.storage for view in views.values()}
        numbers = {key: _numbers(file, storages[key]) for key in keys}
        if excess := len(file.read()):
            raise ValueError(f"{excess:,} bytes after the last storage")
        return {name: _array(numbers[view.storage.key], view) for name, view in views.items()}
    except DAMAGE as error:
        raise UserError(
            f"not a PyTorch checkpoint of the format before 1.6 ({str(error) or type(error).__name__}); install its "
            "package anew"
        ) from error


def _unpickle(file: io.BytesIO) -> Any:
    """Return what the next pickle of `file` says, once it is known to consist of what it may."""
    start = file.tell()
    for count, (instruction, argument, _) in enumerate(pickletools.genops(file)):
        if instruction.name not in INSTRUCTIONS.split():
            raise ValueError(f"a pickle with the instruction {instruction.name}")
        place = argument or 0 if instruction.name == "LONG_BINPUT" else 0
        if max(count, place) >= MOST_INSTRUCTIONS:
            raise ValueError(f"a pickle of more than {MOST_INSTRUCTIONS:,} instructions")
    end = file.tell()
    file.seek(start)
    return _Unpickler(io.BytesIO(file.read(end - start))).load()


class _Unpickler(pickle.Unpickler):
    """Builds what a checkpoint consists of, and nothing else."""

    def find_class(self, module: str, name: str) -> Callable[..., Any] | str:
        """Return what stands for a name in the file; refuse what is not among those that a checkpoint needs."""

        def rebuild_tensor(
            storage: Storage, offset: int, shape: Any, strides: Any, _gradient: bool, _hooks: object
        ) -> Tensor:
            return Tensor(storage, offset, tuple(shape), tuple(strides))

        match module, name:
            case "collections", "OrderedDict":
                return OrderedDict
            case "torch._utils", "_rebuild_tensor_v2":
                return rebuild_tensor  # made anew each time, as a pickle can change a function that it is given
            case "torch", ("FloatStorage" | "LongStorage"):
                return DTYPES[name]
        raise UserError(
            f"the checkpoint asks for {shortened(module)}, {shortened(name)}, which no network needs; do not use it"
        )

    def persistent_load(self, pid: Any) -> Storage:
        """Return the storage that a persistent id describes."""
        kind, dtype, key, _location, length, view = pid
        if (
            (kind, view) != ("storage", None)
            or dtype not in DTYPES.values()
            or type(key) is not str
            or type(length) is not int
        ):
            raise ValueError(f"a storage described as {shortened(pid)}")
        return Storage(key, dtype, length)


def _check(name: Any, view: Any) -> None:
    """Refuse whatever else than a name and a view of a storage."""
    numbers = (view.offset, *view.shape, *view.strides) if type(view) is Tensor else ()
    if type(name) is not str or not numbers or type(view.storage) is not Storage or {*map(type, numbers)} != {int}:
        raise ValueError(f"{shortened(name)} is not an array")


def _numbers(file: io.BytesIO, storage: Storage) -> np.ndarray:
    """Read the next storage."""
    (length,) = struct.unpack("<q", file.read(8))
    left = len(file.getbuffer()) - file.tell()
    size = np.dtype(storage.dtype).itemsize * storage.length
    if length != storage.length or not 0 <= size <= left:
        raise ValueError(f"a storage of {storage.length:,} numbers, with {length:,} announced and {left:,} bytes left")
    return np.frombuffer(file.read(size), storage.dtype)


def _array(numbers: np.ndarray, view: Tensor) -> np.ndarray:
    last = view.offset + sum((n - 1) * stride for n, stride in zip(view.shape, view.strides, strict=True))
    if (
        min(view.offset, *view.strides, 0) < 0
        or min(view.shape, default=1) < 1
        or last >= len(numbers)
        or np.prod([*view.shape], dtype=object) > len(numbers)  # elements that are read more than once
    ):
        raise ValueError(f"a view of {view.shape} by {view.strides} from {view.offset} of {len(numbers):,} numbers")
    strides = tuple(stride * numbers.itemsize for stride in view.strides)
    return np.lib.stride_tricks.as_strided(numbers[view.offset :], view.shape, strides, writeable=False)
