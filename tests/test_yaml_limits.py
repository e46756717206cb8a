"""YAML files beyond the limits, and values that do not fit their tags."""

import pytest

from fashion import yaml_limits
from fashion.dvc import Lock
from fashion.errors import UserError
from fashion.validation import parse_yaml

DEEP = yaml_limits.MAX_DEPTH
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join(10 * [f'*{before}'])}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#" * (yaml_limits.MAX_LENGTH + 1), "1,048,577 characters of YAML; the limit is 1,048,576"),
        ("[" * 100_000, "lists and mappings nested more than 100 deep"),
        (f"{'[' * (DEEP + 1)}{']' * (DEEP + 1)}", "lists and mappings nested more than 100 deep"),
        (BOMB, "more than 30,000 values; an alias counts as what it stands for"),
        (f"a: &a {'x ' * 100_000}\nb: [{', '.join(50 * ['*a'])}]", "more than 30,000 values"),
        ("a: &a [*a]", "the alias *a refers to a list or mapping that contains it"),
        (f"a: 0x{'f' * 1000}", "a number or word of more than 1,000 characters"),
        (f"a: !!int ' 1{500 * ':1'}'", "a number or word of more than 1,000 characters"),  # base 60
    ],
)
def test_limits(text: str, message: str) -> None:
    for read in (lambda: parse_yaml(text, "file"), lambda: Lock.parse(text.encode(), "file")):
        with pytest.raises(UserError) as caught:
            read()
        assert str(caught.value).startswith(f"file: {message}")


def test_within_limits() -> None:
    assert parse_yaml(f"{'[' * DEEP}{']' * DEEP}", "file")
    assert parse_yaml(f"[{'1, ' * 29_000}]", "file") == 29_000 * [1]
    assert parse_yaml("a: &a [1]\nb: *a", "file") == {"a": [1], "b": [1]}


@pytest.mark.parametrize("value", ["!!int ''", "!!bool x", "!!timestamp x", "!!float ''", "{? [a, {b: c}] : 1}", "*a"])
def test_wrong_tags(value: str) -> None:
    with pytest.raises(UserError, match=r"^file is not YAML: "):
        parse_yaml(f"a: {value}", "file")
    with pytest.raises(UserError, match=r"^file cannot be read \("):
        Lock.parse(f"stages: {value}".encode(), "file")
