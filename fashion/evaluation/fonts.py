"""Fonts for class names in any script.

Matplotlib's own font covers Latin, Greek, Cyrillic, Arabic and Hebrew. The package noto-cjk-sans-otc adds Chinese,
Japanese and Korean. Other scripts need Noto Sans fonts on the machine.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import noto_cjk_sans_otc
from matplotlib.font_manager import findSystemFonts, fontManager, get_font

from fashion.errors import UserError

CJK = "Class names CJK"  # not the font's own name, which an installed font may have


def families() -> list[str]:
    """Return the font families in search order, known to Matplotlib."""
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # hides warnings about fonts without bold
    if CJK not in fontManager.get_font_names():
        path = str(noto_cjk_sans_otc.FONT_PATH)
        fontManager.addfont(path)
        fontManager.ttflist.append(replace(next(font for font in fontManager.ttflist if font.fname == path), name=CJK))
    for path in sorted(findSystemFonts()):  # Matplotlib's cache may be older than a font
        if Path(path).name.startswith("NotoSans") and path not in {font.fname for font in fontManager.ttflist}:
            with suppress(OSError, RuntimeError):  # Matplotlib also skips files that it cannot read
                fontManager.addfont(path)
    noto = {font.name for font in fontManager.ttflist if font.name.startswith("Noto Sans")}
    return ["DejaVu Sans", CJK, *sorted(name for name in noto if "CJK" not in name and "Mono" not in name)]


def check(names: Sequence[str]) -> None:
    """Check that the installed fonts cover the class names.

    Raises:
        UserError: a line for each name with a character that no font has.
    """
    fonts = [get_font(fontManager.findfont(family)) for family in families()]
    problems = []
    for index, name in enumerate(names):
        missing = [character for character in name if not any(font.get_char_index(ord(character)) for font in fonts)]
        if missing:
            characters = ", ".join(f"{character} (U+{ord(character):04X})" for character in dict.fromkeys(missing))
            problems.append(
                f"params.yaml: dataset.classes.{index}: no installed font can draw {characters}; change the name "
                "(and that of its folder) or, for letters, install the Noto Sans font of the script (Debian: "
                "`apt install fonts-noto`)"
            )
    if problems:
        raise UserError("\n".join(problems))
