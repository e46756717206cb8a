"""The commands of docs/extend.md that rename the package and the command."""

import re

import pytest

from tests.conftest import ROOT, Project

(COMMANDS,) = re.findall(r"```sh\n(export name=.*?)```", (ROOT / "docs" / "extend.md").read_text(), re.S)
FAST = ("tests/test_params.py", "tests/test_idx.py", "tests/test_markdown.py", "tests/test_commands.py::test_help")


@pytest.mark.slow
def test_renaming(copied: Project) -> None:
    commands, last = COMMANDS.removesuffix("\n").rsplit("\n", 1)
    assert last == "make format && make deps && make"  # their programs are run below: `make` would install .venv
    copied.run("sh", "-euc", commands)
    for options in (["check", "--fix"], ["format"], ["check"], ["format", "--check"]):
        copied.run("ruff", *options)
    new = re.findall(r"name=(\w+)", commands)[0]
    found = copied.run("git", "grep", "-Iih", "fashion", "--", ".", ":!LICENSE", ":!*.lock").stdout.splitlines()
    assert [line for line in found if re.search(r"fashion(?![-_]mnist)", line, re.I)] == []
    copied.run("python", "-m", f"{new}.dvc_deps")
    assert copied.run("python", "-m", f"{new}.dvc_deps").stdout == ""
    copied.run("lint-imports", "--no-logo")
    assert copied.run("python", "-m", f"{new}.cli", "--help").stdout.startswith(f"usage: {new} ")
    copied.run("python", "-m", "pytest", "-q", *FAST)
    assert not (copied.folder / "fashion").exists()
