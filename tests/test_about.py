"""The description of the data set, data/about.md."""

import sys
from pathlib import Path

import pytest

from fashion.data import about
from fashion.errors import UserError
from fashion.params import load_params
from tests.conftest import FASHION, ROOT, Project

TEXT = about.skeleton("Lines")


def test_of_this_project() -> None:
    found = about.load(ROOT / about.PATH, load_params(ROOT / "params.yaml").dataset.name)
    assert list(found.sections) == list(about.SECTIONS)
    assert all(found.sections.values())


def test_any_order(tmp_path: Path) -> None:
    head, *sections = TEXT.split("## ")
    (tmp_path / "about.md").write_text("## ".join([head, *(f"{section.rstrip()}\n\n" for section in sections[::-1])]))
    found = about.read(tmp_path / "about.md")
    assert found.sections["Licence"] == "TODO: the licences of the images and of the models."
    assert found.sections["Limitations"].startswith("- TODO: images that")
    assert set(found.sections) == set(about.SECTIONS)


def test_windows_line_endings(tmp_path: Path) -> None:
    (tmp_path / "about.md").write_bytes(TEXT.replace("\n", "\r\n").encode())
    assert about.load(tmp_path / "about.md", "Lines").sections["Data"].startswith("TODO: what the images show")


NO_HEADER = "no header; expected YAML between two `---` lines at the top"
EXPECTED = "expected Intended use, Data, Limitations, Licence, each exactly once"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("---\nname", "name", f": {NO_HEADER}"),
        ("\n---\n", "\n", f": {NO_HEADER}"),
        ("tags: []", "tags: [", ": the header is not YAML: while parsing"),
        ("tags: []\n", "", ": tags: missing"),
        ("tags: []", "tags: lines", ": tags: should be a valid tuple, found 'lines'"),
        ("license: unknown", "license: [mit]", ": license: should be a valid string, found ['mit']"),
        ('"Lines"', "", ": name: should be a valid string, found None"),
        ('"Lines"', "Other", ": describes 'Other', but dataset.name in params.yaml is 'Lines'; correct"),
        ("## Data", "## Dato", f": found the sections Intended use, Limitations, Licence; {EXPECTED}"),
        ("## Data", "## Licence", f": found the sections Intended use, Licence, Limitations, Licence; {EXPECTED}"),
        ("## ", "# ", f": found the sections none; {EXPECTED}"),
        (
            "## Intended",
            "lost text\n\n## Intended",
            ": text before the first section, Intended use; move it into a section",
        ),
    ],
)
def test_malformed(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "about.md"
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(UserError) as error:
        about.load(path, "Lines")
    assert str(error.value).startswith(f"{path}{message}")
    assert "\n" not in str(error.value)


def test_stage(copied: Project) -> None:
    """A malformed file stops the card stage, and stops `make` before any stage runs."""
    path = copied.folder / about.PATH
    path.write_text(TEXT.replace("license: unknown", "licence: mit"))
    files = ("reports/audit.json", str(about.PATH), "card.md")
    for command in ([sys.executable, "-m", "stages.card", *files], [*FASHION, "run"]):
        done = copied.run(*command, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "error: data/about.md: license: missing\n"
    assert not (copied.folder / "card.md").exists()
    path.unlink()
    done = copied.run(*FASHION, "run", check=False)
    assert done.stderr == "error: data/about.md is missing; restore it from Git, or run `fashion dataset PATH`\n"
