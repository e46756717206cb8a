"""The studies of seeds, ablations and the deep network: their settings are valid, their summaries are correct."""

from typing import Any

import pandas as pd
import pytest

from benchmarks import deep
from fashion.models import networks
from fashion.params import load_params
from fashion.validation import read_yaml
from studies.ablation import summary
from tests.conftest import ROOT

PARAMS = load_params(ROOT / "params.yaml")
ABLATION = ROOT / "studies" / "ablation"
STUDY = read_yaml(ABLATION / "params.yaml")


def settings(changes: dict[str, Any]) -> dict[str, Any]:
    return networks.params_of("cnn", PARAMS, changes).model_dump()


@pytest.mark.parametrize("variant", STUDY["variants"])
def test_variant(variant: str) -> None:
    assert (settings(STUDY["variants"][variant]) == settings({})) == (variant == "default")


def test_settings_of_all_variants() -> None:
    assert settings(STUDY["all"]) != settings({})


def test_settings_of_deep() -> None:
    assert settings(deep.settings(ROOT / "studies" / "deep" / "dvc.yaml")) != settings({})


def test_all_variants_are_trained() -> None:
    stages = read_yaml(ABLATION / "dvc.yaml")["stages"]
    assert stages["train"]["matrix"]["variant"] == list(STUDY["variants"])


def test_seeds_evaluates_all_trained_models() -> None:
    stages = read_yaml(ROOT / "studies" / "seeds" / "dvc.yaml")["stages"]
    assert set(stages) == {"evaluate", *(f"train_{model}" for model in stages["evaluate"]["matrix"]["model"])}


def test_comparison_seed_by_seed() -> None:
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
    assert wide["points_interval"] == pytest.approx(12.706, rel=1e-3)  # Student's t with one degree of freedom
    assert wide["time"] == pytest.approx(1.75)
    assert table.loc["default", "points_interval"] == 0
    assert "| wide | 93.00% | +2.00 ± 12.71 | 1.75 ± 3.18 | 7 |" in summary.markdown(table).splitlines()
    assert summary.draw(table).axes[0].get_xlabel().startswith("validation accuracy")
