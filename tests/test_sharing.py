"""What the README says of working together: a DVC remote, experiments, and a dvc.lock that two branches changed."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.flowers import Flowers


@pytest.fixture
def shared(original_flowers: Flowers, tmp_path: Path) -> Flowers:
    """A project with a remote and everything in it."""
    flowers = original_flowers.copy(tmp_path / "flowers")
    flowers.run("dvc", "remote", "add", "--default", "storage", str(tmp_path / "storage"))
    flowers.run("dvc", "remote", "modify", "storage", "verify", "true")
    flowers.git("commit", "-am", "remote")
    flowers.run("dvc", "push", "--run-cache")
    return flowers


def clone(flowers: Flowers, name: str) -> Flowers:
    folder = flowers.folder.parent / name
    subprocess.run(["git", "clone", "-q", flowers.folder, folder], check=True)
    return Flowers(folder)


def test_a_colleague_gets_everything_and_trains_nothing(shared: Flowers) -> None:
    colleague = clone(shared, "colleague")
    colleague.run("dvc", "pull")
    assert "Stage 'train' didn't change, skipping" in colleague.run("dvc", "repro").stdout
    assert (colleague.folder / "probabilities.npy").read_bytes() == (shared.folder / "probabilities.npy").read_bytes()


def test_a_corrupted_object_is_told_and_not_used(shared: Flowers) -> None:
    outs = yaml.safe_load((shared.folder / "dvc.lock").read_text())["stages"]["train"]["outs"]
    digest = next(out["md5"] for out in outs if out["path"] == "probabilities.npy")
    stored = shared.folder.parent / "storage" / "files" / "md5" / digest[:2] / digest[2:]
    stored.chmod(0o644)
    stored.write_bytes(b"something else")
    colleague = clone(shared, "colleague")
    done = colleague.run("dvc", "pull", check=False)
    assert done.returncode != 0
    assert digest in done.stderr + done.stdout or "probabilities.npy" in done.stderr + done.stdout
    assert not (colleague.folder / "probabilities.npy").exists()


def test_a_push_that_was_cut_short_can_be_repeated(shared: Flowers) -> None:
    stored = sorted((shared.folder.parent / "storage" / "files").rglob("??????????????????????????????"))
    assert len(stored) > 1
    stored[0].unlink()
    shared.run("dvc", "push")
    clone(shared, "colleague").run("dvc", "pull")


def test_experiments_are_queued_shown_and_applied(shared: Flowers) -> None:
    shared.run("dvc", "exp", "run", "--queue", "--name", "narrow", "--set-param", "model.columns=2")
    shared.run("dvc", "exp", "run", "--run-all")
    table = shared.run("dvc", "exp", "show", "--csv").stdout
    assert "narrow" in table
    shared.run("dvc", "exp", "apply", "narrow")
    assert "columns: 2" in (shared.folder / "params.yaml").read_text()
    assert "Stage 'train' didn't change, skipping" in shared.run("dvc", "repro").stdout


def test_the_way_out_of_a_conflict_in_the_lock(shared: Flowers) -> None:
    shared.git("checkout", "-b", "theirs")
    shared.change(strength=2.0)
    shared.git("checkout", "main")
    shared.change(columns=3)
    shared.git("merge", "theirs", "--no-edit", check=False)
    lock = shared.folder / "dvc.lock"
    assert "<<<<<<<" in lock.read_text()
    (shared.folder / "params.yaml").write_text(
        shared.run("git", "show", "main:params.yaml").stdout.replace("strength: 1.0", "strength: 2.0")
    )
    shared.git("checkout", "--ours", "dvc.lock", "metrics.json")
    shared.run("dvc", "repro")
    shared.git("add", "params.yaml", "dvc.lock", "metrics.json")
    shared.git("commit", "--no-edit")
    assert "up to date" in shared.run("dvc", "status").stdout
    assert "strength: 2.0" in lock.read_text()
    assert "columns: 3" in lock.read_text()


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Start an SSH server; give its address and the key that opens it."""
    command = [sys.executable, "-m", "tests.ssh_server", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        port = int(server.stdout.readline())
        yield f"ssh://127.0.0.1:{port}{tmp_path}/storage", tmp_path / "user"
        server.kill()


def test_a_server_is_pushed_to_and_pulled_from(
    original_flowers: Flowers, tmp_path: Path, ssh: tuple[str, Path]
) -> None:
    address, key = ssh
    flowers = original_flowers.copy(tmp_path / "flowers")
    flowers.run("dvc", "remote", "add", "--default", "storage", address)
    flowers.run("dvc", "remote", "modify", "storage", "keyfile", str(key))
    flowers.git("commit", "-am", "remote")
    flowers.run("dvc", "push")
    colleague = clone(flowers, "colleague")
    colleague.run("dvc", "pull")
    assert "Stage 'train' didn't change, skipping" in colleague.run("dvc", "repro").stdout
