"""The section `review` of params.yaml: which models a review compares, and when its gate fails."""

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from fashion.params import Bins, Classes
from fashion.review.revision import Revision
from fashion.validation import Name, StrictModel, matches, parse_yaml, raise_problems, validated

ModelName = Annotated[str, matches("[A-Za-z0-9_.-]+", "letters, digits, _, . and -")]
# As in dvc.lock: data/test, not ./data/test/
OutputPath = Annotated[Name, AfterValidator(lambda path: str(PurePosixPath(path)))]


class ReviewedModel(StrictModel):
    """The files of one model, relative to the project's folder.

    Attributes:
        predictions: .csv, a row per test example, as `fashion.evaluation.predictions.Predictions.to_csv` writes it; or
            .npy, (n, classes), probabilities.
        metrics: .json, used where the predictions are missing.
        history: .csv, a row per epoch with the columns epoch and val_accuracy; None if there is none.
        seeds: .csv, the output of a study that trains the model with several seeds: a row per trial with the columns
            variant (the model), seed, accuracy and errors (indices of the misclassified test examples, separated by
            spaces); None if there is none.
    """

    predictions: OutputPath
    metrics: OutputPath
    history: OutputPath | None = None
    seeds: OutputPath | None = None


class Rules(StrictModel):
    """What a review compares, and when its gate fails.

    Attributes:
        base_branch: the branch that changes are compared with.
        test_set: an output; if it is a folder, it may have images.npy, (n, height, width, channels), and labels.npy,
            (n,), which predictions in the .npy format need.
        significance: level of the tests of accuracy, after Holm's correction.
        judge: what the gate compares: the models of the two revisions, or their recipes, that is the mean accuracies
            of training runs with several seeds.
        min_accuracy: minimum test accuracy by model; optional per model.
        waivers: why a regression of a model is accepted, by model; it counts only in the change that writes it.
        models: files by model.
        classes: names of the classes, in the order of the labels.
        calibration_bins: number of bins of the calibration error.
    """

    base_branch: Name
    test_set: OutputPath
    significance: Annotated[float, Field(gt=0, lt=1)]
    judge: Literal["model", "recipe"] = "model"
    min_accuracy: dict[ModelName, Annotated[float, Field(ge=0, le=1)]]
    waivers: dict[ModelName, Name] = Field({})
    models: Annotated[dict[ModelName, ReviewedModel], Field(max_length=20)]
    classes: Classes
    calibration_bins: Bins

    @property
    def files(self) -> list[str]:
        """The outputs that a review needs of each revision."""
        predictions = [model.predictions for model in self.models.values()]
        return [*([self.test_set] if any(path.endswith(".npy") for path in predictions) else []), *predictions]


def load_rules(revision: Revision) -> Rules | None:
    """Read the rules of a revision; None if it has no params.yaml or no section `review`.

    A project with the sections `models`, `dataset` and `evaluation` need not repeat its models, class names and
    calibration bins in `review`.

    Raises:
        UserError: params.yaml is not YAML, or one line per key that is unknown, missing, of the wrong type or out of
            bounds.
    """
    content, name = revision.file("params.yaml"), f"params.yaml of {revision.name}"
    params = None if content is None else parse_yaml(content.decode(errors="replace"), name)
    if not isinstance(params, dict) or "review" not in params:
        return None
    section = params["review"]
    if isinstance(section, dict):
        section = {**_defaults(params, revision), **section}
    rules = validated(Rules, section, f"{name}: review", separator=".")
    raise_problems(
        f"{name}: review.min_accuracy.{model}: no such model; expected one of {', '.join(rules.models) or 'none'}"
        for model in rules.min_accuracy
        if model not in rules.models
    )
    return rules


def _defaults(params: dict[str, Any], revision: Revision) -> dict[str, Any]:
    """Return the defaults taken from other sections of params.yaml.

    Commits older than predictions.csv have probabilities.npy instead.
    """
    models = params.get("models")
    if not isinstance(models, dict):
        return {}
    # `make` reads the rules of the working tree before it restores a dvc.lock that a killed DVC left incomplete.
    outputs = {} if revision.commit is None or revision.file("dvc.lock") is None else revision.lock.outputs
    given: dict[str, Any] = {
        "models": {
            name: {
                "predictions": new if new in outputs or old not in outputs else old,
                "metrics": f"reports/{name}/metrics.json",
                "history": f"reports/{name}/history.csv",
                "seeds": "studies/seeds/trials.csv",
            }
            for name in models
            for new, old in [(f"reports/{name}/predictions.csv", f"models/{name}/probabilities.npy")]
        }
    }
    for section, key in (("dataset", "classes"), ("evaluation", "calibration_bins")):
        if isinstance(params.get(section), dict) and key in params[section]:
            given[key] = params[section][key]
    return given
