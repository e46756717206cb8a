"""Limits on untrusted YAML: a short text can crash a parser or expand beyond the memory."""

import re

import yaml

from fashion.errors import UserError

MAX_LENGTH = 2**20  # characters
MAX_DEPTH = 100  # of nested lists and mappings; the parsers crash at some 50,000
MAX_NODES = 30_000  # values; text counts one more per 100 characters, an alias as much as its anchor
LONG_NUMBER = re.compile(r"[-+.:\w]{1001,}")  # the time to convert a number grows with the square of its length
CONVERSION_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
"""What PyYAML and ruamel.yaml raise, besides their own errors, for values that do not fit their tags."""


def check_limits(text: str | bytes, name: str) -> None:
    """Check a YAML text before it is loaded; `name` is its name in error messages.

    Raises:
        UserError: it exceeds a limit.
        yaml.YAMLError: it is not YAML.
    """
    if len(text) > MAX_LENGTH:
        raise UserError(f"{name}: {len(text):,} characters of YAML; the limit is {MAX_LENGTH:,}")
    sizes: dict[str, int] = {}  # by anchor
    anchors: list[str | None] = [None]  # of the lists and mappings around an event
    counts = [0]  # of the nodes in each
    for event in yaml.parse(text, yaml.CSafeLoader):
        size = 0
        match event:
            case yaml.CollectionStartEvent():
                anchors.append(event.anchor)
                counts.append(1)
            case yaml.CollectionEndEvent():
                size = counts.pop()
                if anchor := anchors.pop():
                    sizes[anchor] = size
            case yaml.ScalarEvent():
                size = 1 + len(event.value) // 100
                if event.anchor:
                    sizes[event.anchor] = size
                if LONG_NUMBER.search(event.value):
                    raise UserError(f"{name}: a number or word of more than 1,000 characters")
            case yaml.AliasEvent():
                if event.anchor in anchors:
                    raise UserError(f"{name}: the alias *{event.anchor} refers to a list or mapping that contains it")
                size = sizes.get(event.anchor or "", 0)
        counts[-1] += size
        if len(anchors) > MAX_DEPTH + 1:
            raise UserError(f"{name}: lists and mappings nested more than {MAX_DEPTH} deep")
        if counts[-1] > MAX_NODES:
            raise UserError(f"{name}: more than {MAX_NODES:,} values; an alias counts as what it stands for")
