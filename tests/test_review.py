"""`fashion review` in another project: every kind of change, and what cannot be compared."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fashion.data.dataset import npy_header
from fashion.dvc import Lock, md5
from fashion.errors import UserError
from fashion.review.revision import stale, working_tree
from fashion.review.rules import load_rules
from fashion.review.snapshot import MAX_JSON_BYTES, TestSet
from tests.flowers import PARAMS, Flowers


@pytest.fixture
def flowers(original_flowers: Flowers, tmp_path: Path) -> Flowers:
    """A copy of the project on a branch."""
    copy = original_flowers.copy(tmp_path / "copy")
    copy.git("checkout", "-b", "work")
    return copy


@pytest.fixture(scope="session")
def worse(original_flowers: Flowers, tmp_path_factory: pytest.TempPathFactory) -> Flowers:
    """The project with a worse model on a branch. Leave it as you found it."""
    copy = original_flowers.copy(tmp_path_factory.mktemp("worse") / "copy")
    copy.git("checkout", "-b", "work")
    copy.change(columns=1)
    return copy


def test_unchanged(original_flowers: Flowers) -> None:
    done = original_flowers.review("--gate")
    assert done.returncode == 0, done.stderr
    assert "**flowers: unchanged.**" in done.stdout
    assert "Gate verdict: **pass**" in done.stdout
    assert "- params: none" in done.stdout
    assert "- unchanged stages: train" in done.stdout


def test_worse(worse: Flowers, tmp_path: Path) -> None:
    page, figures = tmp_path / "review.html", tmp_path / "figures"
    done = worse.review("--gate", "--html", str(page), "--figures", str(figures))
    assert done.returncode == 1
    assert done.stderr.startswith("error: flowers is significantly worse: ")
    assert "**flowers: worse.**" in done.stdout
    assert "Gate verdict: **fail**\n\n- flowers is significantly worse: " in done.stdout
    assert "- params: `model.columns`: `4` → `1`" in done.stdout
    assert "- stages run again: train" in done.stdout
    assert [path.name for path in figures.iterdir()] == ["confusion-flowers.png"], "no curves, no images of flowers"
    verdict, table, folded, figure = map(
        done.stdout.index,
        ("**flowers: worse.**", "| accuracy |", "<details>", '<img src="figures/confusion-flowers.png"'),
    )
    assert verdict < table < folded < figure
    assert re.findall(r'<img .* width="(\d+)"', done.stdout) == ["480"]
    assert "data:image/png;base64," in page.read_text()
    assert not re.search("https?:", page.read_text())
    assert "Content-Security-Policy\" content=\"default-src 'none';" in page.read_text()


def test_waiver(worse: Flowers, tmp_path: Path) -> None:
    """It counts in the change that writes it, and in no later one."""
    copy = worse.copy(tmp_path / "copy")
    params = copy.params()
    params["review"]["waivers"] = {"flowers": "one column is | enough"}
    copy.write_params(params)
    copy.git("commit", "-am", "accept")
    done = copy.review("--gate")
    assert done.returncode == 0, done.stderr
    assert "**flowers: worse.**" in done.stdout
    assert "> Waiver: a regression of flowers is accepted: one column is \\| enough" in done.stdout
    copy.change(strength=-1.0)
    done = copy.review("--base", "HEAD~1", "--gate")
    assert done.returncode == 1
    assert done.stderr.startswith("error: flowers is significantly worse")
    assert "accepted" not in done.stdout


def test_verdict_without_gate(worse: Flowers) -> None:
    done = worse.review()
    assert done.returncode == 0
    assert "Gate verdict: **fail**" in done.stdout
    assert "<img" not in done.stdout, "no figures were written"


def test_better(worse: Flowers) -> None:
    done = worse.review("--base", "work", "--head", "main", "--gate")
    assert done.returncode == 0, done.stderr
    assert "**flowers: better.**" in done.stdout


def test_within_noise(flowers: Flowers) -> None:
    flowers.change(strength=0.9)
    done = flowers.review("--gate")
    assert done.returncode == 0, done.stderr
    assert "**flowers: within noise.**" in done.stdout


def test_study(flowers: Flowers) -> None:
    """The output of a study in a folder, whose own dvc.lock records it."""
    study = flowers.folder / "studies" / "copy"
    study.mkdir(parents=True)
    outputs = {"probabilities.npy": "outs", "metrics.json": "metrics"}
    stages = {
        name.partition(".")[0]: {
            "wdir": "../..",
            "cmd": f"cp {name} studies/copy/{name}",
            "deps": [name],
            kind: [f"studies/copy/{name}"],
        }
        for name, kind in outputs.items()
    }
    (study / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    params = flowers.params()
    models = params["review"]["models"]
    paths = {"predictions": "studies/copy/probabilities.npy", "metrics": "studies/copy/metrics.json"}
    models["copy"] = models["flowers"] | paths
    for columns in (4, 1):
        params["model"]["columns"] = columns
        flowers.write_params(params)
        flowers.run("dvc", "repro", "studies/copy/dvc.yaml")
        flowers.git("add", "-A")
        flowers.git("commit", "-m", "the study")
    for name in outputs:
        (study / name).unlink()
    done = flowers.review("--base", "HEAD~1", "--head", "HEAD")
    assert "**copy, flowers: worse.**" in done.stdout, done.stderr
    assert "Not in the DVC cache" not in done.stdout


def test_min_accuracy(flowers: Flowers) -> None:
    params = flowers.params()
    params["review"]["min_accuracy"]["flowers"] = 0.999
    flowers.write_params(params)
    done = flowers.review("--gate")
    assert done.returncode == 1
    assert "below the minimum of 99.90%" in done.stderr
    assert "`review.min_accuracy.flowers`: `0.5` → `0.999`" in done.stdout
    del params["review"]["min_accuracy"]["flowers"]
    flowers.write_params(params)
    assert flowers.review("--gate").returncode == 0, "it is optional"


def test_unequal_classes(flowers: Flowers) -> None:
    """Balanced accuracy and macro F1 have rows only if the classes of the test set are unequal in size."""
    assert "balanced accuracy" not in flowers.review().stdout
    script = flowers.folder / "train.py"
    script.write_text(script.read_text().replace("np.arange(150) % 3", "np.arange(150) % 7 % 3"))
    flowers.change()
    flowers.change(columns=1)
    done = flowers.review("--base", "HEAD~1")
    assert done.returncode == 0, done.stderr
    metrics = [line.split(" | ")[1] for line in done.stdout.splitlines() if " points | " in line]
    assert metrics[:3] == ["accuracy", "balanced accuracy", "macro F1"]


def test_stale(flowers: Flowers) -> None:
    with (flowers.folder / "train.py").open("a") as file:
        file.write("# another line\n")
    params = flowers.params()
    params["model"]["columns"] = 2
    flowers.write_params(params)
    done = flowers.review("--gate")
    assert done.returncode == 1
    reason = "dvc.lock is out of date: params.yaml: model, train.py changed since it was written; run `dvc repro`"
    assert done.stderr.startswith(f"error: {reason}")
    assert (
        "**dvc.lock is out of date: the models were trained before the latest changes. flowers: unchanged.**"
        in done.stdout
    )
    assert f"Gate verdict: **fail**\n\n- {reason}" in done.stdout
    assert "- not run yet: `params.yaml: model`, `train.py`" in done.stdout
    assert "unchanged stages" not in done.stdout


def test_file_of_an_output_folder(flowers: Flowers, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be missing, like the folder."""
    path = flowers.folder / "dvc.yaml"
    pipeline = yaml.safe_load(path.read_text())
    reads = {"cmd": "wc -c test_set/labels.npy > count", "deps": ["test_set/labels.npy"], "outs": ["count"]}
    pipeline["stages"]["count"] = reads
    path.write_text(yaml.safe_dump(pipeline))
    flowers.change()
    monkeypatch.chdir(flowers.folder)
    flowers.run("rm", "-r", ".dvc/cache", "test_set", "count")
    assert stale(Path()) == []
    (flowers.folder / "test_set").mkdir()
    (flowers.folder / "test_set" / "labels.npy").touch()
    assert stale(Path()) == ["test_set/labels.npy"]


