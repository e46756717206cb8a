"""params.yaml: every mistake gives one line that names the key."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from fashion.errors import UserError
from fashion.models import networks
from fashion.params import check_params_fit, load_params
from fashion.validation import parse_settings
from tests.conftest import MODELS, idx_params

TEXT = idx_params()


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        call()
    return str(error.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text(TEXT)
    return tmp_path / "params.yaml"


def problem(path: Path, text: str) -> str:
    path.write_text(text)
    return error_of(lambda: load_params(path))


def edited(key: str, value: str) -> str:
    text, edits = re.subn(rf"(?ms)^(training:.*?^  {key}:)[^\n]*", rf"\1 {value}", TEXT, count=1)
    assert edits == 1
    return text


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("epochs", "many", "should be a valid integer, found 'many'"),
        ("epochs", "8.0", "should be a valid integer, found 8.0"),
        ("epochs", "true", "should be a valid integer, found True"),
        ("epochs", "0", "should be greater than 0, found 0"),
        ("learning_rate", ".inf", "should be less than or equal to 1, found inf"),
        ("learning_rate", "2.5", "should be less than or equal to 1, found 2.5"),
        ("learning_rate", "on", "should be a valid number, found 'on'"),
        ("seed", ".nan", "should be a valid integer, found nan"),
    ],
)
def test_wrong_value(path: Path, key: str, value: str, message: str) -> None:
    lines = problem(path, edited(key, value)).splitlines()
    assert lines == [f"params.yaml: training.{key}: {message}"]


def test_yaml_1_2(path: Path) -> None:
    path.write_text(edited("learning_rate", "1e-3"))
    assert load_params(path).training.learning_rate == 0.001


def test_missing_and_unknown_key(path: Path) -> None:
    lines = problem(path, TEXT.replace("  optimizer:", "  optimiser:")).splitlines()
    assert lines == ["params.yaml: training.optimizer: missing", "params.yaml: training.optimiser: unknown key"]


@pytest.mark.parametrize("model", MODELS)
def test_model_overrides_training(path: Path, model: str) -> None:
    apply_overrides(str(path), [f"+models.{model}.augmentation.cutout=3", f"++models.{model}.epochs=2"])
    params = load_params(path)
    assert params.models[model]["augmentation"] == params.training.augmentation.model_dump() | {"cutout": 3}
    assert params.models[model]["epochs"] == 2
    assert networks.params_of(model, params).augmentation.cutout == 3
    changes = parse_settings(["augmentation.translate=2", "seed=7", "augmentation.cutout=1"])
    changed = networks.params_of(model, params, changes)
    assert (changed.augmentation.translate, changed.augmentation.cutout, changed.seed, changed.epochs) == (2, 1, 7, 2)
    line = error_of(lambda: networks.params_of(model, params, parse_settings(["epochs=0"])))
    assert line == f"models.{model}.epochs: should be greater than 0, found 0"  # not an error in params.yaml


@pytest.mark.parametrize("model", MODELS)
def test_wrong_shared_key_of_a_model(path: Path, model: str) -> None:
    apply_overrides(str(path), [f"++models.{model}.batch_size=-1"])
    line = error_of(lambda: load_params(path))
    assert line == f"params.yaml: models.{model}.batch_size: should be greater than 0, found -1"


@pytest.mark.parametrize("model", MODELS)
def test_wrong_key_of_a_network(path: Path, model: str) -> None:
    apply_overrides(str(path), [f"+models.{model}.layrs=1"])
    params = load_params(path)  # imports no network
    assert error_of(lambda: networks.check(params)) == f"params.yaml: models.{model}.layrs: unknown key"


def test_model_without_a_network(path: Path) -> None:
    params = load_params(path)
    others = dict.fromkeys(("rnn", "layers"), params.models[MODELS[0]])
    assert error_of(lambda: networks.check(params.model_copy(update={"models": others}))).splitlines() == [
        "params.yaml: models.rnn: there is no fashion/models/rnn.py; write it, or remove the section",
        "params.yaml: models.layers: fashion/models/layers.py must define Params and build",
    ]


@pytest.mark.parametrize("setting", ["epochs", "=3", "a..b=1"])
def test_wrong_setting(setting: str) -> None:
    assert error_of(lambda: parse_settings([setting])).startswith(f"{setting}: expected KEY=VALUE")


@pytest.mark.parametrize(
    ("classes", "key", "message"),
    [
        ('["cat", "cat"]', "", "names a class twice, found ['cat', 'cat']"),
        ('["caf\\u00e9", "cafe\\u0301"]', "", "names a class twice, found "),
        ('["cat"]', "", "should name at least two classes, found ['cat']"),
        ('["cat", ""]', ".1", "String should have at least 1 character, found ''"),
        ('["cat", " dog"]', ".1", "should be one line of printable text, without leading or trailing spaces"),
        ('["cat", "big\\ndog"]', ".1", "should be one line of printable text, without leading or trailing spaces"),
        ('["cat", "a</SCRIPT>"]', ".1", "should not contain </script, which would end the page"),
        ('["cat", "dog\\u2028"]', ".1", "should be one line of printable text"),
        ('["cat", "\\e[31mdog"]', ".1", "should be one line of printable text"),
    ],
)
def test_wrong_classes(path: Path, classes: str, key: str, message: str) -> None:
    text = re.sub(r"(?ms)^  classes:.*?^$", lambda _: f"  classes: {classes}\n", TEXT, count=1)
    (line,) = problem(path, text).splitlines()
    assert line.startswith(f"params.yaml: dataset.classes{key}: {message}")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.augmentation.translate=20", "augmentation.translate: 20 pixels can move images of 20 x 24 pixels"),
        ("training.augmentation.cutout=20", "augmentation.cutout: a 20-pixel square is too large for images of 20 x"),
    ],
)
def test_does_not_fit_the_images(path: Path, setting: str, message: str) -> None:
    apply_overrides(str(path), ["export.representative_images=300", setting])
    lines = error_of(lambda: check_params_fit((20, 24, 1), 300, path)).splitlines()
    assert [line[: len(line.partition(message)[0]) + len(message)] for line in lines] == [
        f"params.yaml: models.{model}.{message}" for model in MODELS
    ]


def test_too_many_representative_images(path: Path) -> None:
    apply_overrides(str(path), ["export.representative_images=301"])
    line = error_of(lambda: check_params_fit((20, 24, 1), 300, path))
    assert line == "params.yaml: export.representative_images: 301 exceeds the 300 training images"


def test_preprocessing_of_colour_images(path: Path) -> None:
    line = error_of(lambda: check_params_fit((28, 28, 3), 1000, path))
    assert line == "params.yaml: export.preprocessing: fashion-mnist makes greyscale images; use resize"
    apply_overrides(str(path), ["export.preprocessing=resize"])
    check_params_fit((28, 28, 3), 1000, path)


def test_unknown_section(path: Path) -> None:
    assert problem(path, TEXT + "\nrnn: {}\n") == "params.yaml: rnn: unknown key"


def test_unknown_kind_of_source(path: Path) -> None:
    text = re.sub(r"(?ms)^  sources:.*?^  timeout", "  sources: ['gentoo:cats']\n  timeout", TEXT, count=1)
    assert problem(path, text) == (
        "params.yaml: fetch.sources.0: should be https://.../ (ending in /), debian:PACKAGE or env:VARIABLE, "
        "found 'gentoo:cats'"
    )


def test_duplicate_key(path: Path) -> None:
    assert 'found duplicate key "audit"' in problem(path, TEXT + "\naudit: {}\n")


@pytest.mark.parametrize("text", ["", "- a list", "a: [1", "\0", "a: 2026-13-45"])
def test_no_mapping(path: Path, text: str) -> None:
    assert "params.yaml" in problem(path, text)


def test_missing_file(tmp_path: Path) -> None:
    assert "run this in the project's folder" in error_of(lambda: load_params(tmp_path / "params.yaml"))


def test_set_param(path: Path) -> None:
    """As `dvc exp run --set-param` does."""
    apply_overrides(str(path), ["training.label_smoothing=0.3"])
    assert load_params(path).training.label_smoothing == 0.3
