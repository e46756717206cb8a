"""After any failure of a source, the next is tried; only verified files are written."""

import gzip
import hashlib
import io
import os
import select
import socket
import ssl
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import trustme

from fashion.data import sources
from fashion.errors import UserError
from fashion.params import RawFile

PAYLOAD = bytes(range(256)) * 40
FILE = RawFile(name="labels-idx1-ubyte", length=len(PAYLOAD), sha256=hashlib.sha256(PAYLOAD).hexdigest())
ARCHIVE = gzip.compress(PAYLOAD)
BODIES = {
    "good": ARCHIVE,
    "plain": PAYLOAD,
    "truncated": ARCHIVE[:-20],
    "corrupt": ARCHIVE[:30] + bytes(8) + ARCHIVE[38:],
    "other": gzip.compress(bytes(len(PAYLOAD))),
    "short": gzip.compress(PAYLOAD[:-1]),
    "bomb": gzip.compress(bytes(50_000_000)),
    "html": b"<!DOCTYPE html><title>Sign in</title>",
    "empty": b"",
    "cut": ARCHIVE,
}


class Server(BaseHTTPRequestHandler):
    """Serve /KIND/labels-idx1-ubyte.gz with the fault that KIND names."""

    requests: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        self.requests.append(kind)
        body = BODIES.get(kind)
        if kind == "flaky" and self.requests.count("flaky") == 2:
            body = ARCHIVE
        if kind in ("drip", "endless", "loop"):
            with suppress(OSError):  # the client leaves
                self.respond_endlessly(kind)
            return
        if body is None:
            self.send_error(503 if kind == "flaky" else 404, "\x1b[2J")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if kind == "cut" else body)

    def respond_endlessly(self, kind: str) -> None:
        if kind == "drip":
            for value in b"HTTP/1.0 200 OK\r\n" * 100:
                self.wfile.write(bytes([value]))
                time.sleep(0.1)
        self.send_response(302 if kind == "loop" else 200)
        self.send_header("Location", self.path)
        self.end_headers()
        self.wfile.write(ARCHIVE)
        while True:
            self.wfile.write(b"\xff" * 1_000_000)

    def log_message(self, *args: object) -> None:
        """Log nothing."""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


@pytest.mark.skipif(sys.platform == "darwin", reason="its certificate store is not a file")
def test_system_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may include those of a company's proxy."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "system.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        running.socket = context.wrap_socket(running.socket, server_side=True)
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        fetch(tmp_path / "raw", f"https://localhost:{running.server_address[1]}/good/")
        running.shutdown()
        thread.join()
    assert written(tmp_path / "raw") == {"train_labels.idx": PAYLOAD}


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Yield a port that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def fetch(folder: Path, *names: str, timeout: float = 30, retries: int = 0, deadline: float = 60) -> None:
    sources.fetch({"train_labels": FILE}, names, folder, float(timeout), retries, float(deadline))


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", ["good", "plain"])
def test_good_source(server: str, tmp_path: Path, kind: str) -> None:
    fetch(tmp_path, f"{server}/{kind}/")
    assert written(tmp_path) == {"train_labels.idx": PAYLOAD}


FAULTS = {
    "truncated": "corrupt: Compressed file ended before the end-of-stream marker",
    "corrupt": "corrupt: ",
    "other": f"has SHA-256 {hashlib.sha256(bytes(len(PAYLOAD))).hexdigest()}, expected {FILE.sha256}",
    "short": "contains 10,239 bytes, expected 10,240",
    "bomb": "contains more bytes, expected 10,240",
    "html": "is an HTML page instead of data; it starts with b'<!DOCTYPE html><titl'",
    "empty": "contains 0 bytes, expected 10,240",
    "cut": "corrupt: Compressed file ended before the end-of-stream marker",
    "endless": "corrupt: Not a gzipped file",
    "loop": "HTTP Error 302: The HTTP server returned a redirect error that would lead to an infinite loop.",
    "missing": r"HTTP Error 404: \x1b[2J",
}


