"""Any file is either a picture that the models can see or refused with a reason."""

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from fashion.errors import UserError
from fashion.serving import preprocessing

SHAPE = (28, 28)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def shirt() -> np.ndarray:
    """Return a shape like the data set's: bright on black, as high as the frame, with one dark stripe."""
    picture = np.zeros(SHAPE, np.uint8)
    picture[:, 6:22] = 180
    picture[2:9, 2:26] = 255
    picture[12:15, 6:22] = 60
    return picture


def enlarged(times: int = 12) -> Image.Image:
    return Image.fromarray(shirt()).resize((28 * times, 28 * times), Image.Resampling.BICUBIC)


def on_canvas(image: Image.Image, size: tuple[int, int], at: tuple[int, int], colour: Any) -> Image.Image:
    canvas = Image.new(image.mode, size, colour)
    canvas.paste(image, at)
    return canvas


def close(content: bytes, background: preprocessing.Background | None = None) -> bool:
    """Tell whether it is seen as the shirt, up to what resizing and sharpening change."""
    difference = np.abs(preprocessing.prepare(content, SHAPE, background).astype(float) - shirt())
    return bool(difference.mean() < 12)


NEGATIVE = Image.eval(enlarged(), lambda grey: 255 - grey)
TURNED = Image.Exif()
TURNED[0x0112] = 6  # to be turned by 90 degrees
PHOTOS = Path(__file__).parent / "photos"


def test_a_picture_of_the_right_size_is_taken_as_it_is() -> None:
    np.testing.assert_array_equal(preprocessing.prepare(encoded(Image.fromarray(shirt())), SHAPE), shirt())


def test_and_negated_if_its_border_is_light() -> None:
    content = encoded(Image.fromarray(255 - shirt()))
    np.testing.assert_array_equal(preprocessing.prepare(content, SHAPE), shirt())
    np.testing.assert_array_equal(preprocessing.prepare(content, SHAPE, "dark"), 255 - shirt())


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_forms(form: str) -> None:
    assert close(encoded(NEGATIVE, form))


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
def test_whatever_its_size_place_and_background(image: Image.Image) -> None:
    assert close(encoded(image))


def test_specks_and_noise_do_not_hold_the_trim_open() -> None:
    noise = np.random.default_rng(1)
    picture = np.asarray(on_canvas(NEGATIVE, (600, 600), (120, 100), 235)) + noise.normal(0, 4, (600, 600))
    picture[3:5, 4:6] = 0
    assert close(encoded(Image.fromarray(picture.clip(0, 255).astype(np.uint8)), "JPEG", quality=80))


def test_uneven_light() -> None:
    picture = np.asarray(on_canvas(NEGATIVE, (600, 600), (120, 100), 255)) * np.linspace(0.8, 1, 600)
    assert close(encoded(Image.fromarray(picture.astype(np.uint8))))


def test_cmyk() -> None:
    assert close(encoded(NEGATIVE.convert("CMYK"), "JPEG"))


def test_sixteen_bits() -> None:
    assert close(encoded(Image.fromarray(np.asarray(NEGATIVE).astype(np.uint16) * 257)))