def test_stage_that_always_runs(flowers: Flowers) -> None:
    """It leaves dvc.lock as it is."""
    path = flowers.folder / "dvc.yaml"
    pipeline = yaml.safe_load(path.read_text())
    pipeline["stages"]["train"]["always_changed"] = True
    path.write_text(yaml.safe_dump(pipeline))
    done = flowers.review("--gate")
    assert done.returncode == 0, done.stderr


def test_changed_command(flowers: Flowers) -> None:
    path = flowers.folder / "dvc.yaml"
    pipeline = yaml.safe_load(path.read_text())
    pipeline["stages"]["train"]["cmd"] += " # again"
    path.write_text(yaml.safe_dump(pipeline))
    assert "dvc.lock is out of date: train: command changed since it was written" in flowers.review("--gate").stderr


def test_predictions_for_another_test_set(flowers: Flowers) -> None:
    flowers.commit_predictions()
    labels = np.load(flowers.folder / "test_set" / "labels.npy")
    np.save(flowers.folder / "test_set" / "labels.npy", np.append(labels, labels[:1]))
    message = "predictions.csv of the working tree: 75 examples, but test_set has 76; run `dvc repro`"
    assert message in flowers.review().stderr


def test_missing_cache(worse: Flowers, tmp_path: Path) -> None:
    copy = worse.copy(tmp_path / "copy")
    copy.run("rm", "-r", ".dvc/cache")
    done = copy.review("--gate")
    assert done.returncode == 1
    assert done.stderr.startswith("error: flowers cannot be compared: its predictions are missing from main (")
    assert "Not in the DVC cache: test_set of main" in done.stdout
    assert "**flowers: not comparable.**" in done.stdout
    assert "points | not comparable |" in done.stdout, "the metrics are in Git"
    done = copy.review("--gate", "--rebuild")
    assert done.returncode == 1, done.stderr
    assert "**flowers: worse.**" in done.stdout
    assert "was run again here" in done.stdout
    assert copy.run("git", "worktree", "list").stdout.count("\n") == 1


