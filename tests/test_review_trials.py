"""Which trials of a study measure the recipe of a revision."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fashion.dvc import Lock, md5
from fashion.errors import UserError
from fashion.evaluation import recipes
from fashion.evaluation.figures import png
from fashion.evaluation.predictions import Predictions
from fashion.review import figures, gate, report, trials
from fashion.review.compare import ReviewResult, compare
from fashion.review.data_changes import Data
from fashion.review.revision import working_tree
from fashion.review.rules import ReviewedModel, Rules
from fashion.review.snapshot import Model, Snapshot, TestSet, scored
from fashion.review.trials import Trials

TABLE = "variant,seed,accuracy,errors\na,1,0.5,0 1\na,2,1.0,\na,3,0.75,3\nb,1,0.0,0 1 2 3\n"


def stage(deps: dict[str, str], outs: dict[str, str], params: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a stage of a dvc.lock; deps and outs are hashes by path."""
    files = {"deps": deps, "outs": outs}
    entries = {kind: [{"path": path, "md5": digest} for path, digest in of.items()] for kind, of in files.items()}
    return {"cmd": "run", "params": {"params.yaml": params or {}}, **entries}


def study(table: str = TABLE, deps: dict[str, str] | None = None, params: dict[str, Any] | None = None) -> Any:
    return stage(deps or {"train.py": "1", "data": "2"}, {"trials.csv": md5(table.encode())}, params or {"model": 1})


def read(folder: Path, pipeline: dict[str, Any], trials_stage: Any, table: str = TABLE) -> trials.Trials:
    """Return the trials of the model `a` in a project with a pipeline and a study."""
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {**pipeline, "study": trials_stage}}))
    (folder / "trials.csv").write_text(table)
    return trials.read(working_tree(folder), "trials.csv", "a", "predictions.csv", 4)


PIPELINE = {
    "train": stage({"train.py": "1", "data": "2"}, {"model": "3"}, {"model": 1, "other": 1}),
    "evaluate": stage({"model": "3", "evaluate.py": "4"}, {"predictions.csv": "5"}),
}


def test_measured(tmp_path: Path) -> None:
    """Of model `a` only. The code of the evaluation, which the study does not read, may be any."""
    found = read(tmp_path, PIPELINE, study())
    assert found.problem == ""
    assert found.unknown == {"evaluate.py": "4", "params.yaml: other": 1}
    expected = [[False, False, True, True], [True] * 4, [True, True, True, False]]
    np.testing.assert_array_equal(found.correct, expected)


def test_study_reads_the_whole_section(tmp_path: Path) -> None:
    trained = stage({"train.py": "1", "data": "2"}, {"model": "3"}, {"train.epochs": 1, "training": 2})
    found = read(tmp_path, {**PIPELINE, "train": trained}, study(params={"train": {"epochs": 1}}))
    assert found.unknown == {"evaluate.py": "4", "params.yaml: training": 2}


@pytest.mark.parametrize(
    ("changed", "params", "problem"),
    [
        ({"train.py": "0", "data": "2"}, {"model": 1}, "train.py"),
        ({"train.py": "1", "data": "0"}, {"model": 0}, "data, params.yaml: model"),
        ({"train.py": "1", "data": "2"}, {"other": 0, "model": 1, "third": 0}, "params.yaml: other"),
        (
            dict.fromkeys(("train.py", "data", "evaluate.py", "model"), "0"),
            {"model": 1},
            "data, evaluate.py, model and 1 more",
        ),
    ],
)
def test_changed(tmp_path: Path, changed: dict[str, str], params: dict[str, Any], problem: str) -> None:
    found = read(tmp_path, PIPELINE, study(deps=dict(sorted(changed.items())), params=params))
    assert found == Trials(None, f"{problem} changed after the trials", "run `dvc repro study`")


