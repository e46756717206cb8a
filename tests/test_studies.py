"""The studies of seeds, ablations and the deep network: their settings are valid, their summaries are correct."""

from typing import Any

import pandas as pd
import pytest

from fashion import study
from fashion.models import networks
from fashion.params import load_params
from studies.ablation import summary
from tests.conftest import ROOT

PARAMS = load_params(ROOT / "params.yaml")
STUDIES = {
    path.parent.name: study.read(path, PARAMS.models)
    for path in sorted(ROOT.glob("studies/*/params.yaml"))
    if "stages.study" in path.with_name("dvc.yaml").read_text()
}
VARIANTS = [(name, variant) for name, found in STUDIES.items() for variant in found.variants]


def settings(name: str, variant: str) -> dict[str, Any]:
    """Return all params of a variant."""
    changes = dict(STUDIES[name].variants[variant])
    return networks.params_of(changes.pop("model"), PARAMS, changes).model_dump()


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_settings(name: str, variant: str) -> None:
    """They are valid, and no two variants of a study are the same."""
    others = [other for other in STUDIES[name].variants if other != variant]
    assert settings(name, variant) not in [settings(name, other) for other in others]


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
        columns=["variant", "seed", "val_accuracy", "seconds"],
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