def test_other_test_set(flowers: Flowers) -> None:
    script = flowers.folder / "train.py"
    script.write_text(script.read_text().replace("% 2 == 0", "% 4 == 0"))
    flowers.change()
    done = flowers.review("--gate")
    assert "the test sets differ" in done.stderr
    assert "**flowers: not comparable.**" in done.stdout


def test_same_test_set() -> None:
    images, labels = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1), np.array([0, 1])
    test_set = TestSet("of one release of Python", "a", labels, images)
    assert test_set.same_as(TestSet("of another", None, labels.copy(), images.copy()))
    assert not test_set.same_as(TestSet("of another", None, labels[::-1], images))
    assert not test_set.same_as(TestSet("of another", None, labels, images + 1))
    assert not test_set.same_as(TestSet("of another", None, labels, None))
    assert test_set.same_as(TestSet("of another", "a", None, None))
    assert not test_set.same_as(TestSet("of another", "b", None, None))
    assert not TestSet(None, None, labels, None).same_as(TestSet(None, None, labels, None)), "nothing is known"


@pytest.fixture(scope="session")
def committed(original_flowers: Flowers, tmp_path_factory: pytest.TempPathFactory) -> Flowers:
    """The project with predictions in Git and a worse model on a branch. Leave it as you found it."""
    copy = original_flowers.copy(tmp_path_factory.mktemp("committed") / "copy")
    copy.commit_predictions()
    copy.git("checkout", "-b", "work")
    copy.change(columns=1)
    return copy


def test_predictions_in_git(committed: Flowers, tmp_path: Path) -> None:
    """A clone has no cache, and needs none."""
    committed.run("git", "clone", str(committed.folder), str(tmp_path / "clone"))
    done = Flowers(tmp_path / "clone").review("--base", "origin/main", "--head", "HEAD", "--gate")
    assert done.stderr.startswith("error: flowers is significantly worse: ")
    assert "**flowers: worse.**" in done.stdout
    assert "Not in the DVC cache" not in done.stdout
    assert "|  | loss |" in done.stdout
    assert "|  | calibration error |" in done.stdout
    assert "### flowers: classes and examples" in done.stdout


def test_run_in_a_clone(committed: Flowers, tmp_path: Path) -> None:
    """Base's predictions are only in Git; a run in the clone gives slightly different ones, as on another processor."""
    committed.run("git", "clone", str(committed.folder), str(tmp_path / "clone"))
    clone = Flowers(tmp_path / "clone")
    clone.change(strength=1.01)
    assert "**flowers: within noise.**" in clone.review("--base", "HEAD~1").stdout


