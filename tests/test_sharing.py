"""docs/together.md: a DVC remote, experiments, conflicts in dvc.lock."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from tests.conftest import ROOT
from tests.flowers import Flowers

TIMEOUT = 300  # seconds for a test


@dataclass
class Storage:
    """A DVC remote: its address, its settings, and a function that overwrites a file in it."""

    address: str
    settings: dict[str, str]
    overwrite: Callable[[str, bytes], None]

    def use(self, flowers: Flowers) -> None:
        """Make this the project's default remote."""
        flowers.run("dvc", "remote", "add", "--force", "--default", "storage", self.address)
        for name, value in {**self.settings, "verify": "true"}.items():
            flowers.run("dvc", "remote", "modify", "storage", name, value)
        flowers.git("commit", "-am", "remote")


@contextmanager
def ssh_server(folder: Path, *arguments: str) -> Iterator[tuple[Storage, subprocess.Popen[str]]]:
    """Start an SSH server that stores files in folder/storage."""

    def overwrite(name: str, content: bytes) -> None:
        (folder / "storage" / name).write_bytes(content)

    command = [sys.executable, "-m", "tests.ssh_server", str(folder), *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        watchdog = threading.Timer(TIMEOUT, server.kill)  # a test that waits for a line then gets an empty one
        watchdog.start()
        try:
            assert server.stdout
            address = f"ssh://127.0.0.1:{int(server.stdout.readline())}{folder}/storage"
            yield Storage(address, {"keyfile": str(folder / "user")}, overwrite), server
        finally:
            watchdog.cancel()
            server.kill()


@contextmanager
def s3_server() -> Iterator[Storage]:
    """Start an S3 server that stores files in memory."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"access_key_id": "someone", "secret_access_key": "secret", "region": "us-east-1"}
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name=keys["region"],
        aws_access_key_id=keys["access_key_id"],
        aws_secret_access_key=keys["secret_access_key"],
    )
    client.create_bucket(Bucket="storage")

    def overwrite(name: str, content: bytes) -> None:
        client.put_object(Bucket="storage", Key=name, Body=content)

    yield Storage("s3://storage", {"endpointurl": f"http://{host}:{port}", **keys}, overwrite)
    server.stop()


@pytest.fixture(params=["folder", *(pytest.param(server, marks=pytest.mark.slow) for server in ("ssh", "s3"))])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "folder":
        folder = tmp_path / "storage"
        folder.mkdir()
        yield Storage(str(folder), {}, lambda name, content: overwrite_read_only(folder / name, content))
    elif request.param == "ssh":
        with ssh_server(tmp_path) as (remote, _):
            yield remote
    else:
        with s3_server() as remote:
            yield remote


def overwrite_read_only(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


@pytest.fixture
def flowers(original_flowers: Flowers, tmp_path: Path) -> Flowers:
    return original_flowers.copy(tmp_path / "flowers")


@pytest.fixture
def shared(flowers: Flowers, storage: Storage) -> Flowers:
    """Return a project whose outputs are in a remote."""
    storage.use(flowers)
    flowers.run("dvc", "push", "--run-cache")
    return flowers


def clone(flowers: Flowers, name: str) -> Flowers:
    folder = flowers.folder.parent / name
    subprocess.run(["git", "clone", "-q", flowers.folder, folder], check=True)
    return Flowers(folder)


def test_pull(shared: Flowers) -> None:
    colleague = clone(shared, "colleague")
    colleague.run("dvc", "pull")
    assert "Stage 'train' didn't change, skipping" in colleague.run("dvc", "repro").stdout
    assert (colleague.folder / "probabilities.npy").read_bytes() == (shared.folder / "probabilities.npy").read_bytes()


def test_corrupted_object(shared: Flowers, storage: Storage) -> None:
    outs = yaml.safe_load((shared.folder / "dvc.lock").read_text())["stages"]["train"]["outs"]
    digest = next(out["md5"] for out in outs if out["path"] == "probabilities.npy")
    storage.overwrite(f"files/md5/{digest[:2]}/{digest[2:]}", b"something else")
    colleague = clone(shared, "colleague")
    done = colleague.run("dvc", "pull", check=False)
    assert done.returncode != 0
    assert digest in done.stderr + done.stdout or "probabilities.npy" in done.stderr + done.stdout
    assert not (colleague.folder / "probabilities.npy").exists()


@pytest.mark.slow
def test_interrupted_push(flowers: Flowers, tmp_path: Path) -> None:
    with ssh_server(tmp_path, "1") as (storage, server):
        storage.use(flowers)
        with subprocess.Popen(["dvc", "push"], cwd=flowers.folder, stderr=subprocess.DEVNULL) as push:
            assert server.stdout
            line = server.stdout.readline()
            push.kill()
        assert line == "no more\n"
    with ssh_server(tmp_path) as (storage, _):
        storage.use(flowers)
        colleague = clone(flowers, "colleague")
        assert colleague.run("dvc", "pull", check=False).returncode != 0
        flowers.run("dvc", "push")
        colleague.run("dvc", "pull")
        assert "Stage 'train' didn't change, skipping" in colleague.run("dvc", "repro").stdout


@pytest.mark.slow
def test_experiments(flowers: Flowers) -> None:
    flowers.run("dvc", "exp", "run", "--queue", "--name", "narrow", "--set-param", "model.columns=2")
    flowers.run("dvc", "exp", "run", "--run-all")
    table = flowers.run("dvc", "exp", "show", "--csv").stdout
    assert "narrow" in table
    flowers.run("dvc", "exp", "apply", "narrow")
    assert "columns: 2" in (flowers.folder / "params.yaml").read_text()
    assert "Stage 'train' didn't change, skipping" in flowers.run("dvc", "repro").stdout


def test_conflict_in_the_lock(flowers: Flowers) -> None:
    flowers.git("checkout", "-b", "theirs")
    flowers.change(strength=2.0)
    flowers.git("checkout", "main")
    flowers.change(columns=3)
    flowers.git("merge", "theirs", "--no-edit", check=False)
    lock = flowers.folder / "dvc.lock"
    assert "<<<<<<<" in lock.read_text()
    (flowers.folder / "params.yaml").write_text(
        flowers.run("git", "show", "main:params.yaml").stdout.replace("strength: 1.0", "strength: 2.0")
    )
    flowers.git("checkout", "--ours", "dvc.lock", "metrics.json")
    flowers.run("dvc", "repro")
    flowers.git("add", "params.yaml", "dvc.lock", "metrics.json")
    flowers.git("commit", "--no-edit")
    assert "up to date" in flowers.run("dvc", "status").stdout
    assert "strength: 2.0" in lock.read_text()
    assert "columns: 3" in lock.read_text()
