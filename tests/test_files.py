"""Files are complete or absent."""

import subprocess
import sys
from pathlib import Path

import pytest

from fashion import files
from fashion.errors import UserError


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


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_without_nan(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "file", {"a": value})


def test_invalid_json(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        files.read_json(tmp_path / "file")