def test_predictions_too_large_for_git(committed: Flowers, tmp_path: Path) -> None:
    """Predictions in the DVC cache are read from it; without it, the review says so."""
    copy = committed.copy(tmp_path / "copy")
    pipeline = yaml.safe_load((copy.folder / "dvc.yaml").read_text())
    outputs = pipeline["stages"]["train"]["outs"]
    pipeline["stages"]["train"]["outs"] = [*(out for out in outputs if "predictions.csv" not in out), "predictions.csv"]
    (copy.folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    copy.git("rm", "-q", "--cached", "predictions.csv")
    copy.change()
    copy.change(columns=4)
    done = copy.review("--base", "HEAD~1", "--head", "HEAD")
    assert "**flowers: better.**" in done.stdout
    shutil.rmtree(copy.folder / ".dvc" / "cache")
    done = copy.review("--base", "HEAD~1", "--head", "HEAD")
    assert "**flowers: not comparable.**" in done.stdout
    assert "Not in the DVC cache: predictions.csv" in done.stdout


def test_predictions_of_an_older_commit(committed: Flowers) -> None:
    """Base has probabilities in the cache, head predictions in Git."""
    done = committed.review("--base", "main~1", "--head", "main")
    assert "points | **within noise**: 0 fixed, 0 broken" in done.stdout, "probabilities are rounded"


def test_no_probabilities(committed: Flowers, tmp_path: Path) -> None:
    copy = committed.copy(tmp_path / "copy")
    script = copy.folder / "train.py"
    script.write_text(
        script.read_text()
        .replace(",confidence,probability", "")
        .replace(', f"{row[predicted]:.4g}", f"{row[actual]:.4g}"', "")
        .replace('"loss": 1.0', '"seconds": 1.0')
    )
    copy.change(columns=4)
    copy.change(columns=1)
    done = copy.review("--base", "HEAD~1", "--head", "HEAD")
    assert "**flowers: worse.**" in done.stdout
    assert "|  | loss |" not in done.stdout
    assert "|  | calibration error |" not in done.stdout
    assert "%)" not in done.stdout.partition("The test examples whose predictions changed most")[2]
    assert copy.review("--base", "main", "--head", "HEAD").returncode == 0, "one of the two has probabilities"


def test_predictions_for_other_examples(committed: Flowers, tmp_path: Path) -> None:
    copy = committed.copy(tmp_path / "copy")
    path = copy.folder / "predictions.csv"
    path.write_text(path.read_text().replace("setosa,", "virginica,", 1))
    assert copy.review().stderr.startswith("error: flowers: the two models have predictions for different test exam")


def test_new_and_removed(flowers: Flowers) -> None:
    code = "import numpy, os; os.mkdir('test_set'); numpy.save('test_set/labels.npy', numpy.arange(150)[::2] % 3)"
    pipeline = {"stages": {"other": {"cmd": f'python -c "{code}"', "outs": ["test_set"]}}}
    (flowers.folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    for name in ("dvc.lock", "metrics.json", "probabilities.npy", "test_set/labels.npy"):
        (flowers.folder / name).unlink()
    flowers.change()
    for base, head, verdict in (("main", "work", "removed"), ("work", "main", "new")):
        done = flowers.review("--base", base, "--head", head)
        assert done.returncode == 0, done.stderr
        assert f"**flowers: {verdict}.**" in done.stdout
    assert flowers.review("--gate").stderr == "error: flowers was removed\n"


def test_bad_revisions(flowers: Flowers) -> None:
    assert flowers.review("--base", "nowhere").stderr.startswith("error: unknown revision nowhere")
    flowers.git("checkout", "--orphan", "empty")
    assert flowers.review().stderr.startswith("error: this repository has no commit yet")
    flowers.git("rm", "-rf", "--cached", ".")
    flowers.git("commit", "--allow-empty", "-m", "nothing")
    assert "have no commit in common" in flowers.review().stderr
    assert flowers.review("--base", "empty").stderr.startswith("error: empty")
    assert "has no dvc.lock" in flowers.review("--base", "empty").stderr
    assert "has no section `review`" in flowers.review("--head", "empty").stderr
    flowers.git("branch", "-D", "main", "work")
    assert flowers.review().stderr.startswith("error: there is no branch main or origin/main")


def test_shallow_clone(flowers: Flowers, tmp_path: Path) -> None:
    for _ in range(2):
        flowers.git("commit", "--allow-empty", "-m", "more")
    url = f"file://{flowers.folder}"
    flowers.run("git", "clone", "--depth", "1", "--no-single-branch", "-b", "work", url, str(tmp_path / "shallow"))
    flowers.git("checkout", "main")
    done = Flowers(tmp_path / "shallow").review()
    assert done.returncode == 1
    assert "this clone is shallow; run `git fetch --unshallow`" in done.stderr


def test_no_section(flowers: Flowers) -> None:
    flowers.write_params({"model": {"columns": 4, "strength": 1.0}})
    assert flowers.review().stderr.startswith("error: params.yaml of the working tree has no section `review`")


def test_no_project(tmp_path: Path) -> None:
    done = Flowers(tmp_path).review()
    assert done.stderr == f"error: {tmp_path} has no params.yaml; run this in the project's folder\n"


MODEL = {"predictions": "probabilities.npy", "metrics": "metrics.json"}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(75) % 3 + 1, "expected shape (n,) and integers from 0 to 2, found int64 of shape (75,)"),
        (np.zeros((75, 1), int), "found int64 of shape (75, 1)"),
        (np.zeros(75), "found float64 of shape (75,)"),
        (np.zeros(0, int), "found int64 of shape (0,)"),
        (np.array(["cat", "dog"]), "found <U3 of shape (2,)"),
        (np.zeros(9, int), "expected probabilities of shape (9, 3)"),
        (np.zeros(1_000_001, np.uint8), "test_set of the working tree: 1,000,001 examples; the limit is 1,000,000"),
    ],
)
def test_bad_labels(flowers: Flowers, labels: np.ndarray, message: str) -> None:
    np.save(flowers.folder / "test_set" / "labels.npy", labels)
    done = flowers.review()
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("probabilities", "found"),
    [
        (np.full((75, 3), np.nan), "float64 of shape (75, 3)"),
        (np.tile([1.5, -0.5, 0.0], (75, 1)), "float64 of shape (75, 3)"),
        (np.full((75, 3), "a"), "<U1 of shape (75, 3)"),
        (np.ones((75, 1)), "float64 of shape (75, 1)"),
    ],
)
def test_bad_probabilities(flowers: Flowers, probabilities: np.ndarray, found: str) -> None:
    np.save(flowers.folder / "probabilities.npy", probabilities)
    assert f"of shape (75, 3), floats of at least 0 whose rows sum to 1, found {found}" in flowers.review().stderr


