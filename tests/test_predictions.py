"""The table of predictions."""

import numpy as np
import pytest

from fashion.data.dataset import Split
from fashion.errors import UserError
from fashion.evaluation import tables
from fashion.evaluation.predictions import Predictions, sha256

CLASSES = ("cat", "a, dog", "NA")
PROBABILITIES = np.array([[0.2, 0.5, 0.3], [0.99996, 0.00004, 0.0], [0.123456, 0.2, 0.676544]], np.float32)
LABELS = np.array([1, 2, 0], np.uint8)
FOUND = Predictions.of(PROBABILITIES, LABELS, CLASSES)
TABLE = 'actual,predicted,confidence,probability\n"a, dog","a, dog",0.5,0.5\nNA,cat,1,0\ncat,NA,0.6765,0.1235\n'


def parse(text: str) -> Predictions:
    return Predictions.parse(text.encode(), CLASSES, "predictions.csv")


def test_table() -> None:
    assert FOUND.to_csv() == TABLE
    assert parse(TABLE).to_csv() == TABLE
    assert parse(TABLE).same_as(parse(TABLE))
    assert parse("\ufeff" + TABLE.replace("actual", '"actual"', 1)).to_csv() == TABLE
    assert not parse(TABLE).same_as(FOUND), "probabilities are rounded"
    np.testing.assert_array_equal(parse(TABLE).correct, [True, False, False])


def test_without_probabilities() -> None:
    found = parse("actual,predicted\ncat,cat\ncat,NA\n")
    assert not found.has_probabilities
    assert found.same_as(found)
    assert found.to_csv() == "actual,predicted\ncat,cat\ncat,NA\n"
    assert found.take(np.array([1])).to_csv() == "actual,predicted\ncat,NA\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a table of predictions: "),
        ("actual,predicted\n", "expected a row per example .*, found 0 rows"),
        ("actual,guess\ncat,cat\n", "with the columns actual, guess$"),
        ("actual,predicted\ncat,cow\n", "found the class 'cow', expected one of cat, a, dog, NA"),
        ("actual,predicted,confidence,probability\ncat,cat,1.5,1\n", "expected probabilities from 0 to 1"),
        ("actual,predicted,confidence,probability\ncat,cat,high,1\n", "is not a table of predictions: .*high"),
        ("actual,predicted,confidence,probability\ncat,cat,,\n", "predictions"),
        ("actual,predicted\nx,cat,cat\n", "the first row has more values than there are columns"),
        (
            "actual,predicted\ncat,cat\nx,cat,cat\n",
            "is not a table of predictions: .*Expected 2 fields in line 3, saw 3",
        ),
        (f"actual,predicted{98 * ',a'}\n", "with the columns actual, predicted, a, a.1, "),
        (f"actual,predicted{20_000 * ',a'}\n", "the first line is not a header of at most 100 columns"),
        ('"a\n",' * 20_000, "the first line is not a header of at most 100 columns"),
        (f"\n\nactual{20_000 * ',a'}\n", "the first line is not a header of at most 100 columns"),
        ("actual,predicted\n" + 1_000_001 * "cat,cat\n", "1,000,001 rows; the limit is 1,000,000"),
        ("x" * (tables.MAX_BYTES + 1), "67,108,865 bytes; the limit is 67,108,864"),
    ],
    ids=lambda value: value[:40],
)
def test_bad_table(text: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"^predictions\.csv.*{message}"):
        parse(text)


def test_sha256() -> None:
    """The pixels, their arrangement and the labels count."""
    images, labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1), np.array([0, 1], np.uint8)
    splits = [
        Split(images, labels),
        Split(images.reshape(2, 4, 3, 1), labels),
        Split(images[::-1], labels),
        Split(images, labels[::-1]),
    ]
    assert len({sha256(split) for split in splits}) == 4
    assert sha256(splits[0]) == sha256(Split(images.copy(), labels.copy()))