@pytest.mark.parametrize(
    ("pipeline", "in_study", "same"),
    [
        ({"model": {"trees": 8, "depth": 3}}, {"model": {"trees": 8, "depth": 3}}, True),
        ({"model.trees": 8, "model.depth": 3}, {"model": {"trees": 8, "depth": 3}}, True),
        ({"model.trees": 8, "model.depth": 3}, {"model": {"trees": 8}}, False),
        ({"model": {"trees": 8, "depth": 3}}, {"model.trees": 8}, True),
        ({"model": {"trees": 8, "depth": 3}}, {"model.trees": 9}, False),
        ({"model": {"trees": 8}}, {"models": 9}, True),
    ],
)
def test_params(tmp_path: Path, pipeline: dict[str, Any], in_study: dict[str, Any], same: bool) -> None:
    """A section agrees with its keys."""
    train = {**PIPELINE["train"], "params": {"params.yaml": pipeline}}
    assert (read(tmp_path, {**PIPELINE, "train": train}, study(params=in_study)).problem == "") is same


def test_predictions_in_a_folder(tmp_path: Path) -> None:
    """A stage may write the folder of the predictions, and read a file of an output folder."""
    pipeline = {
        "split": stage({"split.py": "9"}, {"data": "2"}),
        "all": stage({"data/train": "2", "train.py": "1"}, {"predictions.csv": "5"}),
    }
    deps = {"train.py": "1", "split.py": "0"}
    assert read(tmp_path, pipeline, study(deps=deps)).problem == "split.py changed after the trials"
    pipeline["all"]["outs"] = [{"path": "reports", "md5": "5.dir"}]
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": {**pipeline, "study": study(deps=deps)}}))
    found = trials.read(working_tree(tmp_path), "trials.csv", "a", "reports/predictions.csv", 4)
    assert found.problem == "split.py changed after the trials"


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("variant,seed,accuracy\na,1,0.5\n", "trials.csv has no `errors` column"),
        (TABLE.replace("a,3", "b,3"), "trials.csv has 2 trials of a, at least 3 are needed"),
        (TABLE.replace("0.75", "0.5"), "errors and accuracies in trials.csv disagree"),
        (TABLE.replace("a,3", "a,2"), "trials.csv has two trials of a with the same seed; list each seed once"),
        (TABLE.replace("0.75", ""), "trials.csv lacks the test accuracy of trials of a"),
    ],
)
def test_too_little(tmp_path: Path, table: str, problem: str) -> None:
    assert read(tmp_path, PIPELINE, study(table), table).problem == problem


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("variant,errors\na,1\n", "is not a table of trials: KeyError('accuracy')"),
        ("seed,errors\n1,2\n", "is not a table of trials: KeyError('variant')"),
        ("variant,accuracy,errors\na,1,4\n", "test image index 4 is out of range (0 to 3)"),
        ("variant,accuracy,errors\na,1,-1\n", "test image index -1 is out of range (0 to 3)"),
        ("variant,accuracy,errors\na,1,x\n", "is not a table of trials: ValueError("),
        ("variant,accuracy,errors\na,1,99999999999999999999\n", "is not a table of trials: OverflowError("),
        ("variant,accuracy,errors\n" + 1001 * "a,1,\n", "1,001 trials of a; the limit is 1,000"),
        (f"variant,accuracy,errors{20_000 * ',a'}\n", "the first line is not a header of at most 100 columns"),
        ("", "is not a table of trials: EmptyDataError("),
    ],
)
def test_no_table(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(UserError, match=r"trials\.csv of the working tree") as error:
        read(tmp_path, PIPELINE, study(table), table)
    assert message in str(error.value)


def test_too_many_results() -> None:
    table = ("variant,accuracy,errors\n" + 11 * "a,1,\n").encode()
    with pytest.raises(UserError, match="11,000,000 predictions in the trials of a; the limit is 10,000,000"):
        trials.parse(table, "trials.csv", "main", "a", 1_000_000)


def test_no_trials(tmp_path: Path) -> None:
    edited = read(tmp_path, PIPELINE, study(), TABLE.replace("a,3", "a,4"))
    assert edited.problem == "trials.csv is not what dvc.lock records"
    (tmp_path / "trials.csv").unlink()
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": PIPELINE}))
    missing = trials.read(working_tree(tmp_path), "studies/x/trials.csv", "a", "predictions.csv", 4)
    assert missing.problem == "no dvc.lock records studies/x/trials.csv"
    assert missing.remedy == "run `dvc repro studies/x/dvc.yaml`"


def test_nothing_in_common(tmp_path: Path) -> None:
    found = read(tmp_path, PIPELINE, study(deps={"src": "1"}))
    assert found.problem == "the stages of trials.csv and predictions.csv have no dependency in common"


def test_study_in_a_folder(tmp_path: Path) -> None:
    """Its own dvc.lock records it; its own files are its settings."""
    folder = tmp_path / "studies" / "seeds"
    folder.mkdir(parents=True)
    path = "studies/seeds/trials.csv"
    deps = {"train.py": "1", "data": "2", "studies/seeds/params.yaml": "7", "fashion/trials.py": "8"}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": PIPELINE}))
    (folder / "trials.csv").write_text(TABLE)
    lock = {"stages": {"seeds": stage(deps, {path: md5(TABLE.encode())}, {"model": 1})}}
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock))
    found = trials.read(working_tree(tmp_path), path, "a", "predictions.csv", 4)
    assert (found.problem, found.settings) == ("", {"studies/seeds/params.yaml": "7"})
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock).replace("'1'", "'0'"))
    found = trials.read(working_tree(tmp_path), path, "a", "predictions.csv", 4)
    assert (found.problem, found.remedy) == (
        "train.py changed after the trials",
        "run `dvc repro studies/seeds/dvc.yaml`",
    )


