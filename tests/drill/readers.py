"""The readers that `tests.drill.fuzz` runs, each with valid inputs to start from.

Each imports what it runs, as the import of an instrumented module is slow.
"""

import io
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

Reader = tuple[list[bytes], Callable[[bytes], object]]

CLASSES = ("cat", "a, dog", "NA")
LABELS = b"\0\0\x08\x01"  # the start of an IDX file of labels
NEXT_FILE = b"\n--\n"
LINK = b"-> "
PIPE = b"|"
PHOTOS = Path("tests", "photos")
MODEL = Path("tests", "drill", "model.tflite")  # of a small network for 8 x 8 pixels


def read_idx(scratch: Path) -> Reader:
    """IDX files: the images, then the labels."""
    from fashion.data import idx

    seed = idx.encode(np.arange(96, dtype=np.uint8).reshape(6, 4, 4)) + idx.encode(np.arange(6, dtype=np.uint8) % 3)
    images, labels = scratch / "images", scratch / "labels"

    def read(content: bytes) -> None:
        before, magic, after = content.rpartition(LABELS)
        images.write_bytes(before)
        labels.write_bytes(magic + after)
        idx.read_split(images, labels, len(CLASSES))

    return [seed], read


def read_folder(scratch: Path) -> Reader:
    """A folder: for each file a line with its name, then its content, a link's target or `PIPE`."""
    from fashion.data import folder
    from fashion.data.resizing import resize

    files = [(f"{name}/{number}.png".encode(), _tiny(number)) for name in "ab" for number in range(3)]
    flat = NEXT_FILE.join(name + b"\n" + content for name, content in files)
    split = NEXT_FILE.join(part + name + b"\n" + content for part in (b"train/", b"test/") for name, content in files)
    more = NEXT_FILE.join((flat, b"a/link\n-> ../b/0.png", b"b/.hidden\n", b"a/pipe\n|"))
    root = scratch / "images"

    def read(content: bytes) -> None:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        entries = [entry.partition(b"\n")[::2] for entry in content.split(NEXT_FILE)]
        for name, own in sorted(entries, key=lambda entry: entry[1].startswith((LINK, PIPE))):  # links last
            parts = [part[:200] for part in name.replace(b"\0", b"").split(b"/") if part.strip(b".")]
            path = root.joinpath(*map(os.fsdecode, parts[:8]))
            if not Path(os.path.realpath(path.parent)).is_relative_to(root.resolve()):  # outside, through a link
                continue
            with suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                if own.startswith(LINK):
                    path.symlink_to(os.fsdecode(own.removeprefix(LINK).replace(b"\0", b"")))
                elif own.startswith(PIPE):
                    os.mkfifo(path)
                else:
                    path.write_bytes(own)
        listed = folder.scan(root)
        list(folder.decode_all(listed.files, lambda image: resize(image, (8, 8, 3))))
        folder.draw_test(root, folder.by_hash(listed.files, 0), 0.2)

    return [flat, split, more], read


def read_image(_scratch: Path) -> Reader:
    """An image file, for either method of preprocessing."""
    from PIL import Image

    from fashion.serving import preprocessing

    with Image.open(PHOTOS / "sandal-render.webp") as photo:
        image = photo.convert("RGB").resize((48, 40))
    exif = Image.Exif()
    exif[0x112] = 6  # orientation
    saved = [
        _saved(image, "PNG"),
        _saved(image.quantize(16), "PNG", transparency=0),
        _saved(image.convert("RGBA"), "PNG"),
        _saved(image.convert("I;16"), "PNG"),
        _saved(image, "JPEG", exif=exif),
        _saved(image, "JPEG", progressive=True),
        _saved(image.convert("CMYK"), "JPEG"),
        _saved(image, "MPO", save_all=True, append_images=[image]),
        _saved(image, "WEBP", exif=exif),
        _saved(image.convert("RGBA"), "WEBP", lossless=True),
        _saved(image, "WEBP", save_all=True, append_images=[image.rotate(90)]),
        _saved(image, "GIF"),
        _saved(image, "TIFF"),
    ]

    def read(content: bytes) -> None:
        method = ("fashion-mnist", "resize")[len(content) % 2]
        preprocessing.preprocess(content, (28, 28, 1), method)

    return [seed + bytes(extra) for seed in saved for extra in range(2)], read


def read_params(scratch: Path) -> Reader:
    """params.yaml, for the pipeline and for the exported models."""
    from fashion.dvc import Lock
    from fashion.errors import UserError
    from fashion.params import load_params
    from fashion.serving import classifier

    path = scratch / "params.yaml"
    lock = Lock({})

    def read(content: bytes) -> None:
        path.write_bytes(content)
        with suppress(UserError):
            load_params(path)
        classifier.exported_models(scratch, lock)

    return [Path("params.yaml").read_bytes()], read


