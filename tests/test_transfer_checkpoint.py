"""Reading PyTorch checkpoints."""

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashion.errors import UserError
from studies.transfer import checkpoint

ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
FLOATS, INTEGERS = np.arange(6, dtype="<f4"), np.array([7], "<i8")


def opcodes(value: Any) -> bytes:
    """Return the pickle opcodes that push a value."""
    return pickle.dumps(value, 2)[2:-1]


def tensor(kind: bytes, key: str, length: int, offset: int, shape: Any, strides: Any) -> bytes:
    """Return the opcodes that push a view of a storage, as PyTorch writes them."""
    storage = b"(" + opcodes("storage") + b"ctorch\n" + kind + b"\n" + opcodes(key) + opcodes("cpu") + opcodes(length)
    arguments = storage + b"NtQ" + opcodes(offset) + opcodes(shape) + opcodes(strides) + b"\x89" + ORDERED_DICT
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def file(items: dict[str, bytes]) -> bytes:
    """Return a checkpoint with arrays by name, given as opcodes, and the storages `FLOATS` and `INTEGERS`."""
    head = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    pairs = b"".join(opcodes(name) + value + b"s" for name, value in items.items())
    arrays = b"\x80\x02" + ORDERED_DICT + pairs + b"}" + opcodes("_metadata") + ORDERED_DICT + b"sb."
    numbers = b"".join(struct.pack("<q", storage.size) + storage.tobytes() for storage in (FLOATS, INTEGERS))
    return head + arrays + pickle.dumps(["a", "b"], 2) + numbers


def test_views_of_storages() -> None:
    items = {
        "matrix": tensor(b"FloatStorage", "a", 6, 1, (2, 2), (1, 2)),
        "row": tensor(b"FloatStorage", "a", 6, 0, (6,), (1,)),
        "scalar": tensor(b"LongStorage", "b", 1, 0, (), ()),
    }
    arrays = checkpoint.read(file(items))
    assert list(arrays) == list(items)
    np.testing.assert_array_equal(arrays["matrix"], np.array([[1, 3], [2, 4]], np.float32), strict=True)
    np.testing.assert_array_equal(arrays["row"], FLOATS, strict=True)
    np.testing.assert_array_equal(arrays["scalar"], np.array(7), strict=True)


@pytest.mark.parametrize(("module", "name"), [("os", "system"), ("torch._utils", "_rebuild_tensor_v2.__globals__")])
def test_other_names(module: str, name: str, tmp_path: Path) -> None:
    call = f"c{module}\n{name}\n".encode() + opcodes(f"touch {tmp_path / 'ran'}") + b"\x85R"
    with pytest.raises(UserError, match=f"the checkpoint refers to {module}.{name}"):
        checkpoint.read(file({"one": call}))
    assert not (tmp_path / "ran").exists()