IMAGES = np.arange(200, dtype=np.uint8)[:, None, None, None]


def snapshot(name: str, given: dict[str, Trials | None], images: np.ndarray = IMAGES, **rules: Any) -> Snapshot:
    """Return a revision whose models classify all images correctly but that of their number in the alphabet."""
    labels = np.zeros(len(images), np.uint8)
    files = ReviewedModel(predictions="p.csv", metrics="m.json", history=None, seeds="trials.csv")
    models = {}
    for number, (model, own) in enumerate(given.items()):
        probabilities = np.tile([0.9, 0.1], (len(images), 1))
        probabilities[number + (name == "head")] = [0.1, 0.9]
        predictions = Predictions.of(probabilities, labels, ("right", "wrong"))
        models[model] = Model({"accuracy": 0.9}, predictions, None, None, own)
    defaults = {"base_branch": "main", "test_set": "t", "significance": 0.05, "judge": "recipe", "waivers": {}}
    more = {"min_accuracy": {}, "classes": ("right", "wrong"), "calibration_bins": 5}
    section = Rules(**{**defaults, **more, **rules}, models=dict.fromkeys(given, files))
    test_set = TestSet(None, None, labels, images)
    data = Data({}, {})
    return Snapshot(name, None, section, Lock({}), data, test_set, models, (), (), rebuilt=False, own_rules=True)


def some(accuracy: float, images: int = 200) -> Trials:
    """Return five trials, each with errors at other images."""
    correct = np.random.default_rng(int(accuracy * 1000)).random((5, images)) < accuracy
    return Trials(correct, settings={})


def verdicts(result: ReviewResult) -> dict[str, str | None]:
    return {model.name: model.recipe.verdict if model.recipe else None for model in result.models}


def test_holm_over_recipes() -> None:
    """A change that is significant alone is not beside another one."""
    before, after, other = some(0.9), some(0.944), some(0.905)
    assert before.correct is not None
    assert after.correct is not None
    alone = recipes.compare(before.correct, after.correct).p_value
    assert 0.025 < alone < 0.05
    one = compare(snapshot("base", {"a": before}), snapshot("head", {"a": after}))
    assert verdicts(one) == {"a": "better"}
    two = compare(snapshot("base", {"a": before, "b": before}), snapshot("head", {"a": after, "b": other}))
    assert verdicts(two) == {"a": "within noise", "b": "within noise"}
    assert two.models[0].recipe
    assert two.models[0].recipe.p_adjusted == pytest.approx(2 * alone)


def test_unchanged_model() -> None:
    """It must not count in Holm's correction, as the review does not show its recipe."""
    before, after, other = some(0.9), some(0.944), some(0.905)
    base, head = snapshot("base", {"a": before, "b": before}), snapshot("head", {"a": after, "b": other})
    same = replace(head.models["b"], predictions=base.models["b"].predictions)
    result = compare(base, replace(head, models={**head.models, "b": same}))
    assert verdicts(result) == {"a": "better", "b": None}