def test_bad_npy_file(flowers: Flowers) -> None:
    (flowers.folder / "probabilities.npy").write_bytes(npy_header(np.dtype(np.float64), (2**45, 3)))
    assert "probabilities.npy of the working tree is not a .npy file: Unable to allocate" in flowers.review().stderr
    np.save(flowers.folder / "probabilities.npy", np.array([print], dtype=object))
    assert "probabilities.npy of the working tree is not a .npy file: Object arrays cannot" in flowers.review().stderr
    np.save(flowers.folder / "probabilities.npy", np.zeros(1))
    content = (flowers.folder / "probabilities.npy").read_bytes()
    (flowers.folder / "probabilities.npy").write_bytes(content.replace(b"}", b" "))
    assert "probabilities.npy of the working tree is not a .npy file: " in flowers.review().stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "RecursionError("),
        ("{}" + MAX_JSON_BYTES * " ", "ValueError('1,048,578 bytes of JSON; the limit is 1,048,576')"),
        ("[]", "ValueError('expected a JSON object, found list')"),
        ('{"accuracy": 1' + 400 * "0" + "}", "OverflowError("),
    ],
    ids=["nested", "long", "list", "number"],
)
def test_bad_metrics(flowers: Flowers, text: str, message: str) -> None:
    (flowers.folder / "metrics.json").write_text(text)
    expected = f"error: cannot read the results of flowers in the working tree: {message}"
    assert flowers.review().stderr.startswith(expected)


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (np.zeros((9, 2, 2, 1), np.uint8), "uint8 of shape (9, 2, 2, 1)"),
        (np.zeros((75, 2, 2, 2), np.uint8), "uint8 of shape (75, 2, 2, 2)"),
        (np.zeros((75, 2, 2, 3)), "float64 of shape (75, 2, 2, 3)"),
    ],
)
def test_bad_images(flowers: Flowers, images: np.ndarray, found: str) -> None:
    np.save(flowers.folder / "test_set" / "images.npy", images)
    message = "images.npy of the working tree: expected uint8 of shape (75, height, width, 1 or 3), found "
    assert message + found in flowers.review().stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [("{}" + MAX_JSON_BYTES * " ", "1,048,578 bytes of JSON; the limit"), ("{", "Expecting")],
    ids=["long", "unfinished"],
)
def test_bad_audit(flowers: Flowers, text: str, message: str) -> None:
    (flowers.folder / "reports").mkdir()
    (flowers.folder / "reports" / "audit.json").write_text(text)
    expected = f"error: cannot read reports/audit.json of the working tree: {message}"
    assert flowers.review().stderr.startswith(expected)


