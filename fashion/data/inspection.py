"""`fashion dataset`: describe a data set, write its sections of params.yaml, and create data/about.md."""

import gzip
import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fashion.data import about, folder, idx
from fashion.data.dataset import Shape
from fashion.data.images import MAX_BYTES, printable
from fashion.data.resizing import resize
from fashion.errors import UserError
from fashion.files import write_text
from fashion.params import RawFiles, check_params
from fashion.validation import parse_yaml, read_yaml, set_value, yaml_editor

IMAGES = "images"  # the folder in the project
MAX_IDX_BYTES = 2**31  # of a file, uncompressed
OWN_SIZE = 64  # pixels; images of one size, at most this, keep it by default
DEFAULT_SIZE = 32
DARK = 15  # of 255: the brightest pixel of a 16-bit image that uses 12 bits
MIN_STEPS = 30  # per epoch, for small data sets
MIN_BATCH_SIZE = 16
VALIDATION_FRACTION = 0.1
TEST_FRACTION = 0.2
SEED = 2017  # of the choice of the test images
# Arguments of `git rm`: the results for Fashion-MNIST, and their tests
RESULTS = (
    "studies ':!studies/*.py' ':!studies/*.yaml' 'reports/benchmarks.*' "
    "docs/results.md docs/tour.md tests/test_results.py"
)
VARIABLE = "FASHION_MNIST_DIR"  # that names the folder of IDX files


@dataclass(frozen=True)
class Found:
    """A data set.

    Attributes:
        format: idx or folder.
        classes: names of the classes.
        shape: height, width and channels of the model input.
        labelled: number of images of each class for training and validation.
        fetch: text of the section `fetch`.
        lines: description.
    """

    format: str
    classes: tuple[str, ...]
    shape: Shape
    labelled: tuple[int, ...]
    fetch: str
    lines: list[str]


def configure(root: Path, path: Path, size: int | None, grey: bool, flip: bool, name: str | None) -> Iterator[str]:
    """Set a project up for a data set: params.yaml, data/about.md and, for image files, `images/` and images.dvc.

    Args:
        root: folder of the project.
        path: folder of image files, or of four IDX files.
        size: height and width of the model input, in pixels; by default that of small images of one size, or 32.
        grey: whether the model input is greyscale; by default if all images are.
        flip: whether training mirrors images, and predictions are averaged over mirror images.
        name: of the data set; that of the folder by default.

    Yields:
        Lines that describe the data set and what changed.

    Raises:
        UserError: the folder is no data set, params.yaml or data/about.md is wrong, or DVC fails; both are unchanged.
    """
    values = read_yaml(root / "params.yaml")
    check_params(values, "params.yaml")
    if size is not None and not 8 <= size <= 1024:
        raise UserError(f"--size: found {size}, expected 8 to 1024 pixels")
    files = _idx_files(path) if path.is_dir() else {}
    if files and (size or grey):
        raise UserError("--size and --grey are for folders of image files; IDX files are used as they are")
    in_place = path.resolve() == (root / IMAGES).resolve() and values["dataset"]["format"] == "folder"
    name = name or (values["dataset"]["name"] if in_place else path.resolve().name)
    if printable(name) != name:
        raise UserError(f"{printable(name)}: expected a printable name; use --name")
    if files:
        found = _inspect_idx(path, files)
    else:
        own = values["fetch"]
        split = (own["test_fraction"], own["seed"]) if in_place else (TEST_FRACTION, SEED)
        found = _inspect_folder(path, size, grey, *split)
    yield from found.lines
    yield ""
    text = _edited((root / "params.yaml").read_text(encoding="utf-8"), found, name, flip, in_place)
    new = parse_yaml(text, "params.yaml")
    check_params(new, "params.yaml")
    described = about.read(root / about.PATH).header.name if (root / about.PATH).exists() else None
    kept = described == name or (described is not None and in_place)
    added = list(_add_images(root, path)) if found.format == "folder" else []
    write_text(root / "params.yaml", text)
    if not kept:
        write_text(root / about.PATH, about.skeleton(name))
    yield from added  # only now: printing may fail (`| less`)
    yield from _changes(values, new)
    if described == name:
        yield f"{about.PATH}: kept"
    elif kept:  # renamed
        yield f"{about.PATH}: kept; change `name` in its header to {name}"
    else:
        replaced = f"replaced the description of {described}" if described else "written"
        yield f"{about.PATH}: {replaced}; fill in the lines marked TODO, for the model card"
    yield ""
    if (root / "tests" / "test_results.py").exists():
        yield f"Delete the results for Fashion-MNIST: git rm -rq {RESULTS}"
        yield "Rewrite the text of README.md and docs/serving.md."
    yield f"Run: make deps && {f'{VARIABLE}={shlex.quote(str(path.resolve()))} ' if files else ''}make"
    tracked = "images.dvc, .gitignore, " if found.format == "folder" else ""
    yield f"Then commit {tracked}{about.PATH}, params.yaml, dvc.yaml, dvc.lock and reports/."


