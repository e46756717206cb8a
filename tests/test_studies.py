"""The studies declare what they do, their variants are valid, and their summaries count right."""

import pandas as pd
import pytest
import yaml

from fashion.params import change, load_params
from studies.ablation import summary
from tests.conftest import ROOT

ABLATION = ROOT / "studies" / "ablation"
VARIANTS = yaml.safe_load((ABLATION / "params.yaml").read_text())["variants"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_changes_the_default(variant: str) -> None:
    default = load_params(ROOT / "params.yaml").cnn
    assert (change(default, VARIANTS[variant]) == default) == (variant == "default")


def test_every_variant_is_trained() -> None:
    pipeline = yaml.safe_load((ABLATION / "dvc.yaml").read_text())
    assert pipeline["stages"]["train"]["matrix"]["variant"] == list(VARIANTS)


def test_the_ablation_is_complete_and_its_readme_says_what_it_found() -> None:
    table = pd.read_csv(ABLATION / "table.csv", index_col="variant")
    assert sorted(table.index) == sorted(VARIANTS)
    assert set(table["seeds"]) == {5}
    assert summary.markdown(table) in (ABLATION / "README.md").read_text()


def test_the_deep_study_changes_the_default() -> None:
    default = load_params(ROOT / "params.yaml").cnn
    assert change(default, yaml.safe_load((ROOT / "studies" / "deep" / "params.yaml").read_text())) != default


def test_variants_are_compared_seed_by_seed() -> None:
    trials = pd.DataFrame(
        [
            ("default", 1, 0.90, 10.0),
            ("default", 2, 0.92, 20.0),
            ("default", 3, 0.91, 10.0),
            ("wide", 1, 0.91, 15.0),
            ("wide", 2, 0.95, 40.0),
            ("half", 3, 0.80, 5.0),
        ],
        columns=["variant", "seed", "accuracy", "seconds"],
    ).assign(parameters=7)
    table = summary.compare(trials)
    assert list(table.index) == ["wide", "default", "half"]
    wide = table.loc["wide"]
    assert wide["seeds"] == 2
    assert wide["points"] == pytest.approx(2)
    assert wide["points_interval"] == pytest.approx(12.706, rel=1e-3)  # t of one degree of freedom, times 1.414 / 1.414
    assert wide["time"] == pytest.approx(1.75)
    assert table.loc["default", "points_interval"] == 0
    assert "| wide | 93.00% | +2.00 ± 12.71 | 1.75 ± 3.18 | 7 |" in summary.markdown(table).splitlines()
    assert summary.draw(table).axes[0].get_xlabel().startswith("validation accuracy")
