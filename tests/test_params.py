"""Every mistake in params.yaml gets one clear line that names the key."""

import re
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from fashion.errors import UserError
from fashion.params import check_params_fit, load_params
from tests.conftest import ROOT

TEXT = (ROOT / "params.yaml").read_text()
ADVICE = "; write it so that both agree (a number as 0.001 or 1.0e-3, a text in quotes, true or false)"


def problem(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> str:
    monkeypatch.chdir(folder)
    Path("params.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        load_params()
    return str(error.value)


def edited(section: str, key: str, value: str) -> str:
    text, edits = re.subn(rf"(?ms)^({section}:$.*?^  {key}:)[^\n]*", rf"\1 {value}", TEXT, count=1)
    assert edits == 1
    return text


def test_the_projects_own_params_are_read() -> None:
    assert load_params(ROOT / "params.yaml").dataset.name in TEXT


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("epochs", "many", "should be a valid integer, found 'many'"),
        ("epochs", "8.0", "should be a valid integer, found 8.0"),
        ("epochs", "true", "should be a valid integer, found True"),
        ("epochs", "0", "should be greater than 0, found 0"),
        ("learning_rate", ".inf", "should be less than or equal to 1, found inf"),
        ("learning_rate", "2.5", "should be less than or equal to 1, found 2.5"),
        ("learning_rate", "1e-3", f"PyYAML reads '1e-3' and DVC reads 0.001{ADVICE}"),
        ("learning_rate", "on", f"PyYAML reads True and DVC reads 'on'{ADVICE}"),
        ("seed", "0777", f"PyYAML reads 511 and DVC reads 777{ADVICE}"),
        ("seed", ".nan", "should be a valid integer, found nan"),
        ("hidden_units", "64", "should be a valid tuple, found 64"),
        ("hidden_units", "['8']", "should be a valid integer, found '8'"),
        ("hidden_units", "[65537]", "should be less than or equal to 65536, found 65537"),
    ],
)
def test_a_wrong_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str, value: str, says: str) -> None:
    assert (
        problem(monkeypatch, tmp_path, edited("dnn", key, value))
        == f"params.yaml: dnn.{key}{'.0' * ('[' in value)}: {says}"
    )


def test_a_wrong_value_in_a_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = problem(monkeypatch, tmp_path, edited("cnn", "filters", "[8, -1]"))
    assert line == "params.yaml: cnn.filters.1: should be greater than 0, found -1"


def test_a_missing_and_an_unknown_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = problem(monkeypatch, tmp_path, TEXT.replace("hidden_units:", "hiden_units:")).splitlines()
    assert lines == ["params.yaml: dnn.hidden_units: missing", "params.yaml: dnn.hiden_units: unknown key"]


@pytest.mark.parametrize(
    ("classes", "key", "says"),
    [
        ('["cat", "cat"]', "", "names a class twice, found ['cat', 'cat']"),
        ('["caf\\u00e9", "cafe\\u0301"]', "", "names a class twice, found "),
        ('["cat"]', "", "should name at least two classes, found ['cat']"),
        ('["cat", ""]', ".1", "String should have at least 1 character, found ''"),
        (
            '["cat", " dog"]',
            ".1",
            "should be one line of printable text, without leading or trailing spaces, found ' dog'",
        ),
        (
            '["cat", "big\\ndog"]',
            ".1",
            "should be one line of printable text, without leading or trailing spaces, found 'big\\ndog'",
        ),
        (
            '["cat", "a</SCRIPT>"]',
            ".1",
            "should not contain </script, which would end the page that `dvc plots` writes",
        ),
        ('["cat", "dog\\u2028"]', ".1", "should be one line of printable text"),
        ('["cat", "\\e[31mdog"]', ".1", "should be one line of printable text"),
    ],
)
def test_wrong_classes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, classes: str, key: str, says: str) -> None:
    text = re.sub(r"(?ms)^  classes:.*?^$", lambda _: f"  classes: {classes}\n", TEXT, count=1)
    (line,) = problem(monkeypatch, tmp_path, text).splitlines()
    assert line.startswith(f"params.yaml: dataset.classes{key}: {says}")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("dnn.augmentation.shift=20", "dnn.augmentation.shift: 20 pixels can move images of 20 x 24 pixels out of"),
        ("cnn.augmentation.cutout=20", "cnn.augmentation.cutout: a 20-pixel square is too large for images of 20 x 24"),
        ("cnn.filters=[8,8,8,8,8]", "cnn.filters: images of 20 x 24 pixels are too small for 5 blocks"),
        ("export.representative_images=301", "export.representative_images: 301 exceeds the 300 training images"),
    ],
)
def test_a_value_that_does_not_fit_the_data(tmp_path: Path, change: str, says: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT)
    apply_overrides(str(path), ["export.representative_images=300", change])
    with pytest.raises(UserError) as error:
        check_params_fit((20, 24), 300, path)
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"params.yaml: {says}")


def test_images_smaller_than_a_patch(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(TEXT)
    with pytest.raises(UserError) as error:
        check_params_fit((2, 2), 55_000, tmp_path / "params.yaml")
    assert [line.split(": ")[1] for line in str(error.value).splitlines()] == ["cnn.filters", "cnn.whitening"]


def test_the_projects_own_params_fit_its_data() -> None:
    check_params_fit((28, 28), 55_000, ROOT / "params.yaml")


def test_a_key_that_is_read_differently(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = problem(monkeypatch, tmp_path, TEXT.replace("audit:", "audit:\n  on: 1"))
    assert line == f"params.yaml: audit.True: PyYAML reads True and DVC reads 'another key'{ADVICE}"


def test_an_unknown_section(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert problem(monkeypatch, tmp_path, TEXT + "\nrnn: {}\n") == "params.yaml: rnn: unknown key"


def test_an_address_of_no_known_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = re.sub(r"(?ms)^  sources:.*?^  timeout", "  sources: ['gentoo:cats']\n  timeout", TEXT, count=1)
    assert problem(monkeypatch, tmp_path, text) == (
        "params.yaml: fetch.sources.0: should be https://.../ (ending in /), debian:PACKAGE or env:VARIABLE, "
        "found 'gentoo:cats'"
    )


def test_a_key_given_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert 'found duplicate key "dnn"' in problem(monkeypatch, tmp_path, TEXT + "\ndnn: {}\n")


@pytest.mark.parametrize("text", ["", "- a list", "a: [1", "\0", "a: 2026-13-45"])
def test_what_is_no_mapping(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    assert "params.yaml" in problem(monkeypatch, tmp_path, text)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        load_params(tmp_path / "params.yaml")


def test_a_key_named_by_the_review_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = problem(monkeypatch, tmp_path, TEXT.replace("classes: dataset.classes", "classes: dataset.cats"))
    assert line == "params.yaml: review.classes: should be a valid tuple, found 'dataset.cats'"


def test_experiments_can_set_params(tmp_path: Path) -> None:
    """As `dvc exp run --set-param` does."""
    (tmp_path / "params.yaml").write_text(TEXT)
    apply_overrides(str(tmp_path / "params.yaml"), ["dnn.epochs=3"])
    changed, params = load_params(tmp_path / "params.yaml"), load_params(ROOT / "params.yaml")
    assert changed == params.model_copy(update={"dnn": params.dnn.model_copy(update={"epochs": 3})})
