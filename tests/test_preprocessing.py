"""Preprocessing of image files: every file gives a model input or a clear error."""

import io
import struct
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from fashion.data import FORMATS, images
from fashion.data.resizing import resize
from fashion.errors import UserError
from fashion.serving import preprocessing

SHAPE = (28, 28, 1)


def encode(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def shirt() -> np.ndarray:
    """Return an image like those of the data set: bright on black, as high as the frame, with a dark stripe."""
    pixels = np.zeros(SHAPE[:2], np.uint8)
    pixels[:, 6:22] = 180
    pixels[2:9, 2:26] = 255
    pixels[12:15, 6:22] = 60
    return pixels


def enlarged(times: int = 12) -> Image.Image:
    return Image.fromarray(shirt()).resize((28 * times, 28 * times), Image.Resampling.BICUBIC)


def on_canvas(image: Image.Image, size: tuple[int, int], position: tuple[int, int], colour: Any) -> Image.Image:
    canvas = Image.new(image.mode, size, colour)
    canvas.paste(image, position)
    return canvas


def preprocessed(content: bytes, background: preprocessing.Background | None = None) -> np.ndarray:
    pixels = preprocessing.preprocess(content, SHAPE, "fashion-mnist", background)
    assert (pixels.shape, pixels.dtype.name) == (SHAPE, "uint8")
    return pixels[..., 0]


def is_shirt(content: bytes, background: preprocessing.Background | None = None) -> bool:
    """Return whether the model input is the shirt, up to the effects of resizing and sharpening."""
    difference = np.abs(preprocessed(content, background).astype(float) - shirt())
    return bool(difference.mean() < 12)


NEGATIVE = Image.eval(enlarged(), lambda grey: 255 - grey)
PNG = encode(NEGATIVE)
ROTATED = Image.Exif()
ROTATED[0x0112] = 6  # by 90 degrees
PHOTOS = Path(__file__).parent / "photos"


def test_right_size() -> None:
    np.testing.assert_array_equal(preprocessed(encode(Image.fromarray(shirt()))), shirt())


def test_right_size_light_background() -> None:
    content = encode(Image.fromarray(255 - shirt()))
    np.testing.assert_array_equal(preprocessed(content), shirt())
    np.testing.assert_array_equal(preprocessed(content, "dark"), 255 - shirt())


@pytest.mark.parametrize("file_format", FORMATS)
def test_formats(file_format: str) -> None:
    assert is_shirt(encode(NEGATIVE, file_format))


@pytest.mark.parametrize(
    "image",
    [
        enlarged(),
        NEGATIVE,
        on_canvas(NEGATIVE, (900, 500), (520, 90), 255),
        on_canvas(enlarged(), (500, 900), (30, 400), 0),
        Image.eval(on_canvas(NEGATIVE, (500, 500), (100, 60), 255), lambda grey: grey * 9 // 10),
        enlarged(60),
        NEGATIVE.convert("RGB"),
        NEGATIVE.convert("CMYK").convert("RGB"),
        NEGATIVE.convert("P"),
    ],
    ids=["dark", "light", "off-centre", "off-centre dark", "grey", "large", "colour", "from CMYK", "palette"],
)
def test_size_position_and_background(image: Image.Image) -> None:
    assert is_shirt(encode(image))


def test_specks_and_noise_are_trimmed() -> None:
    noise = np.random.default_rng(1)
    pixels = np.asarray(on_canvas(NEGATIVE, (600, 600), (120, 100), 235)) + noise.normal(0, 4, (600, 600))
    pixels[3:5, 4:6] = 0
    assert is_shirt(encode(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), "JPEG", quality=80))


def test_uneven_light() -> None:
    pixels = np.asarray(on_canvas(NEGATIVE, (600, 600), (120, 100), 255)) * np.linspace(0.8, 1, 600)
    assert is_shirt(encode(Image.fromarray(pixels.astype(np.uint8))))


def test_overexposed_corner() -> None:
    """A plane through the edges would be brighter than white there."""
    x, y = np.meshgrid(*[np.linspace(-0.5, 0.5, 400)] * 2)
    colours = np.repeat(np.clip(235 - 40 * (x + y), 0, 255)[..., None], 3, axis=2).astype(np.uint8)
    colours[120:300, 140:280] = 20
    rows, columns = np.nonzero(preprocessing._difference(colours, None))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (120, 299, 140, 279)


def test_cmyk() -> None:
    assert is_shirt(encode(NEGATIVE.convert("CMYK"), "JPEG"))


def test_sixteen_bits() -> None:
    assert is_shirt(encode(Image.fromarray(np.asarray(NEGATIVE).astype(np.uint16) * 257)))


@pytest.mark.parametrize(
    ("image", "background"),
    [
        (NEGATIVE.crop((26, 20, 312, 336)), "light"),  # clothing covers most of the border
        (enlarged().crop((26, 20, 312, 336)), "dark"),
        (Image.eval(NEGATIVE, lambda grey: 200 - (255 - grey) // 2), "light"),
        (Image.eval(enlarged(), lambda grey: 40 + grey // 2), "dark"),
    ],
)
def test_background_option(image: Image.Image, background: preprocessing.Background) -> None:
    cropped = np.asarray(Image.fromarray(shirt()[2:, 2:26]).resize(SHAPE[:2], Image.Resampling.BOX))
    pixels = preprocessed(encode(image), background)
    expected = cropped if image.size[0] < 300 else shirt()
    assert np.abs(pixels.astype(float) - expected).mean() < 40
    wrong = preprocessed(encode(image), "dark" if background == "light" else "light")
    assert np.abs(wrong.astype(float) - expected).mean() > 60


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent(mode: str) -> None:
    image = NEGATIVE.convert(mode)
    image.putalpha(Image.eval(NEGATIVE, lambda grey: 255 if grey < 250 else 0))
    assert is_shirt(encode(image))
    assert is_shirt(encode(image, "WEBP", lossless=True))


def test_transparent_white_clothing() -> None:
    white = Image.new("LA", enlarged().size, (255, 0))
    white.putalpha(enlarged())
    assert is_shirt(encode(white), "dark")
    assert is_shirt(encode(white))
    with pytest.raises(UserError, match="only background found"):
        preprocessed(encode(white), "light")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(NEGATIVE.crop((0, 0, 300, 200)), exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(np.asarray(images.decode(content)), np.asarray(expected))


@pytest.mark.parametrize("options", [{}, {"dpi": (72, 72)}])
@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("exif", [b"Exif\0\0no TIFF", b"Exif\0\0II*\0"])
def test_damaged_exif(file_format: str, exif: bytes, options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_shirt(encode(NEGATIVE, file_format, exif=exif, **options))


@pytest.mark.parametrize(
    "path", sorted(PHOTOS.glob("*.jpg")) + sorted(PHOTOS.glob("*.webp")), ids=lambda path: path.stem
)
def test_photos(path: Path) -> None:
    pixels = preprocessed(path.read_bytes())
    assert pixels.max() > 250
    assert 0.05 < (pixels > 0).mean() < 0.95  # a white shirt on light grey leaves little but its edges
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    assert max(np.ptp(rows), np.ptp(columns)) >= 26, "the clothing fills the frame"


@pytest.mark.parametrize("shape", [(20, 24, 1), (20, 24, 3)])
@pytest.mark.parametrize("size", [(24, 20), (240, 200), (600, 200), (50, 300), (12, 10), (9000, 8)])
def test_resize(shape: tuple[int, int, int], size: tuple[int, int]) -> None:
    """The image keeps its aspect ratio, fills the frame in one direction and is centred on black."""
    pixels = preprocessing.preprocess(encode(Image.new("RGB", size, (200, 100, 50))), shape, "resize")
    assert (pixels.shape, pixels.dtype.name) == (shape, "uint8")
    colour = (
        (200, 100, 50) if shape[2] == 3 else (Image.new("RGB", (1, 1), (200, 100, 50)).convert("L").getpixel((0, 0)),)
    )
    filled = (pixels == colour).all(axis=2)
    rows, columns = filled.any(axis=1), filled.any(axis=0)
    scale = min(24 / size[0], 20 / size[1])
    assert (rows.sum(), columns.sum()) == (max(1, round(size[1] * scale)), max(1, round(size[0] * scale)))
    assert (filled == rows[:, None] & columns).all()
    assert (pixels[~filled] == 0).all()
    for side in (rows, columns):
        before, after = np.flatnonzero(side)[0], len(side) - 1 - np.flatnonzero(side)[-1]
        assert 0 <= after - before <= 1


def test_resize_right_size() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    content = encode(Image.fromarray(pixels))
    np.testing.assert_array_equal(preprocessing.preprocess(content, (20, 24, 3), "resize"), pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_resize_as_in_training(channels: int, tmp_path: Path) -> None:
    shape = (20, 24, channels)
    transparent = Image.new("RGBA", (60, 50), (200, 100, 50, 0))
    transparent.paste((200, 100, 50, 255), (10, 10, 40, 40))
    for content in (*VALID, encode(transparent), *(path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg")))):
        (tmp_path / "image").write_bytes(content)
        expected = resize(images.open_image(tmp_path / "image"), shape)
        np.testing.assert_array_equal(preprocessing.preprocess(content, shape, "resize"), expected)


@pytest.mark.parametrize("background", ["light", "dark"])
def test_resize_background(background: preprocessing.Background) -> None:
    with pytest.raises(UserError, match=r"^the model resizes images with any background; do not set the background$"):
        preprocessing.preprocess(PNG, SHAPE, "resize", background)


def test_multi_picture_photo() -> None:
    assert is_shirt(encode(NEGATIVE.convert("RGB"), "MPO", save_all=True, append_images=[NEGATIVE.convert("RGB")]))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_size(width: int, height: int) -> bytes:
    """Return a small file that decompresses to that many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width // 8 + 1) * min(height, 1000)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


SCANS = encode(NEGATIVE, "JPEG", progressive=True)
JPEG = encode(NEGATIVE, "JPEG")
EXIF = b"\xff\xe1\0\x0a" + b"Exif\0\0" + bytes(2)
PROFILE = b"name\0\0" + zlib.compress(bytes(2**20))
WITHOUT_PALETTE = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 40, 8, 3, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(bytes(41 * 40)))
    + chunk(b"IEND", b"")
)
FRAMES = {"save_all": True, "append_images": [enlarged()], "duration": 100}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file; expected a PNG, JPEG or WebP image"),
        (b"some text", "not a PNG, JPEG or WebP image"),
        (encode(NEGATIVE, "GIF"), "not a PNG, JPEG or WebP image"),
        (encode(NEGATIVE, "TIFF"), "not a PNG, JPEG or WebP image"),
        (PNG[: len(PNG) // 2], "damaged image ("),
        (encode(NEGATIVE, "JPEG")[:900], "damaged image ("),
        (encode(NEGATIVE, "WEBP")[:-200], "damaged image ("),
        (encode(NEGATIVE, "PNG", **FRAMES), "animated image; save a single frame"),
        (encode(NEGATIVE, "WEBP", **FRAMES), "animated image; save a single frame"),
        (encode(Image.new("L", (1, 1))), "1 x 1 pixels; the minimum is 8 x 8"),
        (encode(Image.new("RGB", (300, 200), "white")), "only background found"),
        (png_of_size(20_000, 20_000), "20,000 x 20,000 pixels; the limits are 64,000,000 pixels and 16,000 per side"),
        (png_of_size(16_000, 16_000), "16,000 x 16,000 pixels; the limits"),
        (png_of_size(2**31 - 1, 1), "2,147,483,647 x 1 pixels; the limits"),
        (WITHOUT_PALETTE, "damaged image ("),
        (SCANS[:-2] + 200 * SCANS[SCANS.rfind(b"\xff\xda") : -2], "206 scans or blocks of metadata; the limit is 100"),
        (JPEG[:2] + 100 * EXIF + JPEG[2:], "101 scans or blocks of metadata"),
        (PNG[:33] + 101 * chunk(b"iCCP", PROFILE) + PNG[33:], "101 scans or blocks of metadata; the limit is 100"),
        (JPEG[:2] + 10_001 * b"\xff\xfe\0\2" + JPEG[2:], "more than 10,000 segments or chunks, the limit"),
        (PNG[:33] + 10_001 * chunk(b"prIv", b"") + PNG[33:], "more than 10,000 segments or chunks, the limit"),
        (bytes(images.MAX_BYTES + 1), "33,554,433 bytes; the limit is 33,554,432: use a smaller file"),
    ],
)
def test_invalid_files(content: bytes, message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError) as caught:
            preprocessed(content)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True, "exif": ROTATED}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
]
SMALL = NEGATIVE.resize((60, 50))
VALID = [encode(SMALL, file_format, **options) for file_format, options in VARIANTS]
VALID += [encode(SMALL.convert(mode)) for mode in ("P", "1", "RGBA", "I;16")]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Return a valid file with bytes changed, removed, repeated or copied from another file."""
    content = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 6))):
        i = draw(st.integers(0, max(0, len(content) - 1)))
        match draw(st.sampled_from(["set", "remove", "repeat", "copy", "truncate"])):
            case "set":
                content[i : i + 1] = bytes([draw(st.sampled_from([0, 1, 127, 128, 254, 255]))])
            case "remove":
                del content[i : i + draw(st.integers(1, 40))]
            case "repeat":
                content[i:i] = content[i : i + draw(st.integers(1, 40))]
            case "copy":
                other = draw(st.sampled_from(VALID))
                start = draw(st.integers(0, len(other)))
                content[i : i + 8] = other[start : start + draw(st.integers(1, 60))]
            case "truncate":
                del content[i:]
    return bytes(content)


@settings(max_examples=400)
@given(mutated())
def test_fuzzed_files(content: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with suppress(UserError):
            preprocessed(content)