@pytest.mark.parametrize("kind", FAULTS)
def test_faulty_source(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    fetch(tmp_path, f"{server}/{kind}/", f"{server}/good/")
    assert written(tmp_path) == {"train_labels.idx": PAYLOAD}
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{server}/{kind}/: labels-idx1-ubyte.gz")
    assert FAULTS[kind] in first
    assert second == f"labels-idx1-ubyte: 10,240 bytes from {server}/good/, SHA-256 verified"


def test_refused_and_silent_connections(silent_port: int, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    with pytest.raises(UserError) as error:
        fetch(tmp_path, f"http://127.0.0.1:{closed}/", f"http://127.0.0.1:{silent_port}/", timeout=0.2)
    assert "Connection refused" in str(error.value)
    assert "no response within 0.2 seconds" in str(error.value)
    assert written(tmp_path) == {}


def test_slow_source(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It responds in time, byte by byte."""
    fetch(tmp_path, f"{server}/drip/", f"{server}/good/", timeout=10, retries=1, deadline=0.5)
    assert written(tmp_path) == {"train_labels.idx": PAYLOAD}
    assert capsys.readouterr().out.startswith(f"{server}/drip/: not finished after 0.5 seconds\n")


def test_retry(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    Server.requests.clear()
    fetch(tmp_path, f"{server}/flaky/", retries=1)
    assert written(tmp_path) == {"train_labels.idx": PAYLOAD}


def test_no_source(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASHION_MNIST_DIR", raising=False)
    with pytest.raises(UserError) as error:
        fetch(tmp_path, f"{server}/missing/", f"{server}/html/", "env:FASHION_MNIST_DIR")
    lines = str(error.value).splitlines()
    assert lines[0] == "cannot fetch labels-idx1-ubyte from any source:"
    assert [line.split(": ")[0] for line in lines[1:4]] == [
        f"  - {server}/missing/",
        f"  - {server}/html/",
        "  - env:FASHION_MNIST_DIR",
    ]
    assert lines[3].endswith("the environment variable is not set")
    assert lines[4:] == [
        "To use local files, put them (or the .gz files) into a folder",
        "and run: FASHION_MNIST_DIR=path/to/folder dvc repro",
    ]
    assert written(tmp_path) == {}


@pytest.mark.parametrize(("name", "content"), [(FILE.name, PAYLOAD), (f"{FILE.name}.gz", ARCHIVE)])
def test_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_bytes(content)
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path / "mine"))
    fetch(tmp_path / "raw", "env:FASHION_MNIST_DIR")
    assert written(tmp_path / "raw") == {"train_labels.idx": PAYLOAD}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nowhere", "nowhere is not a folder"),
        ("~nobody-has-this-name/data", "~nobody-has-this-name/data is not a folder"),
        (".", "neither .* is in"),
    ],
)
def test_wrong_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASHION_MNIST_DIR", value)
    with pytest.raises(UserError, match=message):
        fetch(tmp_path / "raw", "env:FASHION_MNIST_DIR")


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop"])
def test_no_regular_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = tmp_path / f"{FILE.name}.gz"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path))
    with pytest.raises(UserError, match=f"{path.name} is not a file"):
        fetch(tmp_path / "raw", "env:FASHION_MNIST_DIR")


def test_killed_before(server: str, tmp_path: Path) -> None:
    """The next fetch removes what one left that was killed."""
    (tmp_path / ".raw.tmp" / "1" / "lists").mkdir(parents=True)
    fetch(tmp_path / "raw", f"{server}/good/")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


IMAGES = RawFile(name="images-idx3-ubyte", length=3, sha256=hashlib.sha256(b"abc").hexdigest())


@pytest.mark.parametrize("second_has_images", [True, False])
def test_all_files_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second_has_images: bool) -> None:
    for folder, name, content in (
        ("first", FILE.name, PAYLOAD),
        ("first", IMAGES.name, b"xyz"),
        ("second", IMAGES.name if second_has_images else "other", b"abc"),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes(content)
        monkeypatch.setenv(folder.upper(), str(tmp_path / folder))
    files, names = {"labels": FILE, "images": IMAGES}, ("env:FIRST", "env:SECOND")
    if second_has_images:
        sources.fetch(files, names, tmp_path / "raw", timeout=1.0, retries=0, deadline=60.0)
        assert written(tmp_path / "raw") == {"labels.idx": PAYLOAD, "images.idx": b"abc"}
    else:
        with pytest.raises(UserError, match="cannot fetch images-idx3-ubyte from any source"):
            sources.fetch(files, names, tmp_path / "raw", timeout=1.0, retries=0, deadline=60.0)
        assert not (tmp_path / "raw").exists()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, the only one in PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def write_program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_no_apt(programs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="apt-get is not installed"):
        fetch(tmp_path / "raw", "debian:dataset-fashion-mnist")
    assert list(programs.iterdir()) == []


def test_apt_failure(programs: Path, tmp_path: Path) -> None:
    write_program(programs / "apt-get", "echo 'E: no route to the archive' >&2; exit 100")
    write_program(programs / "dpkg-deb", "exit 0")
    with pytest.raises(UserError, match=r"`apt-get .* update` failed: E: no route to the archive"):
        fetch(tmp_path / "raw", "debian:dataset-fashion-mnist")


def test_apt_hangs(programs: Path, tmp_path: Path) -> None:
    """It is killed, with the program that it has started."""
    os.mkfifo(tmp_path / "pipe")
    write_program(programs / "apt-get", f"/bin/sleep 60 > '{tmp_path}/pipe' & wait")
    write_program(programs / "dpkg-deb", "exit 0")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(UserError, match=r"debian:dataset-fashion-mnist: not finished after 0\.5 seconds"):
        fetch(tmp_path / "raw", "debian:dataset-fashion-mnist", deadline=0.5)
    assert select.select([reader], [], [], 10)[0], "the program that has the pipe open still runs"
    os.close(reader)
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "pipe"}


def test_apt_reason(programs: Path, tmp_path: Path) -> None:
    write_program(programs / "apt-get", "printf 'W: old\nE: Failed to fetch x\n  - Filesize: 1\n' >&2; exit 100")
    write_program(programs / "dpkg-deb", "exit 0")
    with pytest.raises(UserError, match=r"failed: E: Failed to fetch x\n"):
        fetch(tmp_path / "raw", "debian:dataset-fashion-mnist")


@pytest.mark.parametrize(("content", "message"), [(b"", "package.deb is corrupt"), (bytes(10_240), "neither .* is in")])
def test_wrong_package(programs: Path, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "package.tar").write_bytes(content)
    write_program(programs / "apt-get", ": > package.deb")
    write_program(programs / "dpkg-deb", f"exec /bin/cat '{tmp_path}/package.tar'")
    with pytest.raises(UserError, match=message):
        fetch(tmp_path / "raw", "debian:dataset-fashion-mnist")


def test_debian_package(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "package.tar", "w") as tar:
        for name, content in (("usr/share/other", bytes(100_000)), (f"usr/share/{FILE.name}.gz", ARCHIVE)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    write_program(programs / "apt-get", 'case "$*" in *download*) : > package.deb;; esac; echo "$*" >> "$LOG"')
    write_program(programs / "dpkg-deb", f"exec /bin/cat '{tmp_path}/package.tar'")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    fetch(tmp_path / "raw", "debian:dataset-fashion-mnist")
    assert written(tmp_path / "raw") == {"train_labels.idx": PAYLOAD}
    update, download = (tmp_path / "log").read_text().splitlines()
    assert update.endswith(" update")
    assert download.endswith(" download dataset-fashion-mnist")
    assert "Dir::State::Lists=" in update
