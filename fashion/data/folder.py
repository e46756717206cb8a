"""Data sets of image files: CLASS/* or train/CLASS/* and test/CLASS/*."""

import hashlib
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from fashion.data.dataset import Shape, npy_header
from fashion.data.images import MAX_BYTES, open_image, printable
from fashion.data.resizing import resize
from fashion.errors import UserError
from fashion.files import IGNORED, atomic_write

LAYOUT = "expected images in CLASS/, or in train/CLASS/ and test/CLASS/"
PARTS = ("train", "test")
SPLITS = {*PARTS, "training", "testing", "val", "valid", "validation"}  # other names that these folders have elsewhere
DECODED_TOGETHER = 64  # images
DECODERS = min(8, os.cpu_count() or 1)  # threads; each needs memory for an image
MAX_CLASSES = 256  # labels are unsigned bytes
MAX_LINES = 20  # of a list of problems

T = TypeVar("T")


@dataclass(frozen=True)
class ImageFile:
    """One image file; `label` is the index of its class, `part` is train, test, or empty without these folders."""

    path: Path
    label: int
    part: str


@dataclass(frozen=True)
class ImageFolder:
    """A folder of image files.

    Attributes:
        classes: sorted names of the classes.
        files: the training images first, then by class and name.
    """

    classes: tuple[str, ...]
    files: tuple[ImageFile, ...]


