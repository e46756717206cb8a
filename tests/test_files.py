"""Files are complete or absent."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fashion import files
from fashion.errors import UserError
from tests.conftest import ROOT


def test_write(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.json"
    files.write_json(path, {"a": 1})
    assert files.read_json(path) == {"a": 1}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_failed_write(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def write_half() -> None:
        with files.atomic_write(path) as file:
            file.write(b"half")
            raise failure

    with pytest.raises(failure):
        write_half()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_killed_writer(tmp_path: Path) -> None:
    """The next write deletes what a killed process left, but nothing of a running one and no other file."""
    path = tmp_path / "file[1]"
    script = "import sys; from pathlib import Path; from fashion import files; path = Path(sys.argv[1])\n"
    killed = "import os; writing = files.atomic_write(path); writing.__enter__(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script + killed, path], check=False)
    (left,) = tmp_path.iterdir()
    others = [tmp_path / f".file[1].{os.getppid()}.tmp", tmp_path / ".file[1].other.tmp", tmp_path / ".file1.1.tmp"]
    others.append(tmp_path / ".file[1].20240612184512.tmp")  # another program's
    for other in others:
        other.touch()
    files.write_text(path, "text")
    assert not left.exists()
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])


def test_full_disk(tmp_path: Path) -> None:
    """The kernel's limit on file sizes simulates a full disk."""
    script = (
        "import resource; from pathlib import Path; from fashion import errors, files;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000));"
        "errors.run_command(lambda: files.write_text(Path('folder/file'), 'x' * 10_000))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: cannot write folder/file: File too large\n")
    assert list((tmp_path / "folder").iterdir()) == []


def test_file_instead_of_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        files.write_text(tmp_path / "file" / "below", "text")


def test_folder_instead_of_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"cannot write \."):
        files.write_text(Path(), "text")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_without_nan(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "file", {"a": value})


def test_invalid_json(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        files.read_json(tmp_path / "file")


def test_files_of_file_managers(tmp_path: Path) -> None:
    """DVC ignores them, so they do not change the hash of a folder."""
    (tmp_path / "images").mkdir()
    for name in (*files.IGNORED, "a.png"):
        (tmp_path / "images" / name).write_bytes(b"x")
    assert list(files.list_folder(tmp_path)) == ["images/a.png"]
    assert set(files.IGNORED) < set((ROOT / ".dvcignore").read_text().split())