@pytest.mark.parametrize(
    ("image", "background"),
    [
        (NEGATIVE.crop((26, 20, 312, 336)), "light"),  # where clothing is at most of the border
        (enlarged().crop((26, 20, 312, 336)), "dark"),
        (Image.eval(NEGATIVE, lambda grey: 200 - (255 - grey) // 2), "light"),
        (Image.eval(enlarged(), lambda grey: 40 + grey // 2), "dark"),
    ],
)
def test_a_background_that_is_told(image: Image.Image, background: preprocessing.Background) -> None:
    framed = np.asarray(Image.fromarray(shirt()[2:, 2:26]).resize(SHAPE, Image.Resampling.BOX))
    seen = preprocessing.prepare(encoded(image), SHAPE, background)
    expected = framed if image.size[0] < 300 else shirt()
    assert np.abs(seen.astype(float) - expected).mean() < 40
    wrong = preprocessing.prepare(encoded(image), SHAPE, "dark" if background == "light" else "light")
    assert np.abs(wrong.astype(float) - expected).mean() > 60


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_what_is_transparent_is_white(mode: str) -> None:
    image = NEGATIVE.convert(mode)
    image.putalpha(Image.eval(NEGATIVE, lambda grey: 255 if grey < 250 else 0))
    assert close(encoded(image))
    assert close(encoded(image, "WEBP", lossless=True))


def test_what_is_transparent_is_black_where_white_hides_it() -> None:
    white = Image.new("LA", enlarged().size, (255, 0))
    white.putalpha(enlarged())
    assert close(encoded(white), "dark")
    assert close(encoded(white))
    with pytest.raises(UserError, match="nothing to see but background"):
        preprocessing.prepare(encoded(white), SHAPE, "light")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_right_way_up(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(NEGATIVE.crop((0, 0, 300, 200)), exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(np.asarray(preprocessing.read(content)), np.asarray(expected))


@pytest.mark.parametrize("options", [{}, {"dpi": (72, 72)}])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0no TIFF", b"Exif\0\0II*\0"])
def test_damaged_exif_data_do_no_harm(form: str, exif: bytes, options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert close(encoded(NEGATIVE, form, exif=exif, **options))


@pytest.mark.parametrize(
    "path", sorted(PHOTOS.glob("*.jpg")) + sorted(PHOTOS.glob("*.webp")), ids=lambda path: path.stem
)
def test_photographs_and_renderings(path: Path) -> None:
    seen = preprocessing.prepare(path.read_bytes(), SHAPE)
    assert seen.max() > 250
    assert 0.05 < (seen > 0).mean() < 0.95  # of the white shirt on light grey, little but its edges is seen
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    assert max(np.ptp(rows), np.ptp(columns)) >= 26, "an edge fills the frame"


def test_a_photograph_with_another_in_its_file_is_no_animation() -> None:
    assert close(encoded(NEGATIVE.convert("RGB"), "MPO", save_all=True, append_images=[NEGATIVE.convert("RGB")]))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_size(width: int, height: int) -> bytes:
    """Return a small file that claims so many pixels and would decompress to them."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width // 8 + 1) * min(height, 1000)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


SCANS = encoded(NEGATIVE, "JPEG", progressive=True)
WITHOUT_PALETTE = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 40, 8, 3, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(bytes(41 * 40)))
    + chunk(b"IEND", b"")
)
FRAMES = {"save_all": True, "append_images": [enlarged()], "duration": 100}
PNG = encoded(NEGATIVE)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty; PNG, JPEG and WebP are read"),
        (b"a letter to nobody", "not a picture, or in another format; PNG, JPEG and WebP are read"),
        (encoded(NEGATIVE, "GIF"), "not a picture, or in another format"),
        (encoded(NEGATIVE, "TIFF"), "not a picture, or in another format"),
        (PNG[: len(PNG) // 2], "a damaged picture"),
        (encoded(NEGATIVE, "JPEG")[:900], "a damaged picture"),
        (encoded(NEGATIVE, "WEBP")[:-200], "a damaged picture"),
        (encoded(NEGATIVE, "PNG", **FRAMES), "an animation; save one of its frames"),
        (encoded(NEGATIVE, "WEBP", **FRAMES), "an animation; save one of its frames"),
        (encoded(Image.new("L", (1, 1))), "1 x 1 pixels; too small to show anything"),
        (encoded(Image.new("RGB", (300, 200), "white")), "nothing to see but background"),
        (png_of_size(20_000, 20_000), "20,000 x 20,000 pixels; at most 64,000,000 in all and 16,000 a side are read"),
        (png_of_size(16_000, 16_000), "16,000 x 16,000 pixels; at most"),
        (png_of_size(2**31 - 1, 1), "2,147,483,647 x 1 pixels; at most"),
        (WITHOUT_PALETTE, "a damaged picture"),
        (SCANS[:-2] + 200 * SCANS[SCANS.rfind(b"\xff\xda") : -2], "206 scans and Exif parts; at most 100 are read"),
        (bytes(preprocessing.MAX_BYTES + 1), "33,554,433 bytes; at most 33,554,432 are read: make it smaller"),
    ],
)
def test_bad_pictures(content: bytes, says: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError) as caught:
            preprocessing.prepare(content, SHAPE)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


FORMS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True, "exif": TURNED}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
]
SMALL = NEGATIVE.resize((60, 50))
VALID = [encoded(SMALL, form, **options) for form, options in FORMS]
VALID += [encoded(SMALL.convert(mode)) for mode in ("P", "1", "RGBA", "I;16")]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Return a valid file with bytes changed, cut out, doubled, or spliced in from another."""
    content = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        match draw(st.sampled_from(["set", "cut", "double", "splice", "end"])):
            case "set":
                content[at : at + 1] = bytes([draw(st.sampled_from([0, 1, 127, 128, 254, 255]))])
            case "cut":
                del content[at : at + draw(st.integers(1, 40))]
            case "double":
                content[at:at] = content[at : at + draw(st.integers(1, 40))]
            case "splice":
                other = draw(st.sampled_from(VALID))
                start = draw(st.integers(0, len(other)))
                content[at : at + 8] = other[start : start + draw(st.integers(1, 60))]
            case "end":
                del content[at:]
    return bytes(content)


@settings(max_examples=400)
@given(mutated())
def test_damage_is_survived_or_told(content: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            seen = preprocessing.prepare(content, SHAPE)
        except UserError:
            return
    assert (seen.shape, seen.dtype.name) == (SHAPE, "uint8")
