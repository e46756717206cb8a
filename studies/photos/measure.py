"""Accuracy on photos of clothing, and out-of-distribution detection on other images.

    python -m studies.photos.measure --split validation --others FOLDER/*.webp

Test images are rendered as in photos: enlarged, on other backgrounds, off-centre, coloured, compressed. The photos in
tests/photos are measured too. Images out of distribution are noise, digits in several fonts, and those of --others.
Prints a table of each model's accuracy and its fraction of images in distribution.
"""

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fashion.data import dataset
from fashion.dvc import Lock
from fashion.errors import run_command
from fashion.serving.classifier import Classifier, exported_models
from fashion.serving.preprocessing import preprocess

PHOTOS = Path("tests/photos")
FONTS = sorted(
    Path(mpl.get_data_path(), "fonts", "ttf").glob("DejaVuS*[!y].ttf")
)  # not ...Display, which has no digits
Render = Callable[[np.ndarray, np.random.Generator], bytes]


def main() -> None:
    """Render, preprocess, predict and print the table."""
    parser = argparse.ArgumentParser(prog="python -m studies.photos.measure", description=__doc__)
    parser.add_argument("--split", choices=["validation", "test"], default="test")
    parser.add_argument("--images", type=int, default=1000, help="images of each kind (default: 1000)")
    parser.add_argument(
        "--others", type=Path, nargs="+", default=[], metavar="FILE", help="image files of anything but clothing"
    )
    args = parser.parse_args()
    root = Path()
    lock = Lock.read(root)
    classifiers = {model: Classifier(root, lock, model) for model in exported_models(root, lock)}
    split = dataset.load(Path("data", args.split))
    count = min(args.images, len(split.images))
    split = split.take(np.random.default_rng(1).choice(len(split.images), count, replace=False))
    first = next(iter(classifiers.values()))
    shape, method = split.image_shape, first.preprocessing

    def print_row(name: str, images: Sequence[dataset.Image], labels: np.ndarray | None = None) -> None:
        cells = []
        for classifier in classifiers.values():
            predictions = classifier(np.stack(images))
            accuracy = "-" if labels is None else f"{(predictions.probabilities.argmax(axis=1) == labels).mean():.1%}"
            cells += [accuracy, f"{predictions.in_distribution.mean():.1%}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)

    print("| Images | " + " | ".join(f"{name.upper()} accuracy | in distribution" for name in classifiers) + " |")
    print("|---" * (1 + 2 * len(classifiers)) + "|")
    for name, render in RENDERINGS.items():
        random = np.random.default_rng(2)
        print_row(
            name, [preprocess(render(image[..., 0], random), shape, method) for image in split.images], split.labels
        )
    paths = sorted(path for path in PHOTOS.iterdir() if path.suffix in {".jpg", ".webp"})
    print_row(
        f"{PHOTOS} ({len(paths)} images)",
        [preprocess(path.read_bytes(), shape, method) for path in paths],
        np.array([_label(path, first.classes) for path in paths]),
    )
    for name, draw in OTHERS.items():
        random = np.random.default_rng(3)
        print_row(name, [draw(random, shape) for _ in range(args.images)])
    if args.others:
        print_row(
            f"{len(args.others)} other images", [preprocess(path.read_bytes(), shape, method) for path in args.others]
        )


def _label(path: Path, classes: Sequence[str]) -> int:
    """Return the class that the name of a photo starts with."""
    names = [name.split("/")[0].lower().replace(" ", "-") for name in classes]
    return next(label for label, name in enumerate(names) if path.name.startswith(name))


def _large(image: np.ndarray, random: np.random.Generator, side: int = 400) -> np.ndarray:
    """Return the image enlarged, at a random position on a black canvas."""
    large = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
    top, left = random.integers(0, side // 2, 2)
    canvas = np.zeros((side * 3 // 2, side * 3 // 2), np.float32)
    canvas[top : top + side, left : left + side] = large
    return canvas


def _encode(pixels: np.ndarray, file_format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, file_format)
    return file.getvalue()


def _unevenly_lit(image: np.ndarray, random: np.random.Generator) -> bytes:
    lit = 255 - _large(image, random)
    return _encode(lit * np.linspace(0.85, 1, lit.shape[1]), "JPEG")


def _noisy(image: np.ndarray, random: np.random.Generator) -> bytes:
    grey = (255 - _large(image, random)) * 0.88
    return _encode(grey + random.normal(0, 4, grey.shape), "JPEG")


RENDERINGS: dict[str, Render] = {
    "unchanged": lambda image, _: _encode(image, "PNG"),
    "large, on black": lambda image, random: _encode(_large(image, random), "PNG"),
    "large, on white": lambda image, random: _encode(255 - _large(image, random), "PNG"),
    "on grey, noisy, JPEG": _noisy,
    "on white, unevenly lit, JPEG": _unevenly_lit,
    "coloured, on white, WebP": lambda image, random: _encode(
        255 - _large(image, random)[:, :, None] * np.array([0.5, 0.9, 1.0]), "WEBP"
    ),
}


def _digit(random: np.random.Generator, shape: dataset.Shape) -> dataset.Image:
    canvas = Image.new("L", shape[1::-1])
    font = ImageFont.truetype(FONTS[random.integers(len(FONTS))], int(random.integers(18, 26)))
    centre = (shape[1] / 2 + random.integers(-2, 3), shape[0] / 2 + random.integers(-2, 3))
    ImageDraw.Draw(canvas).text(centre, str(random.integers(10)), fill=255, font=font, anchor="mm")
    return np.asarray(canvas)[..., None]


def _smooth(random: np.random.Generator, shape: dataset.Shape) -> dataset.Image:
    coarse = Image.fromarray(random.integers(0, 256, (7, 7), np.uint8))
    return np.asarray(coarse.resize(shape[1::-1], Image.Resampling.BICUBIC))[..., None]


OTHERS: dict[str, Callable[[np.random.Generator, dataset.Shape], dataset.Image]] = {
    "digits in several fonts": _digit,
    "noise": lambda random, shape: random.integers(0, 256, shape, np.uint8),
    "smooth noise": _smooth,
}


if __name__ == "__main__":
    run_command(main)
