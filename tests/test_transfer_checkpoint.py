"""A checkpoint is read without PyTorch, and whatever else a pickle may ask for is refused and not done."""

import pickle
import struct
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fashion.errors import UserError
from studies.transfer import checkpoint

STORAGES = {"<f4": b"ctorch\nFloatStorage\n", "<i8": b"ctorch\nLongStorage\n"}
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
DICTIONARY = b"ccollections\nOrderedDict\n)R"


def plain(value: Any) -> bytes:
    """Return the instructions that put a value of Python's own types on the pickle's stack."""
    return pickle.dumps(value, 2)[2:-1]


def storage(key: str, dtype: str, length: Any, kind: Any = "storage", view: Any = None) -> bytes:
    """Return the instructions that ask for a storage."""
    return b"(" + plain(kind) + STORAGES[dtype] + plain(key) + plain("cpu") + plain(length) + plain(view) + b"tQ"


def tensor(numbers: bytes, offset: Any, shape: Any, strides: Any) -> bytes:
    """Return the instructions that make a view of a storage."""
    return REBUILD + b"(" + numbers + plain(offset) + plain(shape) + plain(strides) + b"\x89" + DICTIONARY + b"tR"


def file(tensors: bytes, keys: Any = (), numbers: bytes = b"", magic: Any = checkpoint.MAGIC_NUMBER) -> bytes:
    """Return a checkpoint whose fourth pickle has the instructions `tensors`."""
    heads = b"".join(pickle.dumps(value, 2) for value in (magic, checkpoint.PROTOCOL_VERSION, {"little_endian": True}))
    return heads + b"\x80\x02" + tensors + b"." + pickle.dumps(list(keys), 2) + numbers


def numbers(*storages: np.ndarray) -> bytes:
    """Return what follows the pickles."""
    return b"".join(struct.pack("<q", values.size) + values.tobytes() for values in storages)


def named(tensors: Mapping[str, bytes]) -> bytes:
    """Return the instructions that make an ordered dictionary, with an attribute, as PyTorch gives it."""
    items = b"".join(plain(name) + instructions + b"s" for name, instructions in tensors.items())
    return DICTIONARY + items + b"}" + plain("_metadata") + DICTIONARY + b"sb"


FLOATS, INTEGERS = np.arange(6, dtype="<f4"), np.array([7], "<i8")
ROW = tensor(storage("a", "<f4", 6), 0, (6,), (1,))


def whole(first: bytes = ROW) -> bytes:
    """Return a checkpoint of six floats and an integer."""
    second = tensor(storage("b", "<i8", 1), 0, (), ())
    return file(named({"one": first, "two": second}), ["a", "b"], numbers(FLOATS, INTEGERS))


def refused(content: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        checkpoint.read(content)


def test_arrays_come_back_by_name_as_views_of_their_storages() -> None:
    arrays = checkpoint.read(whole(tensor(storage("a", "<f4", 6), 1, (2, 2), (1, 2))))
    assert list(arrays) == ["one", "two"]
    np.testing.assert_array_equal(arrays["one"], np.array([[1, 3], [2, 4]], np.float32), strict=True)
    np.testing.assert_array_equal(arrays["two"], np.array(7, np.int64), strict=True)


def call(name: bytes, argument: str) -> bytes:
    """Return the instructions that call what a name stands for."""
    return b"c" + name + b"\n" + plain(argument) + b"\x85R"


def test_the_attack_is_one(tmp_path: Path) -> None:
    """Pickle itself, unguarded, falls for what is refused below."""
    attack = call(b"os\nsystem", f"touch {tmp_path / 'ran'}")
    pickle.loads(b"\x80\x02" + attack + b".")  # noqa: S301
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    [
        b"os\nsystem",
        b"posix\nsystem",
        b"torch\n_utils.os.system",
        b"torch._utils\nos.system",
        b"torch._utils\n_rebuild_tensor_v2.__globals__",
        b"torch\nOrderedDict",
        b"collections\n_sys.modules",
        b"builtins\nOrderedDict",
        b"builtins\nexec",
    ],
)
def test_other_names_are_refused_and_not_called(name: bytes, tmp_path: Path) -> None:
    for argument in (f"touch {tmp_path / 'ran'}", f"open({str(tmp_path / 'ran')!r}, 'w')"):
        refused(file(call(name, argument)), "asks for")
        refused(file(named({"one": call(name, argument)})), "asks for")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("instruction", "name"),
    [
        (b"\x8c\x02os\x8c\x06system\x93", "SHORT_BINUNICODE"),  # STACK_GLOBAL, whose names need new instructions
        (plain("os") + plain("system") + b"\x93", "STACK_GLOBAL"),
        (b"(S'true'\nios\nsystem\n", "STRING"),
        (b"(ios\nsystem\n", "INST"),
        (b"(" + STORAGES["<f4"] + b"o", "OBJ"),
        (STORAGES["<f4"] + b")\x81", "NEWOBJ"),
        (b"\x82\x01", "EXT1"),
        (b"Pstorage\n", "PERSID"),
        (b"\x96" + struct.pack("<Q", 1 << 40), "bytearray8"),
        (b"\x8d" + struct.pack("<Q", 1 << 40), "unicodestring8"),
        (b"X" + struct.pack("<I", (1 << 32) - 1), "unicodestring4"),
        (b"I1\n", "INT"),
    ],
)
def test_other_instructions_are_refused(instruction: bytes, name: str) -> None:
    refused(file(instruction), name)


