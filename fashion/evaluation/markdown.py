"""Escape text from outside, such as class names, for Markdown."""

import re


def escape(text: str) -> str:
    """Return `text` escaped for use inside a line, a list item or a table cell."""
    return re.sub(r"([\\`*\[\]<>|~$&]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", _one_line(text))


def code(text: str) -> str:
    """Return `text` as inline code for use outside tables."""
    text = _one_line(text) or '""'
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{text}{space}{fence}"


def _one_line(text: str) -> str:
    """Return `text` on one line, without lone surrogates and control characters, which a terminal would obey."""
    line = " ".join(text.splitlines())
    return re.sub(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", line)
