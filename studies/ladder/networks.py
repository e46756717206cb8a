"""The networks of the steps, and their training. Ray's workers import this module."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from fashion import trials
from fashion.data.dataset import Split
from fashion.errors import UserError
from fashion.models import cnn, dnn
from fashion.stores import Store
from fashion.trials import Trial
from studies.ladder import plain_cnn, plain_dnn

NETWORKS = {"plain_dnn": plain_dnn, "plain_cnn": plain_cnn, "dnn": dnn, "cnn": cnn}


def load(name: str) -> ModuleType:
    """Return the module of a network.

    Raises:
        UserError: there is no such network.
    """
    if name not in NETWORKS:
        raise UserError(f"network: found {name!r}, expected one of {', '.join(NETWORKS)}")
    return NETWORKS[name]


def train(trial: Trial, splits: Mapping[str, Split], store: Store) -> dict[str, Any]:
    """Train a step and evaluate it, as `fashion.trials.train` does."""
    return trials.train(trial, splits, store, network=load(trial.model))
