"""The gate of a review: whether a change may be merged as far as the models are concerned."""

import math
from collections.abc import Iterator

from fashion.review.compare import Comparison, ReviewResult
from fashion.review.revision import stale_message


def failures(result: ReviewResult) -> list[str]:
    """Return the reasons why the gate fails, a sentence each without a full stop; an empty list if it passes."""
    return list(_failures(result))


def _failures(result: ReviewResult) -> Iterator[str]:
    rules = result.head.rules
    if result.head.stale:
        yield stale_message(result.head.stale)
    if not result.same_test_set:
        yield (
            "the classes differ, the test sets differ in more than added images, or one is missing here "
            "(`dvc fetch --all-commits`), so the models cannot be compared"
        )
    compared = {model.name for model in result.models}
    for name in (name for name in rules.models if name not in compared):
        yield f"{name} has no results: run `dvc repro`, or correct the paths in review.models.{name}"
    for model in result.models:
        waived = model.name in result.waivers
        if not waived and model.paired and not model.paired.unchanged:
            if rules.judge == "recipe":
                yield from _recipe(result, model)
            elif model.verdict == "worse":
                broken, fixed = model.paired.accuracy.broken, model.paired.accuracy.fixed
                yield (
                    f"{model.name} is significantly worse: {broken} test examples broken, {fixed} fixed, "
                    f"p = {model.p_adjusted:.2g} (level {rules.significance:g})"
                )
        if model.verdict == "not comparable" and result.same_test_set:
            lacking = result.base if model.base and model.base.predictions is None else result.head
            remedy = "`fashion review --rebuild`" if lacking.commit else "`dvc pull` or `dvc repro`"
            yield f"{model.name} cannot be compared: its predictions are missing from {lacking.name}; run {remedy}"
        if model.head is None:
            if not waived:
                yield f"{model.name} was removed"
            continue
        accuracy, minimum = result.accuracies.get(model.name), rules.min_accuracy.get(model.name)
        if accuracy is None or math.isnan(accuracy):
            yield f"{model.name} has no accuracy; run `dvc repro`"
        elif minimum is not None and accuracy < minimum:
            yield f"{model.name} has an accuracy of {accuracy:.2%}, below the minimum of {minimum:.2%}"


def _recipe(result: ReviewResult, model: Comparison) -> Iterator[str]:
    recipe = model.recipe
    if recipe is None:
        yield (
            f"the recipe of {model.name} cannot be compared; set review.models.{model.name}.seeds to the trials of a "
            "study, in base and head"
        )
    elif recipe.problems:
        yield from (f"the recipe of {model.name} cannot be compared: {problem}" for problem in recipe.problems)
    elif recipe.change and recipe.verdict == "worse":
        yield (
            f"the recipe of {model.name} is significantly worse: {100 * recipe.change.accuracy.change:+.2f} points, "
            f"p = {recipe.p_adjusted:.2g} (level {result.head.rules.significance:g})"
        )