def test_file_as_folder(flowers: Flowers) -> None:
    """A dvc.lock names a cached file as a folder of images."""
    digest = md5(content := b"[1]")
    cached = flowers.folder / ".dvc" / "cache" / "files" / "md5" / digest[:2] / f"{digest[2:]}.dir"
    cached.parent.mkdir(exist_ok=True)
    cached.write_bytes(content)
    (flowers.folder / "images.dvc").touch()
    lock = yaml.safe_load((flowers.folder / "dvc.lock").read_text())
    lock["stages"]["train"]["deps"].append({"path": "images", "md5": f"{digest}.dir", "nfiles": 1})
    (flowers.folder / "dvc.lock").write_text(yaml.safe_dump(lock))
    flowers.git("add", ".")
    flowers.git("commit", "-m", "not what DVC writes")
    done = flowers.review("--base", "HEAD~1", "--head", "HEAD")
    assert f"{digest}.dir is not the MD5 of a folder; run `dvc repro`" in done.stderr


def test_path_as_md5(flowers: Flowers) -> None:
    """A dvc.lock names a file outside the cache."""
    lock = flowers.folder / "dvc.lock"
    digest = Lock.read(flowers.folder).outputs["probabilities.npy"]
    lock.write_text(lock.read_text().replace(str(digest), "../../../../probabilities.npy"))
    flowers.git("commit", "-am", "not what DVC writes")
    done = flowers.review("--base", "HEAD~1", "--head", "HEAD")
    assert "'../../../../probabilities.npy' is not an MD5; run `dvc repro`" in done.stderr


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("test_set", "metrics.json", "metrics.json of the working tree: expected a folder with labels.npy"),
        ("test_set", ".dvc", ".dvc of the working tree: expected a folder with labels.npy"),
        ("predictions", "metrics.json", "metrics.json of the working tree is not a .npy file: "),
        (
            "classes",
            ["a", "b"],
            "test_set/labels.npy of the working tree: expected shape (n,) and integers from 0 to 1",
        ),
        ("classes", [*"abcd"], "probabilities.npy of the working tree: expected probabilities of shape (75, 4)"),
        ("history", "metrics.json", "cannot read the results of flowers in the working tree"),
        ("history", "wide.csv", "cannot read the results of flowers in the working tree: ValueError('the first line"),
        ("base_branch", "nowhere", "there is no branch nowhere or origin/nowhere"),
        ("min_accuracy", {"roses": 0.5}, "params.yaml of the working tree: review.min_accuracy.roses: no such model"),
        ("significance", 5, "params.yaml of the working tree: review.significance: "),
        ("models", {f"m{n}": MODEL for n in range(21)}, "params.yaml of the working tree: review.models: "),
        ("calibration_bins", 101, "params.yaml of the working tree: review.calibration_bins: "),
    ],
)
def test_bad_rules(flowers: Flowers, key: str, value: Any, message: str) -> None:
    params = flowers.params()
    section = params["review"] if key in params["review"] else params["review"]["models"]["flowers"]
    section[key] = value
    flowers.write_params(params)
    (flowers.folder / "wide.csv").write_text("epoch,val_accuracy" + 99 * ",x")
    done = flowers.review()
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {message}")
    assert len(done.stderr.splitlines()) == 1


def test_rules_from_other_sections(tmp_path: Path) -> None:
    params: dict[str, Any] = {
        "dataset": {"classes": ["a", "b"]},
        "models": {"dnn": {}, "cnn": {"epochs": 1}},
        "evaluation": {"calibration_bins": 7},
        "review": {"base_branch": "main", "test_set": "test", "significance": 0.05, "min_accuracy": {"cnn": 0.9}},
    }
    Flowers(tmp_path).write_params(params)
    rules = load_rules(working_tree(tmp_path))
    assert rules is not None
    assert list(rules.models) == ["cnn", "dnn"]
    assert rules.models["cnn"].predictions == "reports/cnn/predictions.csv"
    assert rules.classes == ("a", "b")
    assert rules.calibration_bins == 7
    (tmp_path / "dvc.lock").write_text("cut")  # by a killed DVC; `make` reads the rules before it restores the file
    assert load_rules(working_tree(tmp_path)) == rules
    del params["dataset"]
    Flowers(tmp_path).write_params(params)
    with pytest.raises(UserError, match=r"params\.yaml of the working tree: review\.classes: missing"):
        load_rules(working_tree(tmp_path))