def read_lock(_scratch: Path) -> Reader:
    """dvc.lock: its first stages, alone and compared with the original."""
    from fashion.dvc import Lock
    from fashion.evaluation.markdown import escape
    from fashion.review import lock_diff

    stages = re.split(rb"\n(?=  \w)", Path("dvc.lock").read_bytes())
    seed = b"\n".join(stages[:4]) + b"\n"
    original = Lock.parse(seed, "dvc.lock")

    def read(content: bytes) -> None:
        lock = Lock.parse(content, "dvc.lock")
        for path in lock.outputs:
            lock.maker(path)
            lock.upstream(path)
        diff = lock_diff.compare(original, lock)
        "".join(map(escape, (*diff.code, *diff.commands, *diff.outputs, *diff.rerun, *diff.unchanged, *diff.removed)))
        "".join(f"{count:,}" for _, count in lock.folders.values())

    return [seed], read


def read_predictions(_scratch: Path) -> Reader:
    """predictions.csv, with and without probabilities."""
    from fashion.evaluation.predictions import Predictions

    probabilities = np.array([[0.2, 0.5, 0.3], [0.99996, 0.00004, 0.0], [0.12, 0.2, 0.68]], np.float32)
    table = Predictions.of(probabilities, np.array([1, 2, 0], np.uint8), CLASSES).to_csv()
    seeds = [table, "actual,predicted\ncat,cat\ncat,NA\n", table.replace("\n", "\r\n")]
    return [seed.encode() for seed in seeds], lambda content: Predictions.parse(content, CLASSES, "predictions.csv")


def read_trials(scratch: Path) -> Reader:
    """trials.csv, for a review and for the table of results."""
    from fashion.errors import UserError
    from fashion.evaluation import results
    from fashion.review import trials

    header = "variant,model,seed,parameters,inference_flops,val_accuracy,accuracy,seconds,errors\n"
    rows = (
        "cnn,cnn,1,9,7,0.9,0.97,2.5,3 5 9",
        "cnn,cnn,2,9,,0.9,1.0,2.5,",
        "cnn,cnn,3,9,7,0.9,0.98,2.5,1 99",
        "b,b,1,,,,,,",
    )
    path = scratch / "trials.csv"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        with suppress(UserError):
            trials.parse(content, "trials.csv", "base", "cnn", 100)
        list(results.parse_trials(path))

    return [(header + "\n".join(rows) + "\n").encode()], read


def read_array(_scratch: Path) -> Reader:
    """A .npy file of a commit that is reviewed."""
    from fashion.review.snapshot import parse_array

    seeds = []
    for array in (np.arange(6, dtype=np.uint8), np.eye(3, dtype=np.float32), np.zeros((2, 4, 4, 1), np.uint8)):
        np.save(content := io.BytesIO(), array)
        seeds.append(content.getvalue())
    return seeds, lambda content: parse_array(content, "probabilities.npy")


def read_model(scratch: Path) -> Reader:
    """model.tflite or, if it starts as a .npz file does, ood.npz: altered after dvc.lock was written."""
    from fashion.dvc import Lock, md5
    from fashion.export.ood import OODDetector
    from fashion.serving import classifier

    images, labels = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 1), np.uint8), np.arange(9, dtype=np.uint8) % 3
    detector = OODDetector.fit([(images, images[:, 0, :4, 0].astype(np.float32), labels)], 3)
    valid = {"model.tflite": MODEL.read_bytes(), "ood.npz": detector.to_bytes()}
    paths = {name: Path("models", "cnn", name) for name in valid}
    outputs = [{"path": paths[name].as_posix(), "md5": md5(content)} for name, content in valid.items()]
    lock = Lock({"export": {"outs": outputs}})
    (scratch / "models" / "cnn").mkdir(parents=True, exist_ok=True)
    (scratch / "params.yaml").write_text("models: {cnn: {}}\n")

    def read(content: bytes) -> None:
        altered = "ood.npz" if content.startswith(b"PK") else "model.tflite"
        for name, original in valid.items():
            (scratch / paths[name]).write_bytes(content if name == altered else original)
        classifier.Classifier(scratch, lock)

    return list(valid.values()), read


def _tiny(seed: int) -> bytes:
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return _saved(Image.fromarray(pixels), ("PNG", "JPEG", "WEBP")[seed % 3])


def _saved(image: "Image", file_format: str, **options: object) -> bytes:
    image.save(content := io.BytesIO(), file_format, **options)
    return content.getvalue()
