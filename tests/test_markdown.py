"""Markdown shows any class name unchanged."""

import html
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fashion.evaluation.markdown import code, escape
from tests.conftest import CLASSES

RENDERER = MarkdownIt("commonmark").enable("table")
names = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1).filter(
    lambda name: name == name.strip()
)


def text_of(page: str, tag: str) -> str:
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return html.unescape(str(content))


@given(names)
@example(CLASSES[0])
@example(CLASSES[1])
@example(CLASSES[2])
def test_in_a_table(name: str) -> None:
    assert text_of(RENDERER.render(f"| name |\n|---|\n| {escape(name)} |\n"), "td") == name


@given(names)
def test_in_a_list(name: str) -> None:
    assert text_of(RENDERER.render(f"- name: {escape(name)}\n"), "li") == f"name: {name}"


@given(names)
@example("a `b` ``c``")
@example("`")
def test_as_code(name: str) -> None:
    assert text_of(RENDERER.render(f"- params: {code(name)}\n"), "code") == name


@pytest.mark.parametrize("name", ["T-shirt/top", "Ankle boot", "Кот", "水平"])
def test_names_without_markup(name: str) -> None:
    assert escape(name) == name