def scan(folder: Path) -> ImageFolder:
    """List the classes and files of a folder, without reading the files.

    Raises:
        UserError: a line per file or folder that is not where it should be, or per class with too few images.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: {'a file' if folder.exists() else 'no such folder'}; {LAYOUT}")
    problems = _Problems(folder)
    top = problems.subfolders(folder)
    parts = {"": folder}
    if set(PARTS) & {path.name for path in top} and any(
        path.is_dir() for part in PARTS for path in _visible(folder / part)
    ):
        parts = {part: folder / part for part in PARTS}
        for path in top:
            if path.name not in PARTS:
                problems.add(path, "a folder beside train/ and test/; move its images into these, or move it out")
        for part in PARTS:
            if not (folder / part).is_dir():
                problems.add(folder / part, "no such folder; add it, or move the class folders up, beside each other")
    for path in top if "" in parts else ():
        if path.name.casefold() in SPLITS and any(child.is_dir() for child in _visible(path)):
            problems.add(path, f"class folders in place of images; {LAYOUT}: rename it, or move its images")
    problems.end()
    found: dict[str, dict[str, list[Path]]] = {}
    for part, path in parts.items():
        classes = problems.subfolders(path) if part else top
        found[part] = {one.name: problems.images(one) for one in classes}
    problems.end()
    names = tuple(sorted({name for classes in found.values() for name in classes}))
    if not any(paths for classes in found.values() for paths in classes.values()):
        raise UserError(f"{folder}: no images; {LAYOUT}")
    if len(names) < 2:
        raise UserError(f"{folder}: one class, {names[0]}; expected at least two; {LAYOUT}")
    if len(names) > MAX_CLASSES:
        raise UserError(f"{folder}: {len(names)} classes; the limit is {MAX_CLASSES}")
    files = tuple(
        ImageFile(path, names.index(name), part)
        for part, classes in found.items()
        for name in sorted(classes)
        for path in classes[name]
    )
    listed = ImageFolder(names, files)
    check_counts(folder, listed, files)
    return listed


def check_counts(folder: Path, listed: ImageFolder, readable: Iterable[ImageFile]) -> None:
    """Check that every split can have a readable image of each class.

    Raises:
        UserError: a line per class with too few images.
    """
    counts = Counter((file.part, file.label) for file in readable)
    needed = {"": (3, "for training, validation and test"), "train": (2, "for training and validation")}
    problems = _Problems(folder)
    for part in PARTS if listed.files[0].part else ("",):
        for label, name in enumerate(listed.classes):
            least, purpose = needed.get(part, (1, "for the test set"))
            if (count := counts[part, label]) < least:
                found = f"{count} readable image{'' if count == 1 else 's'}"
                problems.add(
                    Path(folder, part, name),
                    f"{found}, expected at least {least} {purpose}; add images, or remove the class",
                )
    problems.end()


def convert(
    folder: Path, raw: Path, classes: tuple[str, ...], shape: Shape, unreadable: int, test_fraction: float, seed: int
) -> None:
    """Write the images of a folder as two splits, `raw`/train (with the validation images) and `raw`/test.

    Both are in the order of `by_hash`, because some code uses the first images as a sample of all. Images are decoded
    in groups, so that memory does not grow with their number.

    Args:
        folder: CLASS/*, or train/CLASS/* and test/CLASS/*.
        raw: folder to write to.
        classes: expected names of the class folders, in the order of the labels.
        shape: height and width of the images, in pixels, and their number of channels.
        unreadable: number of files that may be unreadable.
        test_fraction: fraction of the images that becomes the test set, if the folder has none.
        seed: of the order and of the choice of the test images.

    Raises:
        UserError: as for `scan`, the class folders are not `classes`, or more files are unreadable; nothing is written.
    """
    listed = scan(folder)
    if listed.classes != classes:
        missing, unknown = sorted(set(classes) - set(listed.classes)), sorted(set(listed.classes) - set(classes))
        differences = [f"no folder {name}" for name in missing] + [f"an unknown folder {name}" for name in unknown]
        raise UserError(
            f"{folder}: {', '.join(differences) or 'the folders in another order'}; params.yaml: dataset.classes "
            f"must be the names of the class folders, sorted: {', '.join(listed.classes)}"
        )
    failures: dict[ImageFile, UserError] = {}
    if unreadable:  # the choice of the test images depends on which files are readable
        checked = decode_all(listed.files, lambda _image: None)
        failures = {file: result for file, result in checked if isinstance(result, UserError)}
        _check_unreadable(folder, failures, unreadable)
    files = [file for file in listed.files if file not in failures]
    check_counts(folder, listed, files)
    ordered = by_hash(files, seed)
    test = draw_test(folder, ordered, test_fraction)
    parts = {part: [file for _, file in ordered if (file in test) == (part == "test")] for part in PARTS}
    changed: dict[ImageFile, UserError] = {}  # since they were checked, or unreadable although none may be
    with ExitStack() as written:
        for part, of_part in parts.items():
            images = written.enter_context(atomic_write(raw / part / "images.npy"))
            images.write(npy_header(np.dtype(np.uint8), (len(of_part), *shape)))
            for file, result in decode_all(of_part, lambda image: resize(image, shape)):
                if isinstance(result, UserError):
                    changed[file] = result
                else:
                    images.write(result.data)
            labels = written.enter_context(atomic_write(raw / part / "labels.npy"))
            np.save(labels, np.array([file.label for file in of_part], np.uint8))
        _check_unreadable(folder, changed, 0)
    for file in failures:
        print(f"left out: {file.path}: {failures[file]}", flush=True)


def _check_unreadable(folder: Path, failures: Mapping[ImageFile, UserError], allowed: int) -> None:
    """Check the number of unreadable files.

    Raises:
        UserError: there are more than allowed; a line for each.
    """
    if len(failures) > allowed:
        raise UserError(
            "\n".join(shortened(sorted(f"{file.path}: {error}" for file, error in failures.items())))
            + f"\n{len(failures):,} unreadable image{'' if len(failures) == 1 else 's'} in {folder}, expected at most "
            f"{allowed:,}; repair or remove them, or raise fetch.unreadable in params.yaml"
        )


def decode_all(
    files: Sequence[ImageFile], function: Callable[[Image.Image], T]
) -> Iterator[tuple[ImageFile, T | UserError]]:
    """Yield the value of `function` for each decoded image, or the error for an unreadable file."""

    def decode(file: ImageFile) -> tuple[ImageFile, T | UserError]:
        try:
            return file, function(open_image(file.path))
        except UserError as error:
            return file, error

    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(DECODERS) as pool:  # about metadata
        for start in range(0, len(files), DECODED_TOGETHER):
            yield from pool.map(decode, files[start : start + DECODED_TOGETHER])


def shortened(lines: Sequence[str]) -> list[str]:
    """Return the first lines, and how many are left out."""
    more = len(lines) - MAX_LINES
    return [*lines[:MAX_LINES], *([f"... and {more:,} more"] if more > 0 else [])]


def by_hash(files: Iterable[ImageFile], seed: int) -> list[tuple[float, ImageFile]]:
    """Return (hash, file) pairs in the order of the hash: of the content and the seed, from 0 to 1."""

    def content_hash(file: ImageFile) -> float:
        with file.path.open("rb") as content:
            digest = hashlib.sha256(f"{seed}\n".encode() + content.read(MAX_BYTES)).digest()
        return int.from_bytes(digest[:6]) / 2**48  # exact in a float

    return sorted(((content_hash(file), file) for file in files), key=lambda pair: (pair[0], pair[1].path))


def draw_test(folder: Path, ordered: Sequence[tuple[float, ImageFile]], fraction: float) -> set[ImageFile]:
    """Return the test images: those in the `test` folder or, without one, those whose hash is below `fraction`.

    An image stays in or out of the test set when others are added or removed and when its file is renamed, so models
    before and after can be compared; identical files stay together. In return, `fraction` is only approximate, above
    all in small classes. In a class with no hash below it, the image with the lowest one is a test image. At least two
    images of each class are left for training and validation. Only these two rules can change an image's split later.

    Args:
        folder: named in errors.
        ordered: the files, as returned by `by_hash`.
        fraction: expected fraction of test images.

    Raises:
        UserError: a line per class without a possible test image.
    """
    if any(file.part for _, file in ordered):
        return {file for _, file in ordered if file.part == "test"}
    left = Counter(file.label for _, file in ordered)
    test: set[ImageFile] = set()
    tested: set[int] = set()  # classes with a test image
    for value, pairs in groupby(ordered, key=lambda pair: pair[0]):
        same = [file for _, file in pairs]
        counts = Counter(file.label for file in same)
        needed = value < fraction or not counts.keys() <= tested
        if needed and all(left[label] - count >= 2 for label, count in counts.items()):
            left.subtract(counts)
            test.update(same)
            tested.update(counts)
    problems = _Problems(folder)
    for path in sorted({file.path.parent for _, file in ordered if file.label not in tested}):
        problems.add(path, "too few different images to choose a test image; add others, or remove the class")
    problems.end()
    return test


class _Problems:
    """The problems of a folder, one line each."""

    def __init__(self, folder: Path) -> None:
        self.root = folder.resolve()
        self.lines: list[str] = []

    def add(self, path: Path, problem: str) -> None:
        self.lines.append(f"{printable(path)}: {problem}")

    def end(self) -> None:
        if self.lines:
            raise UserError("\n".join(shortened(self.lines)))

    def subfolders(self, folder: Path) -> list[Path]:
        """Return the folders in a folder, and note all else."""
        return list(self._entries(folder, True, f"a file in place of a folder; {LAYOUT}: move it out"))

    def images(self, folder: Path) -> list[Path]:
        """Return the files of a class folder, and note all else."""
        return list(self._entries(folder, False, f"a folder inside a class folder; {LAYOUT}: move its images up"))

    def _entries(self, folder: Path, folders: bool, otherwise: str) -> Iterator[Path]:
        """Yield the folders in a folder or, if not `folders`, its files; note others with the problem `otherwise`."""
        names: dict[str, Path] = {}
        for path in _visible(folder):
            if printable(path.name) != path.name:
                self.add(path, "the name is not UTF-8, or has control characters; rename it")
                continue
            same = names.setdefault(unicodedata.normalize("NFC", path.name).casefold(), path)
            if same != path:
                self.add(path, f"differs from {same.name} in case only, which not all systems allow; rename one")
            elif not self._inside(path):
                self.add(path, "a link to something outside the folder, or to nothing; replace it with a copy")
            elif not (path.is_dir() or path.is_file()):
                self.add(path, "neither a file nor a folder; remove it")  # reading a pipe would wait forever
            elif path.is_dir() != folders:
                self.add(path, otherwise)
            elif folders and path.name != path.name.strip():
                self.add(path, "the name starts or ends with a space; rename it")
            else:
                yield path

    def _inside(self, path: Path) -> bool:
        target = Path(os.path.realpath(path))  # Path.resolve raises on a link to itself before Python 3.13
        in_cache = target.parts[-4:-2] == ("files", "md5")  # of DVC, with `cache.type: symlink`
        try:
            return target.exists() and (in_cache or target.is_relative_to(self.root))
        except OSError:  # longer than a path may be
            return False


def _visible(folder: Path) -> list[Path]:
    """Return the sorted content of a folder, without hidden files; nothing if it is not a folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in IGNORED)
