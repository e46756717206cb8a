"""Folders of image files: layout, decoding, the test set, and every mistake."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion.data import dataset, folder
from fashion.data.dataset import Split
from fashion.data.images import open_image
from fashion.errors import UserError

COLOURS = {"blue": (20, 40, 220), "green": (30, 200, 40), "red": (230, 30, 20)}
CLASSES = tuple(COLOURS)
SHAPE = (12, 16, 3)


def write_images(target: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Write noisy PNG files of different sizes, each of the colour of its class."""
    generator = np.random.default_rng(seed)
    for name, count in counts.items():
        (target / name).mkdir(parents=True)
        for index in range(count):
            height, width = generator.integers(10, 20, 2)
            pixels = COLOURS[name] + generator.integers(-20, 20, (height, width, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target / name / f"{index:03}.png")
    return target


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Return a folder without a test set."""
    return write_images(tmp_path / "colours", {"red": 5, "green": 10, "blue": 7})


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Return a folder with a test set."""
    write_images(tmp_path / "split" / "train", dict.fromkeys(CLASSES, 4))
    write_images(tmp_path / "split" / "test", dict.fromkeys(CLASSES, 2), seed=1)
    return tmp_path / "split"


def read(path: Path, unreadable: int = 0, seed: int = 1) -> tuple[Split, Split]:
    raw = path.with_name("raw")
    try:
        folder.convert(path, raw, CLASSES, SHAPE, unreadable, 0.2, seed)
    except UserError:
        assert not [file for file in raw.rglob("*") if file.is_file()], "half-written"
        raise
    return dataset.load(raw / "train"), dataset.load(raw / "test")


def error_of(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read(path)
    return str(error.value).replace(f"{path}", "FOLDER")


def test_order(flat: Path) -> None:
    listed = folder.scan(flat)
    assert listed.classes == CLASSES
    assert [str(file.path.relative_to(flat)) for file in listed.files] == [
        f"{name}/{index:03}.png" for name, count in zip(CLASSES, (7, 10, 5), strict=True) for index in range(count)
    ]


def test_read(flat: Path) -> None:
    labelled, test = read(flat)
    assert np.bincount(test.labels).tolist() == [2, 2, 3]
    assert np.bincount(labelled.labels).tolist() == [5, 8, 2]
    for part in (labelled, test):
        assert part.images.dtype == part.labels.dtype == np.uint8
        assert part.image_shape == SHAPE
        centres = part.images[:, 6, 8].astype(int)
        assert np.abs(centres - np.array(list(COLOURS.values()))[part.labels]).max() < 40


def test_same_again(flat: Path) -> None:
    for again, first in zip(read(flat), read(flat), strict=True):
        assert np.array_equal(again.images, first.images)
    assert not np.array_equal(read(flat)[1].images, read(flat, seed=2)[1].images)


def test_own_test_set(split: Path) -> None:
    labelled, test = read(split)
    assert np.bincount(labelled.labels).tolist() == [4, 4, 4]
    assert np.bincount(test.labels).tolist() == [2, 2, 2]


@pytest.mark.parametrize("names", [("Train", "Test"), ("training", "val")])
def test_other_names_of_splits(split: Path, names: tuple[str, str]) -> None:
    """Moving their images up would give the classes "Train" and "Test"."""
    for old, new in zip(folder.PARTS, names, strict=True):
        (split / old).rename(split / new)
    lines = error_of(split).splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"FOLDER/{name}" for name in sorted(names)]
    assert all(
        ": class folders in place of images; expected images in CLASS/, or in train/CLASS/" in line for line in lines
    )


def test_too_many_classes(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "texts", {f"{number:03}": 1 for number in range(257)})
    assert error_of(path) == "FOLDER: 257 classes; the limit is 256"


def test_space_in_front_of_a_name(flat: Path) -> None:
    (flat / "green").rename(flat / " green")
    assert error_of(flat) == "FOLDER/ green: the name starts or ends with a space; rename it"


def draw(path: Path, seed: int = 1) -> dict[str, bool]:
    """Return whether each file, by its path in the folder, is a test image."""
    files = folder.scan(path).files
    test = folder.draw_test(path, folder.by_hash(files, seed), 0.2)
    return {str(file.path.relative_to(path)): file in test for file in files}


def write_texts(path: Path, counts: dict[str, int], prefix: str = "") -> Path:
    """Write files with different contents, which need not be images to be drawn."""
    for name, count in counts.items():
        (path / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            (path / name / f"{prefix}{index:03}").write_text(f"{name} {prefix}{index}")
    return path


def test_added_images_move_no_other(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "texts", {"a": 60, "b": 200})
    before = draw(path)
    write_texts(path, {"a": 100, "b": 30}, "new")
    after = draw(path)
    assert {name: after[name] for name in before} == before
    assert 0.15 < sum(after.values()) / len(after) < 0.25
    assert any(test for name, test in after.items() if name not in before)
    assert draw(path, seed=2) != after


def test_renamed_images_keep_their_split(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "texts", {"a": 30, "b": 30})
    before = draw(path)
    for file in folder.scan(path).files:
        file.path.rename(file.path.with_name(f"renamed-{file.path.name}"))
    assert draw(path) == {name.replace("/", "/renamed-"): test for name, test in before.items()}


def test_identical_images_are_in_one_split(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "texts", {"a": 30, "b": 30})
    for name in ("a", "b"):
        for file in sorted((path / "a").glob("0*")):
            (path / name / f"copy-{file.name}").write_bytes(file.read_bytes())
    drawn = draw(path)
    originals = [f"{index:03}" for index in range(30)]
    assert {drawn[f"a/{name}"] for name in originals} == {True, False}
    assert all(drawn[f"a/{name}"] == drawn[f"a/copy-{name}"] == drawn[f"b/copy-{name}"] for name in originals)


@pytest.mark.parametrize("seed", range(40))
def test_small_classes(tmp_path: Path, seed: int) -> None:
    """Whatever the hashes, each class has a test image and two others."""
    path = write_texts(tmp_path / "texts", {"a": 3, "b": 3})
    (path / "b" / "001").write_bytes((path / "b" / "000").read_bytes())
    drawn = draw(path, seed)
    assert [drawn[f"a/{index:03}"] for index in range(3)].count(True) == 1
    assert [drawn[f"b/{index:03}"] for index in range(3)] == [False, False, True]


def test_identical_class(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "texts", {"a": 5, "b": 5})
    for file in (path / "b").iterdir():
        file.write_text("b")
    with pytest.raises(UserError) as error:
        draw(path)
    assert str(error.value) == (
        f"{path / 'b'}: too few different images to choose a test image; add others, or remove the class"
    )


def test_class_named_train(tmp_path: Path) -> None:
    """Folders train and test with images in them are classes."""
    write_images(tmp_path / "vehicles", {"red": 3, "blue": 3})
    (tmp_path / "vehicles" / "red").rename(tmp_path / "vehicles" / "train")
    assert folder.scan(tmp_path / "vehicles").classes == ("blue", "train")


def test_hidden_files(flat: Path) -> None:
    (flat / ".DS_Store").write_bytes(b"?")
    (flat / "red" / "._000.png").write_bytes(b"?")
    (flat / "red" / "Thumbs.db").write_bytes(b"?")
    (flat / ".cache").mkdir()
    assert len(folder.scan(flat).files) == 22


def test_dvc_links(flat: Path, tmp_path: Path) -> None:
    """With `cache.type: symlink`, the files are links to DVC's cache."""
    cached = tmp_path / "cache" / "files" / "md5" / "ab" / "cdef"
    cached.parent.mkdir(parents=True)
    (flat / "red" / "000.png").rename(cached)
    (flat / "red" / "000.png").symlink_to(cached)
    assert len(folder.scan(flat).files) == 22


def test_transparent(tmp_path: Path) -> None:
    Image.new("RGBA", (9, 9), (255, 0, 0, 0)).save(tmp_path / "image.png")
    assert open_image(tmp_path / "image.png").getpixel((4, 4)) == (255, 255, 255)


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("no image"), "not a PNG, JPEG or WebP image"),
    "endless": (lambda path: os.truncate(path, 2**36), "33,554,433 bytes; the limit is 33,554,432"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_unreadable(flat: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    damage, reason = UNREADABLE[kind]
    damage(flat / "green" / "003.png")
    first, last = error_of(flat).splitlines()
    assert first.startswith(f"FOLDER/green/003.png: {reason}")
    assert last == (
        "1 unreadable image in FOLDER, expected at most 0; repair or remove them, or raise fetch.unreadable in "
        "params.yaml"
    )
    labelled, test = read(flat, unreadable=1)
    assert len(labelled.labels) + len(test.labels) == 21
    assert capsys.readouterr().out.startswith(f"left out: {flat / 'green' / '003.png'}: {reason}")


def test_unreadable_test_image(flat: Path) -> None:
    """If the only test image of a class cannot be read, another one takes its place."""
    (flat / "red" / "000.png").write_text("no image")
    drawn = {seed: draw(flat, seed) for seed in range(100)}
    seed = next(
        seed
        for seed, test in drawn.items()
        if [name for name in test if test[name] and "red" in name] == ["red/000.png"]
    )
    labelled, test = read(flat, unreadable=1, seed=seed)
    assert np.bincount(labelled.labels)[2] == 3
    assert np.bincount(test.labels)[2] == 1


def test_too_few_readable(flat: Path) -> None:
    for index in range(3):
        (flat / "red" / f"00{index}.png").write_bytes(b"")
    with pytest.raises(UserError, match="red: 2 readable images, expected at least 3 for training, validation and"):
        read(flat, unreadable=3)


def not_utf8(path: Path) -> None:
    Path(os.fsdecode(bytes(path / "red") + b"/caf\xe9.png")).write_bytes(b"")


def emptied(path: Path) -> None:
    for file in path.rglob("*.png"):
        file.unlink()


def only_red(path: Path) -> None:
    for name in ("green", "blue"):
        for file in (path / name).iterdir():
            file.unlink()
        (path / name).rmdir()


def replaced(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.write_bytes(b"")


def keep(path: Path, count: int) -> None:
    for file in sorted(path.iterdir())[count:]:
        file.unlink()


LAYOUT = folder.LAYOUT
MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda path: path.rename(path.with_name("moved")), f"FOLDER: no such folder; {LAYOUT}"),
    "file": (replaced, f"FOLDER: a file; {LAYOUT}"),
    "no images": (emptied, f"FOLDER: no images; {LAYOUT}"),
    "one class": (only_red, f"FOLDER: one class, red; expected at least two; {LAYOUT}"),
    "file beside classes": (
        lambda path: (path / "labels.csv").write_text(""),
        f"FOLDER/labels.csv: a file in place of a folder; {LAYOUT}: move it out",
    ),
    "nested": (
        lambda path: (path / "red" / "dark").mkdir(),
        f"FOLDER/red/dark: a folder inside a class folder; {LAYOUT}: move its images up",
    ),
    "link": (
        lambda path: (path / "red" / "x.png").symlink_to("/etc/passwd"),
        "FOLDER/red/x.png: a link to something outside the folder, or to nothing; replace it with a copy",
    ),
    "broken link": (
        lambda path: (path / "red" / "x.png").symlink_to(path / "missing"),
        "FOLDER/red/x.png: a link to something outside the folder, or to nothing; replace it with a copy",
    ),
    "link with a long target": (
        lambda path: (path / "red" / "x.png").symlink_to(300 * "x"),
        "FOLDER/red/x.png: a link to something outside the folder, or to nothing; replace it with a copy",
    ),
    "link to itself": (
        lambda path: (path / "red" / "x.png").symlink_to("x.png"),
        "FOLDER/red/x.png: a link to something outside the folder, or to nothing; replace it with a copy",
    ),
    "pipe": (
        lambda path: os.mkfifo(path / "red" / "x.png"),
        "FOLDER/red/x.png: neither a file nor a folder; remove it",
    ),
    "linked class": (
        lambda path: (path / "pink").symlink_to(path.parent),
        "FOLDER/pink: a link to something outside the folder, or to nothing; replace it with a copy",
    ),
    "not UTF-8": (not_utf8, "FOLDER/red/caf\\xe9.png: the name is not UTF-8, or has control characters; rename it"),
    "control characters": (
        lambda path: (path / "red" / "\x1b]0;x\x07\n::stop-commands::x.png").touch(),
        "FOLDER/red/\\x1b]0;x\\x07\\n::stop-commands::x.png: the name is not UTF-8, or has control characters; "
        "rename it",
    ),
    "case": (
        lambda path: (path / "Red").mkdir(),
        "FOLDER/red: differs from Red in case only, which not all systems allow; rename one",
    ),
    "empty class": (
        lambda path: (path / "pink").mkdir(),
        "FOLDER/pink: 0 readable images, expected at least 3 for training, validation and test; add images, or remove "
        "the class",
    ),
    "one image": (
        lambda path: keep(path / "red", 1),
        "FOLDER/red: 1 readable image, expected at least 3 for training, validation and test; add images, or remove "
        "the class",
    ),
    "other classes": (
        lambda path: (path / "red").rename(path / "rot"),
        "FOLDER: no folder red, an unknown folder rot; params.yaml: dataset.classes must be the names of the class "
        "folders, sorted: blue, green, rot",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake(flat: Path, mistake: str) -> None:
    make, message = MISTAKES[mistake]
    make(flat)
    assert error_of(flat) == message


SPLIT_MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "third folder": (
        lambda path: (path / "valid").mkdir(),
        "FOLDER/valid: a folder beside train/ and test/; move its images into these, or move it out",
    ),
    "no test": (
        lambda path: (path / "test").rename(path.with_name("moved")),
        "FOLDER/test: no such folder; add it, or move the class folders up, beside each other",
    ),
    "class without test images": (
        lambda path: keep(path / "test" / "red", 0),
        "FOLDER/test/red: 0 readable images, expected at least 1 for the test set; add images, or remove the class",
    ),
    "class without training images": (
        lambda path: (path / "train" / "red").rename(path.with_name("moved")),
        "FOLDER/train/red: 0 readable images, expected at least 2 for training and validation; add images, or remove "
        "the class",
    ),
    "one training image": (
        lambda path: keep(path / "train" / "red", 1),
        "FOLDER/train/red: 1 readable image, expected at least 2 for training and validation; add images, or remove "
        "the class",
    ),
}


@pytest.mark.parametrize("mistake", SPLIT_MISTAKES)
def test_split_mistake(split: Path, mistake: str) -> None:
    make, message = SPLIT_MISTAKES[mistake]
    make(split)
    assert error_of(split) == message


def test_long_lists(flat: Path) -> None:
    for index in range(30):
        (flat / f"{index}.txt").write_text("")
    lines = error_of(flat).splitlines()
    assert len(lines) == folder.MAX_LINES + 1
    assert lines[-1] == "... and 10 more"
