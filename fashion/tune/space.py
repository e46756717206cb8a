"""What a search varies: the section tune.MODEL of params.yaml; and the result of each trial."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fashion.data.dataset import Shape
from fashion.errors import UserError
from fashion.models import networks, training
from fashion.params import Params, Range, TrainingParams
from fashion.validation import look_up, merged, parse_settings, raise_problems, validated

CURRENT = 0  # number of the configuration in params.yaml

Values = Mapping[str, Any]
"""A configuration: the values of the searched params, by dotted key such as augmentation.translate."""


@dataclass(frozen=True)
class Result:
    """The result of a trial.

    Attributes:
        number: number of the trial that proposed the configuration, from 1; `CURRENT` for that of params.yaml.
        values: the configuration.
        seed: seed of the training.
        outcome: finished, stopped early or diverged.
        val_accuracy: validation accuracy at the end, with test-time augmentation; 0 if the training diverged.
        epochs: number of epochs trained.
        seconds: processor time, summed over threads.
        progress: after each epoch but the last, the percentage of the training done, and the validation accuracy
            without test-time augmentation.
    """

    number: int
    values: Values
    seed: int
    outcome: str
    val_accuracy: float
    epochs: int
    seconds: float
    progress: list[list[float]]


@dataclass(frozen=True)
class Space:
    """The search space.

    Attributes:
        model: name of the model.
        params: the whole of params.yaml.
        domains: the range or the choices of each param to search, by dotted key.
        current: the value of each in params.yaml.
    """

    model: str
    params: Params
    domains: Mapping[str, Range | list[Any]]
    current: Values

    def settings(self, values: Values, **changes: Any) -> TrainingParams:
        """Return all params of a training run with this configuration."""
        return networks.params_of(self.model, self.params, {**nested(values), **changes})

    def changes(self, values: Values) -> dict[str, Any]:
        """Return the values that differ from those in params.yaml."""
        return {key: value for key, value in values.items() if value != self.current[key]}

    def describe(self, values: Values) -> str:
        """Return on one line the values that differ from those in params.yaml."""
        changes = [f"{key} {json.dumps(value)}" for key, value in self.changes(values).items()]
        return ", ".join(changes) or "the current params"


def load(model: str, params: Params, image_shape: Shape) -> Space:
    """Return the space that tune.MODEL declares.

    Args:
        model: its name.
        params: the whole of params.yaml.
        image_shape: height and width of the images, in pixels, and their number of channels.

    Raises:
        UserError: the model or its section is missing; or, one line each, a key is unknown, or its range or choices are
            invalid or exclude the current value.
    """
    settings = networks.params_of(model, params)
    raise_problems(f"params.yaml: models.{model}.{line}" for line in settings.image_problems(image_shape))
    if not (domains := params.tune.get(model)):
        raise UserError(
            f"params.yaml has no section tune.{model}; declare there what to search, such as "
            "learning_rate: {min: 0.01, max: 0.1, log: true}"
        )
    all_values, current, problems = settings.model_dump(mode="json"), {}, []
    for key, domain in domains.items():
        section = f"params.yaml: tune.{model}"
        wrong: list[str] = []
        for value in (domain.min, domain.max) if isinstance(domain, Range) else domain:
            try:
                changed = validated(type(settings), merged(all_values, nested({key: value})), section, separator=".")
            except UserError as error:
                wrong += str(error).splitlines()
            else:
                wrong += [f"{section}.{line}" for line in changed.image_problems(image_shape)]
        if key == "seed":
            wrong = [f"{section}.seed: the best seed would win by chance; remove it"]
        if not wrong:
            current[key] = value = look_up(all_values, key)
            if not (domain.min <= value <= domain.max if isinstance(domain, Range) else value in domain):
                wrong.append(
                    f"{section}.{key}: excludes the current value of models.{model}.{key}, {json.dumps(value)}; "
                    "extend the range or the choices"
                )
        problems += wrong
    raise_problems(dict.fromkeys(problems))
    if "precision" not in domains:
        own = {**params.models[model], "precision": training.fix_precision(settings).precision}
        params = params.model_copy(update={"models": {**params.models, model: own}})
    return Space(model, params, domains, current)


def nested(values: Values) -> dict[str, Any]:
    """Return values by dotted key as a nested mapping."""
    return parse_settings(f"{key}={json.dumps(value)}" for key, value in values.items())