def _inspect_folder(path: Path, size: int | None, grey: bool, test_fraction: float, seed: int) -> Found:
    listed = folder.scan(path)
    if large := [file.path for file in listed.files if file.path.stat().st_size > MAX_BYTES]:
        raise UserError(f"{large[0]}: more than {MAX_BYTES:,} bytes, the limit for an image; remove the file")

    def describe(image: Image.Image) -> tuple[tuple[int, int], bool, bool]:
        small = resize(image, (64, 64, 3))
        return image.size, bool((small == small[..., :1]).all()), bool(small.max() <= DARK)

    results = list(folder.decode_all(listed.files, describe))
    failures = {file.path: result for file, result in results if isinstance(result, UserError)}
    readable = [(file, *result) for file, result in results if not isinstance(result, UserError)]
    files = [file for file, *_ in readable]
    unreadable = folder.shortened([f"{file}: {error}" for file, error in failures.items()])
    try:
        folder.check_counts(path, listed, files)
    except UserError as error:
        raise UserError("\n".join([str(error), *unreadable])) from error
    sizes = Counter(pixels for _, pixels, _, _ in readable)
    colour = sum(not is_grey for _, _, is_grey, _ in readable)
    dark = sum(is_dark for *_, is_dark in readable)
    if size is None:
        first = next(iter(sizes))
        one_size = len(sizes) == 1 and max(first) <= OWN_SIZE
        width, height = first if one_size else (DEFAULT_SIZE, DEFAULT_SIZE)
    else:
        height = width = size
    split = any(file.part for file in files)  # into training and test images
    counts = Counter((file.part, file.label) for file in files)
    labels = range(len(listed.classes))
    if split:
        labelled = tuple(counts["train", label] for label in labels)
        held_out = f"{sum(labelled):,} for training, {len(files) - sum(labelled):,} for the test set"
    else:
        test = Counter(file.label for file in folder.draw_test(path, folder.by_hash(files, seed), test_fraction))
        labelled = tuple(counts["", label] - test[label] for label in labels)
        held_out = f"no `test` folder; {len(files) - sum(labelled):,} become the test set"
    lines = [
        f"{len(files):,} images in {len(listed.classes)} classes: {held_out}",
        *(
            f"  {name}: " + " + ".join(f"{counts[part, label]:,}" for part in (folder.PARTS if split else [""]))
            for label, name in enumerate(listed.classes)
        ),
        _describe_sizes(sizes),
        f"{colour:,} in colour, {len(files) - colour:,} greyscale",
        *([f"{dark:,} almost black; if these are 16-bit images that use fewer bits, scale them"] if dark else []),
        *_describe_duplicates(files),
    ]
    if failures:
        lines += [
            f"{len(failures):,} unreadable, to be left out:",
            *(f"  {line}" for line in unreadable),
        ]
    fetch = (
        f"fetch:\n  folder: {IMAGES} # CLASS/*, or train/CLASS/* and test/CLASS/*; tracked by DVC\n"
        f"  unreadable: {len(failures)} # image files, at most; they are left out\n"
        f"  test_fraction: {test_fraction} # of the images, if there is no `test` folder\n"
        f"  seed: {seed} # of the order of the images and the choice of the test images\n"
    )
    channels = 1 if grey or not colour else 3
    return Found("folder", listed.classes, (height, width, channels), labelled, fetch, lines)


def _describe_sizes(sizes: Mapping[tuple[int, int], int]) -> str:
    if len(sizes) == 1:
        ((width, height),) = sizes
        return f"all {width:,} x {height:,} pixels"
    widths, heights = zip(*sizes, strict=True)
    return (
        f"{len(sizes):,} sizes: {min(widths):,} to {max(widths):,} pixels wide, "
        f"{min(heights):,} to {max(heights):,} pixels high"
    )


