"""The command line: fast help, errors without a traceback, the table of results."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fashion.errors import UserError
from fashion.evaluation import results
from fashion.validation import read_yaml
from tests.conftest import ROOT, idx_params

STAGES = sorted(path.stem for path in (ROOT / "stages").glob("[a-z]*.py") if path.stem != "training")
MODULES = ["fashion.cli", *(f"stages.{stage}" for stage in STAGES)]
HEAVY = {"tensorflow", "keras", "numpy", "pandas", "matplotlib", "jinja2", "requests", "dvc"}


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", MODULES)
def test_help(module: str) -> None:
    done = python("-X", "importtime", "-m", module, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: ")
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert imported & HEAVY == set()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["stages.preprocess", "nowhere", "a", "b", "c", "d"],
            "error: nowhere/train_images.idx: No such file or directory",
        ),
        (["stages.evaluate", "nowhere.keras", "nowhere", "a", "b"], "error: nowhere: not a valid split"),
        (["stages.plot", *"abcdef"], "error: a: not a valid split"),
        (["fashion.cli", "results", "--root", "nowhere"], "error: there is no "),
    ],
)
def test_missing_input(arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, without the start-up messages of TensorFlow."""
    (tmp_path / "params.yaml").write_text(idx_params())
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = python("-m", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


PARAMS = (
    "dataset: {name: Lines}\ntraining: {epochs: 4}\nmodels:\n  wide: {epochs: 3}\n  tall: {epochs: 3}\n  plain: {}\n"
)
BENCHMARKS = {
    "dataset": "Lines",
    "machine": {"commit": "1234567"},
    "recipes": {"wide": {"epochs": 3}, "plain": {"epochs": 4}, "tall": {"epochs": 1}},
}
METRICS = {
    "accuracy": 0.5,
    "accuracy_interval": {"low": 0.25, "high": 0.75},
    "balanced_accuracy": 0.500001,  # rounded
    "macro_f1": 0.45,
    "loss": 1.25,
    "parameters": 1234,
    "inference_flops": 5600000,
}


def lock_of_data(digest: str) -> str:
    return json.dumps({"stages": {"preprocess": {"cmd": "x", "outs": [{"path": "data/train", "md5": digest}]}}})


def committed(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def results_folder(tmp_path: Path) -> Path:
    """Return a folder with the results of three models."""
    code, digest = "pass\n", hashlib.md5(b"pass\n", usedforsecurity=False).hexdigest()
    rows = ["wide,wide,1,1234,5600000,0.5,0.9,7", "wide,wide,3,1234,5600000,0.5,0.8,7", "tall,tall,2,1234,,0.5,0.95,7"]
    header = "variant,model,seed,parameters,inference_flops,val_accuracy,accuracy,seconds"
    committed(
        tmp_path / "studies/seeds/trials.csv",
        "\n".join([header, *rows, "untested,wide,1,9,9,0.5,,7"]),
    )
    models = ("wide", "tall")
    code_files = ["fashion/shared.py", *(f"fashion/models/{model}.py" for model in models)]
    stages = {
        "some": {
            "deps": [
                {"path": "data/train", "md5": "0" * 32},
                *({"path": path, "md5": digest} for path in code_files),
            ],
            "params": {
                "params.yaml": {"dataset.name": "Lines", **{f"models.{model}": {"epochs": 3} for model in models}}
            },
            "outs": [{"path": "studies/seeds/trials.csv", "md5": "0" * 32}],
        }
    }
    for path in code_files:
        committed(tmp_path / path, code)
    for model in ("wide", "plain"):
        committed(tmp_path / f"reports/{model}/metrics.json", json.dumps(METRICS))
    committed(
        tmp_path / "reports/benchmarks.json",
        json.dumps({"float32": {**BENCHMARKS, "train_time_ratio": {"wide": 0.514}}}),
    )
    committed(tmp_path / "params.yaml", PARAMS)
    committed(tmp_path / "studies/seeds/dvc.lock", json.dumps({"stages": stages}))
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "results"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_results(results_folder: Path) -> None:
    table = python("-m", "fashion.cli", "results", "--root", str(results_folder)).stdout
    assert table.splitlines() == [
        "| Model | Parameters | MFLOP | Test accuracy  | Seeds | Training time, x T_ref | Last run (95% interval)   |",
        "|-------|------------|-------|----------------|-------|------------------------|---------------------------|",
        "| PLAIN | 1,234      | 5.6   | -              | -     | -                      | 50.00% (25.00% to 75.00%) |",
        "| WIDE  | 1,234      | 5.6   | 85.00% ± 7.07% | 2     | 0.51                   | 50.00% (25.00% to 75.00%) |",
        "| TALL  | 1,234      | -     | 95.00%         | 1     | -                      | -                         |",
    ]
    found = json.loads(python("-m", "fashion.cli", "results", "--json", "--root", str(results_folder)).stdout)
    assert found[1] == {
        "name": "wide",
        "accuracy_mean": pytest.approx(0.85),
        "accuracy_std": pytest.approx(0.0707, abs=1e-4),
        "seeds": [1, 3],
        "parameters": 1234,
        "inference_flops": 5600000,
        "train_time_ratios": {"float32": 0.514},
        "train_time_commits": {},
        "commit": None,
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (",seed,", ",number,"),
        ("0.9,7", "much,7"),
        ("0.9,7", "inf,7"),
        ("0.9,7", "0.9,7\nwide,wide,,,,,1"),
        (",1234,", f",{10**19},"),
        ("wide,1,", f"{200_000 * 'w'},1,"),
    ],
)
def test_malformed_trials(results_folder: Path, old: str, new: str) -> None:
    path = results_folder / "studies/seeds/trials.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=r"studies/seeds/trials\.csv is not a table of trials: "):
        results.read(results_folder)


def test_results_on_two_machines(results_folder: Path) -> None:
    path = results_folder / "reports/benchmarks.json"
    faster = {**BENCHMARKS, "train_time_ratio": {"wide": 0.4, "plain": 2.0, "tall": 3.0}}
    path.write_text(json.dumps({"bfloat16": faster, **json.loads(path.read_text())}))
    header, _, *rows = results.markdown(results.read(results_folder)).splitlines()
    assert "| Training time, x T_ref (bfloat16 / float32) |" in header
    assert [row.split("|")[6].strip() for row in rows] == [
        "2.00 / -",
        "0.40 / 0.51",
        "3.00 (commit 1234567) / -",
    ]


def test_train_recipes(results_folder: Path) -> None:
    """Those of variants count, too: deep is timed apart from the others."""
    study = {"seeds": [1], "all": {"model": "wide"}, "variants": {"deep": {"layers": {"width": 5}, "seed": 3}}}
    committed(results_folder / "studies/seeds/params.yaml", json.dumps(study))
    params = read_yaml(results_folder / "params.yaml")
    recipe = {"epochs": 3, "model": "wide", "layers": {"width": 5}}
    assert results.train_recipes(results_folder, params) == {
        "wide": {"epochs": 3},
        "tall": {"epochs": 3},
        "plain": {"epochs": 4},
        "deep": recipe,
    }
    path = results_folder / "reports/benchmarks.json"
    machine = {**BENCHMARKS, "train_time_ratio": {"deep": 9.0}, "deep": {"commit": "7654321"}}
    trials = results_folder / "studies/seeds/trials.csv"
    trials.write_text(trials.read_text().replace("tall", "deep", 1))
    for recorded, commits in (({"deep": recipe}, {}), ({}, {"float32": "7654321"})):
        path.write_text(json.dumps({"float32": {**machine, "recipes": recorded}}))
        (deep,) = [one for one in results.read(results_folder) if one.name == "deep"]
        assert deep.train_time_commits == commits


def test_results_of_unequal_classes(results_folder: Path) -> None:
    committed(results_folder / "reports/plain/metrics.json", json.dumps({**METRICS, "balanced_accuracy": 0.4}))
    lines = results.markdown(results.read(results_folder)).splitlines()
    assert [line[line.rindex("75.00%)") + 7 :] for line in lines if "75.00%)" in line] == [
        " | 40.00%            | 45.00%   |",
        " | 50.00%            | 45.00%   |",
    ]
    assert lines[0].endswith(" | Balanced accuracy | Macro F1 |")
    assert lines[-1].endswith(" | -                         | -                 | -        |")
    assert len({len(line) for line in lines}) == 1


def test_results_for_another_data_set(results_folder: Path) -> None:
    """Results on another data set are left out."""
    committed(results_folder / "params.yaml", PARAMS.replace("Lines", "Circles"))
    assert results.markdown(results.read(results_folder)).splitlines()[2:] == [
        "| PLAIN | 1,234      | 5.6   | -             | -     | -                      | 50.00% (25.00% to 75.00%) |",
        "| WIDE  | 1,234      | 5.6   | -             | -     | -                      | 50.00% (25.00% to 75.00%) |",
    ]


@pytest.mark.parametrize(
    ("studies", "names"),
    [
        (["seeds", "other"], {"wide": 2, "other/wide": 2}),
        (["some", "other"], {"wide": 0, "some/wide": 2, "other/wide": 2}),
        (["some"], {"wide": 0, "some/wide": 2}),
    ],
)
def test_studies_of_a_model_in_params(results_folder: Path, studies: list[str], names: dict[str, int]) -> None:
    """Only studies/seeds trains it with the params in params.yaml."""
    seeds = (results_folder / "studies/seeds").rename(results_folder / "seeds")
    for study in studies:
        folder = shutil.copytree(seeds, results_folder / "studies" / study)
        (folder / "dvc.lock").write_text((seeds / "dvc.lock").read_text().replace("studies/seeds", f"studies/{study}"))
    found = {result.name: len(result.accuracies) for result in results.read(results_folder) if "wide" in result.name}
    assert found == names


@pytest.mark.parametrize(
    ("file", "text", "older"),
    [
        ("fashion/models/wide.py", "edited\n", {"wide"}),
        ("params.yaml", PARAMS.replace("tall: {epochs: 3}", "tall: {epochs: 4}"), {"tall"}),
        ("data/train", "another machine has none, or another", set()),
        ("fashion/shared.py", "edited\n", {"wide", "tall"}),
        ("dvc.lock", lock_of_data(32 * "1"), {"wide", "tall"}),
        ("dvc.lock", lock_of_data(32 * "0"), set()),
    ],
)
def test_commit_of_older_results(results_folder: Path, file: str, text: str, older: set[str]) -> None:
    committed(results_folder / file, text)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=results_folder, capture_output=True, text=True, check=True
    ).stdout.strip()
    found = results.read(results_folder)
    assert {result.name: result.commit for result in found if result.commit} == dict.fromkeys(older, commit)
    assert results.markdown(found).count(f"(commit {commit})") == len(older)


def test_unknown_commit(
    results_folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a shallow clone, Git attributes every file to the oldest commit."""
    committed(results_folder / "fashion/models/wide.py", "edited\n")
    subprocess.run(["git", "commit", "-qam", "later"], cwd=results_folder, check=True)
    shallow = tmp_path_factory.mktemp("shallow")
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{results_folder}", str(shallow)], check=True)

    def commits(folder: Path) -> set[str]:
        return {result.commit for result in results.read(folder) if result.commit}

    assert commits(shallow) == {"unknown"}
    assert commits(results_folder) not in (set(), {"unknown"})
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert commits(results_folder) == {"unknown"}
    monkeypatch.setenv("PATH", "/nonexistent")
    assert commits(results_folder) == {"unknown"}
