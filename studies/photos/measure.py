"""How well pictures other than those of the data set are answered, and other things than clothing are told.

    python -m studies.photos.measure --split validation --others FOLDER/*.webp

Test images are rendered as photographs may show them: enlarged, on other backgrounds, off-centre, coloured, compressed.
Besides, there are the twenty pictures of tests/photos. What is not clothing: noise, digits in several fonts, and what
--others names. It prints accuracy and share of familiar pictures for each kind and model.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fashion.data import dataset
from fashion.errors import run_command
from fashion.serving import preprocessing
from fashion.serving.artifacts import Artifacts
from fashion.serving.classifier import Classifier

PICTURES = Path("tests/photos")
FONTS = sorted(Path(mpl.get_data_path(), "fonts", "ttf").glob("DejaVuS*[!y].ttf"))  # not ...Display, without digits
Render = Callable[[np.ndarray, np.random.Generator], bytes]


def main() -> None:
    """Render, prepare, answer, print."""
    parser = argparse.ArgumentParser(prog="python -m studies.photos.measure", description=__doc__)
    parser.add_argument("--split", choices=["validation", "test"], default="test")
    parser.add_argument("--images", type=int, default=1000, help="of each kind (default: 1000)")
    parser.add_argument(
        "--others", type=Path, nargs="+", default=[], metavar="FILE", help="pictures of what is not clothing"
    )
    args = parser.parse_args()
    artifacts = Artifacts(Path())
    classifiers = {model: Classifier(artifacts, model) for model in ("dnn", "cnn")}
    split = dataset.load(Path("data", f"{args.split}.npz"))
    count = min(args.images, len(split.images))
    split = split.take(np.random.default_rng(1).choice(len(split.images), count, replace=False))
    shape = split.image_shape

    print("| Pictures | " + " | ".join(f"{name.upper()} accuracy | familiar" for name in classifiers) + " |")
    print("|---" * (1 + 2 * len(classifiers)) + "|")
    for name, render in RENDERINGS.items():
        random = np.random.default_rng(2)
        seen = np.stack([preprocessing.prepare(render(image, random), shape) for image in split.images])
        answers = [classifier(seen) for classifier in classifiers.values()]
        cells = [
            f"{(answer.probabilities.argmax(axis=1) == split.labels).mean():.1%} | {answer.familiar.mean():.1%}"
            for answer in answers
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    pictures = sorted(path for path in PICTURES.iterdir() if path.suffix in {".jpg", ".webp"})
    seen = np.stack([preprocessing.prepare(path.read_bytes(), shape) for path in pictures])
    cells = []
    for classifier in classifiers.values():
        answer = classifier(seen)
        kinds = [name.split("/")[0].lower().replace(" ", "-") for name in classifier.classes]
        found = [kinds[label] for label in answer.probabilities.argmax(axis=1)]
        right = sum(path.name.startswith(kind) for path, kind in zip(pictures, found, strict=True))
        cells.append(f"{right} of {len(found)} | {answer.familiar.sum()} of {len(found)}")
    print(f"| {PICTURES} | {' | '.join(cells)} |", flush=True)
    others = {}
    for name, draw in OTHERS.items():
        random = np.random.default_rng(3)
        others[name] = [draw(random, shape) for _ in range(args.images)]
    if args.others:
        others[f"{len(args.others)} other pictures"] = [
            preprocessing.prepare(path.read_bytes(), shape) for path in args.others
        ]
    for name, images in others.items():
        seen = np.stack(images)
        cells = [f"- | {classifier(seen).familiar.mean():.1%}" for classifier in classifiers.values()]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _large(image: np.ndarray, random: np.random.Generator, side: int = 400) -> np.ndarray:
    """Return it enlarged, somewhere on a larger black canvas."""
    large = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
    top, left = random.integers(0, side // 2, 2)
    canvas = np.zeros((side * 3 // 2, side * 3 // 2), np.float32)
    canvas[top : top + side, left : left + side] = large
    return canvas


def _encoded(pixels: np.ndarray, form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, form)
    return file.getvalue()


def _uneven(image: np.ndarray, random: np.random.Generator) -> bytes:
    lit = 255 - _large(image, random)
    return _encoded(lit * np.linspace(0.85, 1, lit.shape[1]), "JPEG")


def _noisy(image: np.ndarray, random: np.random.Generator) -> bytes:
    grey = (255 - _large(image, random)) * 0.88
    return _encoded(grey + random.normal(0, 4, grey.shape), "JPEG")


RENDERINGS: dict[str, Render] = {
    "as they are": lambda image, _: _encoded(image, "PNG"),
    "large, on black": lambda image, random: _encoded(_large(image, random), "PNG"),
    "large, on white": lambda image, random: _encoded(255 - _large(image, random), "PNG"),
    "on grey, noisy, JPEG": _noisy,
    "on white, unevenly lit, JPEG": _uneven,
    "coloured, on white, WebP": lambda image, random: _encoded(
        255 - _large(image, random)[:, :, None] * np.array([0.5, 0.9, 1.0]), "WEBP"
    ),
}


def _digit(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    canvas = Image.new("L", shape[::-1])
    font = ImageFont.truetype(FONTS[random.integers(len(FONTS))], int(random.integers(18, 26)))
    at = (shape[1] / 2 + random.integers(-2, 3), shape[0] / 2 + random.integers(-2, 3))
    ImageDraw.Draw(canvas).text(at, str(random.integers(10)), fill=255, font=font, anchor="mm")
    return np.asarray(canvas)


def _smooth(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    coarse = Image.fromarray(random.integers(0, 256, (7, 7), np.uint8))
    return np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC))


OTHERS: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "digits in several fonts": _digit,
    "noise": lambda random, shape: random.integers(0, 256, shape, np.uint8),
    "smooth noise": _smooth,
}


if __name__ == "__main__":
    run_command(main)