def _describe_duplicates(files: list[folder.ImageFile]) -> Iterator[str]:
    groups: dict[str, list[folder.ImageFile]] = {}
    for file in files:
        groups.setdefault(hashlib.sha256(file.path.read_bytes()).hexdigest(), []).append(file)
    yield f"{len(files) - len(groups):,} identical to another file"
    for what, attribute in (("more than one class", "label"), ("the training and the test images", "part")):
        examples = [{getattr(file, attribute): file.path for file in group} for group in groups.values()]
        if both := [example for example in examples if len(example) > 1]:
            yield f"  in {what}: {len(both):,}, such as {' and '.join(map(str, both[0].values()))}"


def _add_images(root: Path, path: Path) -> Iterator[str]:
    """Copy a folder to `images/`, unless it is there, and track it with DVC."""
    target = root / IMAGES
    copied = path.resolve() != target.resolve()
    if copied:
        if target.exists() or target.is_symlink():
            raise UserError(
                f"{target} exists; to use {path} in its place, run `dvc remove images.dvc` and delete the folder"
            )
        temporary = root / f".{IMAGES}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            for file in folder.scan(path).files:
                copy = temporary / file.path.relative_to(path)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.path, copy)
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    command = [sys.executable, "-m", "dvc", "add", IMAGES]
    with ExitStack() as undo:
        if copied:
            undo.callback(shutil.rmtree, target)
        done = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", errors="replace", check=False)
        if done.returncode:
            message = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
            raise UserError(f"`dvc add {IMAGES}` failed: {message}")
        undo.pop_all()
    yield f"{f'copied to {IMAGES}/, ' if copied else ''}tracked by DVC: {IMAGES}.dvc"


def _idx_files(path: Path) -> dict[str, list[Path]]:
    """Return the IDX files of a folder by the keys of `RawFiles`; nothing if it has folders, or no such name."""
    files: dict[str, list[Path]] = {}
    if any(child.is_dir() and not child.name.startswith(".") for child in path.iterdir()):
        return files
    for file in sorted(path.iterdir()):
        part = re.search(r"train|t10k|test", file.name.lower())
        kind = re.search(r"(images|labels)(?!.*\.(png|jpe?g|webp)$)", file.name.lower())
        if part and kind and file.is_file():
            files.setdefault(f"{'train' if part[0] == 'train' else 'test'}_{kind[1]}", []).append(file)
    return files