def test_seeds_needed() -> None:
    """They are for the level that Holm's method uses: the full level, if the other change is significant."""
    before, other = some(0.9), some(0.935)
    assert before.correct is not None
    assert other.correct is not None
    alone = recipes.compare(before.correct, other.correct)
    assert alone.seeds_needed != recipes.compare(before.correct, other.correct, 0.025).seeds_needed
    result = compare(snapshot("base", {"a": before, "b": before}), snapshot("head", {"a": some(0.99), "b": other}))
    assert verdicts(result) == {"a": "better", "b": "within noise"}
    recipe = result.models[1].recipe
    assert recipe
    assert recipe.change
    assert recipe.change.seeds_needed == alone.seeds_needed


def test_other_number_of_examples() -> None:
    """The predictions are not paired, and the error says so."""
    base, head = snapshot("base", {"a": some(0.9)}), snapshot("head", {"a": some(0.9, images=199)}, IMAGES[:199])
    head = replace(head, test_set=base.test_set)
    with pytest.raises(UserError, match="a: the two models have predictions for different test examples"):
        compare(base, head)


def test_other_bins() -> None:
    """The calibration errors of both revisions are measured by head's rules."""
    base, head = snapshot("base", {"a": some(0.9)}), snapshot("head", {"a": some(0.9)}, calibration_bins=2)
    head = replace(head, models={"a": scored(head.models["a"], base.models["a"].predictions, head.rules)})
    base = replace(base, models={"a": scored(base.models["a"], base.models["a"].predictions, base.rules)})
    (model,) = compare(base, head).models
    assert model.base
    assert model.head
    assert model.base.metrics == model.head.metrics


@pytest.mark.parametrize(
    ("classes", "verdict"),
    [
        (("good", "wrong"), "within noise"),
        (("wrong", "right"), "not comparable"),
        (("wrong", "good"), "not comparable"),
    ],
)
def test_renamed_and_moved_classes(classes: tuple[str, str], verdict: str) -> None:
    head = snapshot("head", {"a": some(0.9)}, classes=classes)
    assert compare(snapshot("base", {"a": some(0.9)}), head).models[0].verdict == verdict


def test_new_and_removed_models() -> None:
    result = compare(snapshot("base", {"old": some(0.9)}), snapshot("head", {"new": some(0.9)}))
    assert verdicts(result) == {"new": None, "old": None}
    assert "| mean accuracy" not in report.markdown(result, [], {})


def test_no_study_in_base() -> None:
    result = compare(snapshot("base", {"a": None}), snapshot("head", {"a": some(0.9)}))
    assert verdicts(result) == {"a": None}
    (failure,) = gate.failures(result)
    assert failure.startswith("the recipe of a cannot be compared; set review.models.a.seeds")


def test_accuracy_that_is_no_number() -> None:
    """Another project may write NaN to its metrics."""
    head = snapshot("head", {"a": some(0.9)}, min_accuracy={"a": 0.5})
    result = compare(snapshot("base", {}), head)
    assert gate.failures(result) == []
    (failure,) = gate.failures(replace(result, accuracies={"a": math.nan}))
    assert failure == "a has no accuracy; run `dvc repro`"


def test_other_settings_of_the_study() -> None:
    """A study that overrides params in head only would measure something else."""
    before, after = some(0.9), Trials(some(0.95).correct, settings={"studies/seeds/params.yaml": "1"})
    result = compare(snapshot("base", {"a": before}), snapshot("head", {"a": after}))
    assert verdicts(result) == {"a": "not comparable"}
    (failure,) = gate.failures(result)
    assert failure.endswith("cannot be compared: studies/seeds/params.yaml of the study differs between base and head")


def test_code_that_the_study_does_not_know() -> None:
    """The trials are the same as before, but the code that trained the model is not."""
    before, after = (replace(some(0.9), unknown={"train.py": digest, "b": 1}) for digest in ("1", "2"))
    result = compare(snapshot("base", {"a": before}), snapshot("head", {"a": after}))
    assert verdicts(result) == {"a": "not comparable"}
    (failure,) = gate.failures(result)
    assert failure.endswith("cannot be compared: train.py changed, but the study does not depend on it")
    result = compare(snapshot("base", {"a": before}), snapshot("head", {"a": before}))
    assert verdicts(result) == {"a": "unchanged"}


