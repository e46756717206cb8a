"""The review's section on data."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from fashion.review.data_changes import Data, Folder, FolderChange, compare
from fashion.review.snapshot import TestSet
from tests.flowers import Flowers

FILES = {"a/1.png": "11", "a/2.png": "22", "b/3.png": "33", "b/4.png": "33"}


def compare_files(after: dict[str, str]) -> FolderChange:
    base, head = (Folder(str(files), len(files), files) for files in (FILES, after))
    return compare(Data({}, {"images": base}), Data({}, {"images": head})).folders["images"]


def test_files() -> None:
    after = {"a/1.png": "1x", "a/5.png": "55", "b/4.png": "33", "c/2.png": "22"}
    assert compare_files(after) == FolderChange(
        (4, 4),
        {"added": ("a/5.png",), "removed": ("b/3.png",), "altered": ("a/1.png",)},
        (("a/2.png", "c/2.png"),),
    )


def test_moved_copies() -> None:
    """Two files with the same content move; a third one is new."""
    after = {"a/1.png": "11", "a/2.png": "22", "c/3.png": "33", "c/4.png": "33", "c/5.png": "33"}
    change = compare_files(after)
    assert change.moved == (("b/3.png", "c/3.png"), ("b/4.png", "c/4.png"))
    assert change.files == {"added": ("c/5.png",)}


def test_splits() -> None:
    base = Data({"train": {"a": 5, "b": 6}, "test": {"a": 2, "b": 2}}, {})
    head = Data({"train": {"b": 7, "c": 4}, "test": {"b": 2, "c": 1}}, {})
    changes = compare(base, head)
    assert (changes.added, changes.removed) == (("c",), ("a",))
    assert changes.images == {"train": {"a": (5, 0), "b": (6, 7), "c": (0, 4)}, "test": {"a": (2, 0), "c": (0, 1)}}
    assert changes.totals == {"train": (11, 11), "test": (4, 3)}
    assert compare(base, base) == compare(base, Data({}, {})) == compare(Data({}, {}), Data({}, {}))


@pytest.fixture(scope="session")
def original(original_flowers: Flowers, tmp_path_factory: pytest.TempPathFactory) -> Flowers:
    """A project with a folder of images, and a branch `work` that adds ten. Leave it as you found it."""
    flowers = original_flowers.copy(tmp_path_factory.mktemp("images") / "copy")
    flowers.track_images()
    flowers.git("checkout", "-b", "work")
    flowers.add_images("rose", range(150, 158))
    flowers.add_images("tulip", range(2))
    flowers.change()
    return flowers


def test_added_images(original: Flowers) -> None:
    done = original.review("--gate")
    assert done.returncode == 0, done.stderr
    assert "**flowers: within noise.**" in done.stdout
    assert "> The test set has grown from 75 to 80 examples: metrics and indices below refer to the 75 " in done.stdout
    assert re.search(r"examples of base\. On all examples, head's accuracy is \d\d\.\d\d% \(flowers\)\.\n", done.stdout)
    section = done.stdout.partition("### Data\n\n")[2].partition("\n\n### What changed")[0]
    assert section.splitlines() == [
        "- train images: 75 → 80 (setosa 25 → 27, versicolor 25 → 27, virginica 25 → 26)",
        "- files in `images`: 150 → 160",
        "- 10 added: 8 in rose (`150`, `151`, `152`, ...), 2 in tulip (`000`, `001`)",
    ]
    assert "- code: none" in done.stdout


def test_removed_test_images(original: Flowers) -> None:
    """Without some of base's test images, the models cannot be compared."""
    done = original.review("--base", "work", "--head", "main", "--gate")
    assert "the test sets differ" in done.stderr
    assert "- 10 removed: " in done.stdout


def test_unchanged_data(original: Flowers) -> None:
    assert "### Data" not in original.review("--base", "work").stdout


def test_moved_file(original: Flowers, tmp_path: Path) -> None:
    copy = original.copy(tmp_path / "copy")
    images = copy.folder / "images"
    (images / "rose" / "000").rename(images / "tulip" / "000-rose")
    copy.change()
    assert (
        "- files in `images`: 160 → 160\n- 1 moved: `rose/000` → `tulip/000-rose`\n"
        in copy.review("--base", "HEAD~1").stdout
    )


def test_list_not_in_cache(original: Flowers, tmp_path: Path) -> None:
    copy = original.copy(tmp_path / "copy")
    copy.run("dvc", "remote", "add", "--local", "--default", "storage", str(tmp_path / "storage"))
    copy.run("dvc", "push", "--all-commits")
    shutil.rmtree(copy.folder / ".dvc" / "cache")
    copy.run("dvc", "checkout", "--allow-missing", check=False)
    done = copy.review()
    assert (
        "- files in `images`: 150 → 160; run `dvc fetch --all-commits images.dvc` to list the changes\n" in done.stdout
    )
    copy.run("dvc", "fetch", "--all-commits", "images.dvc")
    assert "- 10 added: " in copy.review().stdout


def test_audit_of_another_project(original: Flowers, tmp_path: Path) -> None:
    copy = original.copy(tmp_path / "copy")
    (copy.folder / "reports" / "audit.json").write_text(json.dumps({"images": "many"}))
    done = copy.review()
    assert done.returncode == 0, done.stderr
    assert "train images" not in done.stdout


def test_indices_in_another_test_set() -> None:
    images = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    labels = np.array([0, 1, 0, 1, 0])
    large = TestSet("large", None, labels, images)
    order = np.array([3, 0, 4])
    small = TestSet("small", None, labels[order], images[order])
    found = small.indices_in(large)
    assert found is not None
    assert found.tolist() == [3, 0, 4]
    assert large.indices_in(small) is None
    assert TestSet("labels", None, 1 - labels[order], images[order]).indices_in(large) is None
    assert TestSet("shape", None, labels, np.zeros((5, 1, 1, 3), np.uint8)).indices_in(large) is None
    assert TestSet("no images", None, labels[order], None).indices_in(large) is None