def _inspect_idx(path: Path, files: Mapping[str, list[Path]]) -> Found:
    contents: dict[str, bytes] = {}
    fetch = (
        f"fetch:\n  sources: # tried in this order\n    - env:{VARIABLE} # the folder that this environment variable "
        "names\n  timeout: 20 # seconds without a response\n  retries: 1 # per file, after the first attempt\n"
        "  deadline: 1800 # seconds for one source to deliver all files\n"
        "  files: # length in bytes and SHA-256 of the uncompressed files\n"
    )
    for key in RawFiles.model_fields:
        if len(matching := files.get(key, [])) != 1:
            names = ", ".join(file.name for file in matching) or "none"
            raise UserError(
                f"{path}: {names} for {key}, expected one file with train or test (or t10k) and images or labels in "
                "its name, in IDX format, gzipped or not"
            )
        try:
            with matching[0].open("rb") as file:
                stream = gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == b"\x1f\x8b" else file
                content = stream.read(MAX_IDX_BYTES + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{matching[0]}: corrupt ({error})") from error
        if len(content) > MAX_IDX_BYTES:
            raise UserError(f"{matching[0]}: more than {MAX_IDX_BYTES:,} bytes uncompressed, the limit")
        contents[key] = content
        name = json.dumps(matching[0].name.removesuffix(".gz"), ensure_ascii=False)
        digest = hashlib.sha256(content).hexdigest()
        fetch += f"    {key}:\n      name: {name}\n      length: {len(content)}\n      sha256: {digest}\n"
    arrays = {
        key: idx.decode(content, 3 if "images" in key else 1, str(files[key][0])) for key, content in contents.items()
    }
    train, test = (arrays[f"{part}_images"] for part in folder.PARTS)
    if train.shape[1:] != test.shape[1:]:
        raise UserError(f"{path}: training images of {train.shape[1:]} pixels, test images of {test.shape[1:]}")
    counts = {}
    number = int(max(arrays[f"{part}_labels"].max() for part in folder.PARTS)) + 1
    for part in folder.PARTS:
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        if len(images) != len(labels):
            raise UserError(f"{path}: {len(images):,} {part} images, but {len(labels):,} labels")
        counts[part] = np.bincount(labels, minlength=number)
        if not counts[part].all():
            raise UserError(
                f"{path}: no {part} image has the label {counts[part].argmin()}; expected each up to {number - 1}"
            )
    if number < 2 or counts["train"].min() < 2:
        raise UserError(
            f"{path}: expected at least two classes with at least two training images each; the number of classes is "
            f"{number}, and the smallest has {counts['train'].min()} training images"
        )
    height, width = train.shape[1:]
    lines = [
        f"{len(train):,} training and {len(test):,} test images in {number} classes",
        *(f"  {label}: {counts['train'][label]:,} + {counts['test'][label]:,}" for label in range(number)),
        f"all {width} x {height} pixels, greyscale",
        f"{len(train) + len(test) - len({image.tobytes() for part in (train, test) for image in part}):,} "
        "identical to another image",
        "IDX files have no class names; edit dataset.classes in params.yaml",
    ]
    classes = tuple(map(str, range(number)))
    return Found("idx", classes, (height, width, 1), tuple(counts["train"].tolist()), fetch, lines)


def _edited(text: str, found: Found, name: str, flip: bool, in_place: bool) -> str:
    """Return the text of a params.yaml for a data set, with its comments; `in_place` if it is that one's already."""
    yaml = yaml_editor()
    content = yaml.load(text)
    height, width, channels = found.shape
    old = content["dataset"]
    same = found.format == "idx" and old["name"] == name and len(old["classes"]) == len(found.classes)
    classes = tuple(old["classes"]) if same else found.classes
    dataset = (  # JSON texts are YAML
        f"dataset:\n  name: {json.dumps(name, ensure_ascii=False)}\n"
        f"  format: {found.format} # idx, or folder: image files in one folder per class\n"
        f"  height: {height} # pixels\n  width: {width}\n  channels: {channels} # 1 greyscale, 3 RGB\n"
        "  classes: # in the order of the labels, from 0\n"
        + "".join(f"    - {json.dumps(one, ensure_ascii=False)}\n" for one in classes)
    )
    for section in (dataset, found.fetch):
        key = section.partition(":")[0]
        content[key] = yaml.load(section + "\n")[key]  # a section ends with the blank line before the next
    total = sum(found.labelled)
    validation = max(round(VALIDATION_FRACTION * total), len(found.labelled))  # at least one image of each class
    set_value(content["validation"], "images", validation)
    export = content["export"]
    set_value(export, "representative_images", min(export["representative_images"], total - validation))
    if not in_place:
        set_value(export, "preprocessing", "resize")
        set_value(content["review"], "min_accuracy", {})
    side = min(height, width)
    fraction = content["training"]["hard_examples"]["epoch_fraction"]
    batch_size = max(MIN_BATCH_SIZE, int((total - validation) * fraction) // MIN_STEPS)
    for model in (content["training"], *content["models"].values()):
        if "batch_size" in model:
            set_value(model, "batch_size", min(model["batch_size"], batch_size))
        for augmentation in ("augmentation", "test_time_augmentation"):
            for key, value in list(model.get(augmentation, {}).items()):
                set_value(model[augmentation], key, flip if key in ("flip", "mirror") else min(value, side - 1))
        if "filters" in model:
            del model["filters"][side.bit_length() - 1 :]
    yaml.dump(content, stream := StringIO())
    return stream.getvalue()


def _changes(old: dict[str, Any], new: dict[str, Any], place: str = "params.yaml: ") -> Iterator[str]:
    """Yield a line for each value that differs between two sections."""
    for key in old | new:
        before, after = old.get(key), new.get(key)
        if key not in new:
            yield f"{place}{key}: removed"
        elif isinstance(before, dict) and isinstance(after, dict):
            yield from _changes(before, after, f"{place}{key}.")
        elif before != after:
            start = "" if before is None else f"{json.dumps(before, ensure_ascii=False)} -> "
            yield f"{place}{key}: {start}{json.dumps(after, ensure_ascii=False)}"