def test_not_measured_in_base() -> None:
    """Nobody can change a commit: it is measured on its branch. A waiver covers that, too, and the review says so."""
    before, after = Trials(None, "x changed after the trials", "run y"), some(0.95)
    base, head = snapshot("base", {"a": before}), snapshot("head", {"a": after})
    result = compare(replace(base, commit="123"), head)
    reason = "not measured in base: x changed after the trials; run y on that branch, commit the result, and merge it "
    reason += "into yours"
    assert gate.failures(result) == [f"the recipe of a cannot be compared: {reason}"]
    waived = replace(head, rules=head.rules.model_copy(update={"waivers": {"a": "why"}}))
    result = compare(replace(base, commit="123"), waived)
    assert gate.failures(result) == []
    assert f"> Recipe of a: {reason}." in report.markdown(result, [], {})


@pytest.mark.parametrize("text", ["```<script>x</script>`", "`a\n\n<script>x</script>`", "\x1b[2J<script>"])
def test_markup_and_control_characters(text: str) -> None:
    """In the keys of another revision's dvc.lock."""
    before, after = some(0.9), Trials(None, f"params.yaml: {text} changed after the trials", "run `dvc repro`")
    result = compare(snapshot("base", {"a": before}), snapshot("head", {"a": after}))
    written = report.markdown(result, gate.failures(result), {})
    page = report.page(written)
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<code>dvc repro</code>" in page
    assert "\x1b" not in written


def test_test_set_that_grew() -> None:
    """Recipes are compared on the images of base."""
    more = np.concatenate([IMAGES[::-1], np.full((50, 1, 1, 1), 255, np.uint8)])
    before, after = some(0.9), some(0.95, images=250)
    result = compare(snapshot("base", {"a": before}), snapshot("head", {"a": after}, more))
    assert (result.same_test_set, result.test_set_growth) == (True, 50)
    recipe = result.models[0].recipe
    assert recipe
    assert recipe.head is not None
    assert after.correct is not None
    np.testing.assert_array_equal(recipe.head, after.correct[:, 199::-1])


def test_new_class_without_images() -> None:
    base = snapshot("base", {"a": some(0.9)})
    head = snapshot("head", {"a": some(0.9)}, classes=("right", "wrong", "new"))
    result = compare(base, head)
    assert result.models[0].verdict == "not comparable"
    assert gate.failures(result)[0].startswith("the classes differ, ")


def test_model_without_results() -> None:
    base, head = snapshot("base", {"a": some(0.9)}), snapshot("head", {"a": some(0.9)})
    more = {**head.rules.models, "b": head.rules.models["a"]}
    head = replace(head, rules=head.rules.model_copy(update={"models": more}))
    assert gate.failures(compare(base, head)) == [
        "b has no results: run `dvc repro`, or correct the paths in review.models.b"
    ]


def test_waiver_with_rules_of_head() -> None:
    """A base that has no valid rules has no waivers, so all of head's are new."""
    head = snapshot("head", {"a": some(0.5)}, waivers={"a": "why"})
    base = replace(snapshot("base", {"a": some(0.9)}), rules=head.rules, own_rules=False)
    assert compare(base, head).waivers == {"a": "why"}


def test_waiver_for_an_unknown_model() -> None:
    base, head = snapshot("base", {"a": some(0.9)}), snapshot("head", {"a": some(0.9)}, waivers={"b": "typo"})
    assert "> The waiver for b has no effect: there is no such model" in report.markdown(compare(base, head), [], {})


def test_nothing_moved() -> None:
    """Head adds probabilities; no predicted class changes, so there are no images to show."""
    base, head = snapshot("base", {"a": None}), snapshot("head", {"a": None})
    labels = "actual,predicted\n" + 200 * "right,right\n"
    before = Predictions.parse(labels.encode(), ("right", "wrong"), "p.csv")
    after = Predictions.of(np.tile([0.9, 0.1], (200, 1)), np.zeros(200, np.uint8), ("right", "wrong"))
    base, head = (
        replace(end, models={"a": replace(end.models["a"], predictions=predictions)})
        for end, predictions in ((base, before), (head, after))
    )
    assert list(figures.draw(compare(base, head))) == ["confusion-a"]


def test_title_of_two_images() -> None:
    """A figure of two images is narrower than its title would be."""
    result = compare(snapshot("base", {"a": None}), snapshot("head", {"a": None}))
    assert result.models[0].paired
    assert len(result.models[0].paired.most_changed) == 2
    figure = figures.draw(result)["changed-a"]
    png(figure)
    (title,) = figure.texts
    box = title.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
