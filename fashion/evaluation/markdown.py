"""Text that others wrote, such as the names of classes, in Markdown of ours."""

import re


def escape(text: str) -> str:
    """Return `text` so that Markdown shows it as it is, in a line, a list or a table."""
    return re.sub(r"([\\`*_\[\]<>|~$&#])", r"\\\1", " ".join(text.splitlines()))


def code(text: str) -> str:
    """Return `text` as inline code, for a line or a list; a table would need its bars escaped."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{' '.join(text.splitlines())}{space}{fence}"
