"""Escape text from outside, such as class names, for Markdown."""

import re


def escape(text: str) -> str:
    """Return `text` escaped for use inside a line, a list item or a table cell."""
    return re.sub(r"([\\`*\[\]<>|~$&]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", " ".join(text.splitlines()))


def code(text: str) -> str:
    """Return `text` as inline code for use outside tables."""
    text = " ".join(text.splitlines()) or '""'
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{text}{space}{fence}"