def test_rules_of_another_version(flowers: Flowers) -> None:
    """A base whose section `review` is of another version is read by head's rules."""
    params = flowers.params()
    flowers.write_params(params | {"review": {"main": "main", "test_set": "test_set"}})
    flowers.git("commit", "-am", "older")
    flowers.write_params(params)
    done = flowers.review("--base", "HEAD", "--gate")
    assert done.returncode == 0, done.stderr
    assert "**flowers: unchanged.**" in done.stdout
    assert "or one written for another version of this package. Head's rules were used for both" in done.stdout


def test_paths_of_rules(tmp_path: Path) -> None:
    params = {"review": {**PARAMS["review"], "test_set": "./data//test/", "min_accuracy": {}}}
    params["review"]["models"] = {"a": {"predictions": "./p.csv", "metrics": "m.json"}}
    Flowers(tmp_path).write_params(params)
    rules = load_rules(working_tree(tmp_path))
    assert rules is not None
    assert (rules.test_set, rules.models["a"].predictions) == ("data/test", "p.csv")


def test_first_review(flowers: Flowers) -> None:
    """The change that introduces predictions and the section `review` has nothing to compare them with."""
    flowers.git("checkout", "main")
    params = flowers.params()
    flowers.write_params({"model": params["model"]})
    flowers.git("commit", "-am", "no review")
    flowers.git("checkout", "-B", "work")
    flowers.write_params(params)
    flowers.commit_predictions()
    done = flowers.review("--gate")
    assert done.returncode == 0, done.stderr
    assert "**flowers: new.**" in done.stdout


def test_git_refuses(flowers: Flowers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    done = flowers.review()
    assert done.returncode == 1
    assert "detected dubious ownership" in done.stderr
    assert "git config --global --add safe.directory" in done.stderr


def test_removed_from_rules(flowers: Flowers) -> None:
    params = flowers.params()
    params["review"] |= {"models": {}, "min_accuracy": {}, "significance": 0.001}
    flowers.write_params(params)
    done = flowers.review("--gate")
    assert done.returncode == 1
    assert "**flowers: removed.**" in done.stdout
    assert "`review.significance`: `0.05` → `0.001`" in done.stdout


def test_conflicts(flowers: Flowers) -> None:
    with (flowers.folder / "dvc.lock").open("a") as file:
        file.write("<<<<<<< ours\n=======\n>>>>>>> theirs\n")
    assert "run `git checkout --ours` on it and `dvc repro`" in flowers.review().stderr


def test_project_in_a_subfolder(worse: Flowers, tmp_path: Path) -> None:
    outer = Flowers(tmp_path)
    outer.run("git", "init", "-b", "main")
    inner = worse.copy(tmp_path / "inner")
    head = {name: (inner.folder / name).read_bytes() for name in ("dvc.lock", "metrics.json", "params.yaml")}
    inner.git("checkout", "-f", "main")
    inner.run("rm", "-rf", ".git")
    inner.run("dvc", "config", "core.no_scm", "false")
    inner.git("add", "-A")
    inner.git("commit", "-m", "base")
    inner.git("checkout", "-b", "work")
    for name, content in head.items():
        (inner.folder / name).write_bytes(content)
    inner.git("commit", "-am", "head")
    inner.run("rm", "-r", ".dvc/cache")
    done = inner.review("--rebuild")
    assert done.returncode == 0, done.stderr
    assert "**flowers: worse.**" in done.stdout


def test_failed_checkout(worse: Flowers, tmp_path: Path) -> None:
    """The message is Git's, and no working tree is left over."""
    worse = worse.copy(tmp_path / "copy")
    worse.run("rm", "-r", ".dvc/cache")
    worse.git("config", "filter.broken.smudge", "false")
    worse.git("config", "filter.broken.required", "true")
    (worse.folder / ".git" / "info" / "attributes").write_text("* filter=broken\n")
    done = worse.review("--rebuild")
    assert (done.returncode, "smudge filter broken failed" in done.stderr) == (1, True), done.stderr
    assert len(worse.run("git", "worktree", "list").stdout.splitlines()) == 1
