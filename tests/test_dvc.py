"""The reader of dvc.lock, of what it records and of Git."""

from pathlib import Path

import pytest

from fashion.dvc import MAX_COMMITTED, Lock, git, md5, read_committed, read_output
from fashion.errors import UserError

LOCK = """
schema: '2.0'
stages:
  split:
    cmd: make-split
    outs:
    - path: train.npz
      md5: 5d41402abc4b2a76b9719d911017c592
  fit:
    cmd: fit
    deps:
    - path: train.npz
      md5: 5d41402abc4b2a76b9719d911017c592
    params:
      params.yaml:
        rate: 1e-05
    outs:
    - path: model
      md5: 7d793037a0760186574b0282f2f435e7
"""


@pytest.fixture
def lock() -> Lock:
    return Lock.parse(LOCK.encode(), "dvc.lock")


def test_lock(lock: Lock) -> None:
    assert lock.outputs == {"train.npz": md5(b"hello"), "model": md5(b"world")}
    assert lock.maker("model") == "fit"
    assert lock.inputs("fit") == {"train.npz": md5(b"hello")}
    assert lock.inputs("split") == {}
    assert lock.params("fit") == {"params.yaml": {"rate": 1e-05}}


def test_upstream(lock: Lock) -> None:
    assert lock.upstream("model") == ["fit", "split"]
    assert lock.upstream("train.npz") == ["split"]
    assert lock.upstream("unknown") == []


def test_read_output(lock: Lock, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model is missing; run `dvc repro fit`"):
        read_output(tmp_path, lock, "model")
    (tmp_path / "model").write_bytes(b"world")
    assert read_output(tmp_path, lock, "model") == b"world"
    (tmp_path / "model").write_bytes(b"other")
    with pytest.raises(UserError, match=r"model was altered: .*; delete it and run `dvc repro fit`"):
        read_output(tmp_path, lock, "model")
    with pytest.raises(UserError, match=r"nothing is not in dvc\.lock"):
        read_output(tmp_path, lock, "nothing")


def test_made_from() -> None:
    old = "      md5: 5d41402abc4b2a76b9719d911017c592\n    params"
    lock = Lock.parse(LOCK.replace(old, old.replace("5d", "00")).encode(), "dvc.lock")
    with pytest.raises(UserError, match=r"model was made from another version of train\.npz; run `dvc repro`"):
        lock.check_made_from("model", "train.npz")
    Lock.parse(LOCK.encode(), "dvc.lock").check_made_from("model", "train.npz")
    with pytest.raises(UserError, match="made from another version of nothing"):
        lock.check_made_from("model", "nothing")


def test_no_lock(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dvc\.lock is missing; run this in the project's folder"):
        Lock.read(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"stages: 1", b"stages: {1: {}}", b"stages: {a: 1}", b"stages: {a: {outs: [1]}}", b"stages: \xff"),
        *(b"stages: {a: {deps: [{path: b, md5: c, nfiles: d}]}}", b"<<<<<<< ours"),
    ],
)
def test_bad_lock(content: bytes) -> None:
    with pytest.raises(UserError, match=r"^dvc\.lock of main cannot be read \(.*git checkout --ours") as caught:
        Lock.parse(content, "dvc.lock of main")
    assert "\n" not in str(caught.value)


def test_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_bytes(b"\x00\xff\n")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "message")
    assert git(tmp_path, "log", "--format=%s") == "message"
    assert read_committed(tmp_path, "HEAD", "file") == b"\x00\xff\n"
    assert read_committed(tmp_path, "HEAD", "other") is None
    (tmp_path / "file").write_bytes(bytes(MAX_COMMITTED + 1))
    git(tmp_path, "commit", "-aqm", "a long file")
    with pytest.raises(UserError, match=r"^file of HEAD: 67,108,865 bytes; the limit for files in Git is 67,108,864$"):
        read_committed(tmp_path, "HEAD", "file")
    with pytest.raises(UserError, match=r"^fatal: "):
        git(tmp_path, "rev-parse", "--verify", "nowhere")
    with pytest.raises(UserError, match=r"^no such commit$"):
        git(tmp_path, "rev-parse", "--verify", "nowhere", problem="no such commit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="git is not installed"):
        git(tmp_path, "log")


def test_words_that_yaml_1_1_takes_for_booleans() -> None:
    """DVC writes YAML 1.2, in which they are text."""
    params = "{a: yes, b: No, c: on, d: y, e: true, f: False}"
    lock = Lock.parse(f"stages: {{train: {{cmd: x, params: {{params.yaml: {params}}}}}}}".encode(), "dvc.lock")
    expected = {"a": "yes", "b": "No", "c": "on", "d": "y", "e": True, "f": False}
    assert lock.params("train") == {"params.yaml": expected}