@pytest.mark.parametrize(
    "bomb",
    [
        b"}r\xff\xff\xff\xff",  # a place to keep an object in whose number is 4,294,967,295
        b"})" + b"\x85" * 1_000_000 + b"K\x01s",  # a key nested a million times: its hash overflows the stack
        b"(" * 1_000_000,
        b"]" + b"2" * 100,
    ],
)
def test_bombs_are_refused(bomb: bytes) -> None:
    refused(file(bomb), "more than 20,000 instructions|DUP")


def test_a_key_nested_as_deep_as_is_let_through_does_no_harm() -> None:
    refused(file(b"})" + b"\x85" * 19_000 + b"K\x01s"), "neither")
    refused(file(DICTIONARY + b")" + b"\x85" * 19_000 + ROW + b"s"), "is not an array")


def test_what_a_pickle_is_given_it_cannot_change() -> None:
    refused(file(REBUILD + b"N}" + plain("__defaults__") + plain((None, None)) + b"s\x86b"), "neither")
    refused(file(ROW + b"}" + plain("offset") + plain(-1) + b"sb"), "checkpoint")
    refused(file(ROW + b"N}" + plain("offset") + plain(-1) + b"s\x86b"), "checkpoint")
    short = file(named({"one": REBUILD + b"(" + storage("a", "<f4", 6) + plain(0) + plain((6,)) + plain((1,)) + b"tR"}))
    refused(short, "missing 2 required positional arguments")
    shadowed = named({"one": ROW})[:-1] + plain("items") + REBUILD + b"sb"
    assert list(checkpoint.read(file(shadowed, ["a"], numbers(FLOATS)))) == ["one"]


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        (storage("a", "<f4", 6, kind="module"), "a storage described as"),
        (storage("a", "<f4", 6, view=("b", 0, 1)), "a storage described as"),
        (storage("a", "<f4", "6"), "a storage described as"),
        (storage("a", "<f4", True), "a storage described as"),
        (b"(" + plain("storage") + plain("O") + plain("a") + plain("cpu") + plain(6) + b"NtQ", "a storage described"),
        (b"(" + plain("storage") + plain("a") + b"tQ", "not enough values to unpack"),
        (plain("storage") + b"Q", "too many values to unpack|not enough values"),
        (plain(("storage", "<f4", "a", "cpu", 6, None)), "is not an array"),
    ],
)
def test_persistent_ids_of_another_kind_are_refused(numbers: bytes, reason: str) -> None:
    refused(whole(tensor(numbers, 0, (6,), (1,))), reason)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (-1, (6,), (1,)),
        (1, (6,), (1,)),
        (6, (), ()),
        (0, (6,), (-1,)),
        (5, (2,), (-1,)),
        (0, (7,), (1,)),
        (0, (3, 3), (2, 1)),
        (0, (1 << 40,), (0,)),
        (0, (-1,), (1,)),
        (0, (0,), (1,)),
        (0, (2,), (1 << 62,)),
        (0, (1,), (1 << 62,)),
        (0, (6,), (1, 1)),
        (0, (6.0,), (1,)),
        (float("nan"), (1,), (1,)),
        (True, (1,), (1,)),
        (0, ("6",), (1,)),
    ],
)
def test_views_beyond_their_storage_are_refused(offset: Any, shape: Any, strides: Any) -> None:
    refused(whole(tensor(storage("a", "<f4", 6), offset, shape, strides)), "a view of|not a|argument")


@pytest.mark.parametrize("claimed", [5, 7, -6, 1 << 40, 1 << 62])
def test_storages_of_another_length_than_announced_or_there_are_refused(claimed: int) -> None:
    content = file(named({"one": tensor(storage("a", "<f4", claimed), 0, (1,), (1,))}), ["a"], numbers(FLOATS))
    refused(content, "a storage of")
    announced = content.replace(struct.pack("<q", 6), struct.pack("<q", claimed))
    refused(announced, "bytes after the last storage" if claimed == 5 else "a storage of")


def test_what_is_not_arrays_by_name_is_refused() -> None:
    refused(file(plain({"one": 1})), "neither")
    refused(file(named({"one": plain(1)})), "is not an array")
    refused(file(DICTIONARY + plain(1) + ROW + b"s"), "is not an array")
    refused(file(named({"one": ROW}), ["a", "c"], numbers(FLOATS)), "'c'")
    refused(file(named({"one": ROW}), [], numbers(FLOATS)), "bytes after the last storage")
    refused(file(named({"one": ROW}), [], b""), "'a'")
    refused(file(named({}), magic=1), "magic number")
    refused(whole() + b"\0", "1 bytes after the last storage")


def test_every_truncation_is_refused() -> None:
    content = whole()
    for length in range(len(content)):
        refused(content[:length], "not a PyTorch checkpoint")


@given(st.data())
def test_damage_is_refused_or_changes_numbers_alone(data: st.DataObject) -> None:
    content = bytearray(whole())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        arrays = checkpoint.read(bytes(content))
    except UserError:
        return
    assert all(array.size <= 6 and array.dtype in ("<f4", "<i8") for array in arrays.values())


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(content: bytes) -> None:
    refused(content, "not a PyTorch checkpoint")


def test_the_instructions_above_are_those_of_pickle() -> None:
    value = OrderedDict(_metadata=(1, [2, {"three": None}]))
    assert pickle.loads(b"\x80\x02" + DICTIONARY + b".") == OrderedDict()  # noqa: S301
    assert pickle.loads(b"\x80\x02" + plain(value["_metadata"]) + b".") == value["_metadata"]  # noqa: S301
