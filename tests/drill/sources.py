"""Faults of the sources of the data set: each kind of source fails in ten ways, and the fetch is killed.

Each attempt runs the stage fetch with limited memory and file size; checks what it reports, writes and leaves behind.
"""

import gzip
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
from ruamel.yaml import YAML

from tests.conftest import FILES, ROOT, Project, small_params, write_raw
from tests.drill.project import finish, processes, started
from tests.drill.row import AttemptError, Row, repeated

TIMEOUT, DEADLINE = 2, 5  # of the stage, in seconds
LIMIT = 60  # seconds in which it must end
STAGE = [
    *("sh", "-c", 'ulimit -v 500000; ulimit -f 40000; exec "$@"', "sh"),  # 500 MB of memory, 20 MB per file
    *(sys.executable, "-m", "stages.fetch", "data/raw"),
]
SPOILED = ("truncated", "wrong checksum", "HTML", "gzip bomb", "wrong length")
TRUNCATED = "is corrupt: Compressed file ended before"
URL_WAYS = {  # what the stage must report
    "refused": "Connection refused",
    "hangs": f"no response within {TIMEOUT} seconds",
    "slow drip": f"not finished after {DEADLINE} seconds",
    "truncated": TRUNCATED,
    "wrong checksum": "has SHA-256 .*, expected",
    "HTML": "is an HTML page",
    "gzip bomb": "contains more bytes, expected",
    "redirect loop": "HTTP Error 302: .* infinite loop",
    "wrong length": "contains .* bytes, expected|Not a gzipped file",
    "closed mid-file": TRUNCATED,
}
PACKAGE_WAYS = {
    way: message if way == "slow drip" else "`apt-get .*` failed: E: ." + (f"|{message}" if way in SPOILED else "")
    for way, message in URL_WAYS.items()
}
FOLDER_WAYS = {
    "missing folder": "is not a folder",
    "named pipe": "is not a file",
    "folder": "is not a file",
    "symlink loop": "is not a file",
    "cut": "contains .* bytes, expected",
    **{way: URL_WAYS[way] for way in SPOILED},
}
GOOD = "env:GOOD"  # a source that does not fail


def web_folder(folder: Path, choices: random.Random, planted: bool) -> float:
    """Let the download of one of the files fail."""
    way = list(URL_WAYS)[int(folder.name) % len(URL_WAYS)]
    files = write_files(folder)
    archives = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    name = choices.choice(sorted(files))
    if way == "wrong length" and choices.random() < 0.5:
        way = "endless"
    elif way in SPOILED:
        archives[f"{name}.gz"] = spoiled(files[name], way, choices)
    with served(archives, way, f"{name}.gz") as address:
        return fetched_anyway(folder, address, URL_WAYS.get(way, URL_WAYS["wrong length"]), planted)


def package(folder: Path, choices: random.Random, planted: bool) -> float:
    """Let a request of APT fail, or put a faulty file into the package."""
    way = list(PACKAGE_WAYS)[int(folder.name) % len(PACKAGE_WAYS)]
    message = PACKAGE_WAYS[way]
    files = write_files(folder)
    archives = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    inside = way in SPOILED and choices.random() < 0.5
    if inside:
        name = choices.choice(sorted(files))
        archives[f"{name}.gz"] = spoiled(files[name], way, choices)
    repository = apt_repository(folder, archives)
    faulty = choices.choice(["Packages", "lines.deb"])  # unsigned, so APT ignores errors in Release
    if way == "wrong length" and not inside and choices.random() < 0.5:
        way = "endless"
    elif way in SPOILED and not inside:
        repository[faulty] = spoiled(repository[faulty], way, choices)
    with served(repository, way, faulty) as address:
        return fetched_anyway(folder, "debian:lines", message, planted, apt_config(folder, address))


def local_folder(folder: Path, choices: random.Random, planted: bool) -> float:
    """Put a faulty file into a local folder."""
    way = list(FOLDER_WAYS)[int(folder.name) % len(FOLDER_WAYS)]
    files = write_files(folder)
    first = shutil.copytree(folder / "good", folder / "first")
    name = choices.choice(sorted(files))
    (first / name).unlink()
    path = first / f"{name}.gz"
    match way:
        case "missing folder":
            shutil.rmtree(first)
        case "named pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "symlink loop":
            path.symlink_to(path)
        case "cut":  # not compressed
            path.write_bytes(files[name][: choices.randrange(len(files[name]))])
        case _:
            path.write_bytes(spoiled(files[name], way, choices))
    return fetched_anyway(folder, "env:FIRST", FOLDER_WAYS[way], planted)


def killed(folder: Path, choices: random.Random, planted: bool) -> float:
    """Kill the fetch at a random moment, alone or with the programs that it has started."""
    archives = {f"{name}.gz": gzip.compress(content) for name, content in write_files(folder).items()}
    apt = not NO_APT and choices.random() < 0.5
    with served(apt_repository(folder, archives) if apt else archives, "slow") as address:
        source, environment = ("debian:lines", apt_config(folder, address)) if apt else (address, {})
        with start(folder, [source], environment, LIMIT) as first:
            try:
                first.communicate(timeout=choices.uniform(0, 3))
            except subprocess.TimeoutExpired:
                choices.choice([os.kill, os.killpg])(first.pid, signal.SIGKILL)
        shutil.rmtree(folder / "data" / "raw", ignore_errors=True)  # as DVC does
        started_at = time.monotonic()
        done = finish(start(folder, [source], environment, LIMIT), LIMIT)
        taken = time.monotonic() - started_at
    if done.returncode:
        raise AttemptError(f"the next fetch failed:\n{done.stdout}")
    if planted:
        (folder / "data" / ".raw.tmp").mkdir()
    check(folder)
    return taken


def fetched_anyway(
    folder: Path, source: str, message: str, planted: bool, environment: Mapping[str, str] | None = None
) -> float:
    """Fetch with another source after the one that fails, then without; return the seconds of the first fetch.

    Raises:
        AttemptError: as for `finish` or `check`, or the stage did not report the fault, or it wrote files after it.
    """
    report = rf"(?m)^(  - )?{re.escape(source)}: .*({message})"
    started_at = time.monotonic()
    done = finish(start(folder, [source, GOOD], environment or {}), LIMIT)
    taken = time.monotonic() - started_at
    if done.returncode or not re.search(report, done.stdout):
        raise AttemptError(f"exit code {done.returncode}, expected 0 and {message!r}:\n{done.stdout}")
    if planted:
        with (folder / "data" / "raw" / "train_labels.idx").open("ab") as file:
            file.write(b"\0")
    check(folder)
    shutil.rmtree(folder / "data")
    done = finish(start(folder, [source], environment or {}), LIMIT)
    if done.returncode != 1 or not re.search(report, done.stdout):
        raise AttemptError(f"no other source: exit code {done.returncode}, expected 1 and {message!r}:\n{done.stdout}")
    if (folder / "data").exists() and any((folder / "data").iterdir()):
        raise AttemptError("it wrote files, but its only source had failed")
    return taken


def check(folder: Path) -> None:
    """Check the files that the stage wrote.

    Raises:
        AttemptError: one of them is wrong, or another file or a process is left over.
    """
    expected = {f"{key}.idx": (folder / "good" / name).read_bytes() for key, name in FILES.items()}
    written = {path.name: path.read_bytes() for path in (folder / "data" / "raw").iterdir()}
    if wrong := dict(expected.items() ^ written.items()):
        raise AttemptError(f"missing, left over or different: {', '.join(wrong)}")
    left = [path for path in [*(folder / "data").iterdir(), *(folder / "tmp").iterdir()] if path.name != "raw"]
    if left:
        raise AttemptError(f"left over: {left}")
    if alive := psutil.wait_procs(processes(folder), timeout=LIMIT)[1]:
        raise AttemptError(f"still running: {alive}")


def write_files(folder: Path) -> dict[str, bytes]:
    """Write the raw files to folder/good and return them, by name."""
    (folder / "good").mkdir()
    return {path.name: path.read_bytes() for path in write_raw(folder / "good").iterdir()}


def spoiled(content: bytes, way: str, choices: random.Random) -> bytes:
    """Return a faulty archive of a file."""
    match way:
        case "truncated":
            archive = gzip.compress(content)
            return archive[: choices.randrange(2, len(archive))]
        case "wrong checksum":
            altered = bytearray(content)
            altered[choices.randrange(len(altered))] ^= choices.randrange(1, 256)
            return gzip.compress(altered)
        case "HTML":
            return b"<!DOCTYPE html><title>Sign in</title>"
        case "gzip bomb":
            return gzip.compress(bytes(10_000_000)) * 100
        case _:
            return gzip.compress(content + bytes(1) if choices.random() < 0.5 else content[:-1])


@contextmanager
def served(files: Mapping[str, bytes], way: str, faulty: str | None = None) -> Iterator[str]:
    """Serve files from a web server, the faulty one (by default all) with a fault; yield the server's URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            if name not in files:
                self.send_error(404)
                return
            with suppress(OSError):  # the client may leave
                self.respond(files[name], way if name == faulty or faulty is None else "")

        def respond(self, body: bytes, way: str) -> None:
            if way == "hangs":
                self.rfile.read()  # until the client leaves
            loops = way == "redirect loop"
            self.send_response(302 if loops else 200)
            if loops:
                self.send_header("Location", self.path)
            elif way != "endless":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            match way:
                case "slow drip":
                    for value in body:
                        self.wfile.write(bytes([value]))
                        time.sleep(0.3)
                case "slow":
                    for begin in range(0, len(body), 10_000):
                        self.wfile.write(body[begin : begin + 10_000])
                        time.sleep(0.05)
                case "closed mid-file":
                    self.wfile.write(body[: len(body) // 2])
                case _:
                    self.wfile.write(body)
            while loops or way == "endless":
                self.wfile.write(b"\xff" * 1_000_000)

        def log_message(self, *args: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        if way != "refused":
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield address
            finally:
                server.shutdown()
                thread.join()
            return
    yield address


def apt_repository(folder: Path, archives: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files of an APT repository with one package, by name."""
    control = "Package: lines\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: -\n"
    for name, content in {"DEBIAN/control": control.encode(), **archives}.items():
        path = folder / "package" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    archive = folder / "lines.deb"
    subprocess.run(
        ["dpkg-deb", "--build", "-Zgzip", archive.with_name("package"), archive], check=True, stdout=subprocess.DEVNULL
    )
    content = archive.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    packages = f"{control}Filename: ./{archive.name}\nSize: {len(content)}\nSHA256: {digest}\n".encode()
    release = f"Suite: drill\nSHA256:\n {hashlib.sha256(packages).hexdigest()} {len(packages)} Packages\n"
    return {"Release": release.encode(), "Packages": packages, archive.name: content}


def apt_config(folder: Path, address: str) -> dict[str, str]:
    """Return the environment in which APT uses a repository instead of those of the system."""
    sources, config = folder / "sources.list", folder / "apt.conf"
    sources.write_text(f"deb [trusted=yes] {address} ./\n")
    options = {
        "Dir::Etc::main": "-",
        "Dir::Etc::parts": "-",
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
    }
    config.write_text("".join(f'{option} "{value}";\n' for option, value in options.items()))
    return {"APT_CONFIG": str(config)}


def start(
    folder: Path, sources: Sequence[str], environment: Mapping[str, str], deadline: int = DEADLINE
) -> subprocess.Popen[str]:
    """Start the stage with these sources."""
    (folder / "tmp").mkdir(exist_ok=True)
    params = small_params(folder / "good")
    params["fetch"] |= {"sources": [*sources], "timeout": TIMEOUT, "retries": 0, "deadline": deadline}
    YAML().dump(params, folder / "params.yaml")
    folders = {"PYTHONPATH": ROOT, "TMPDIR": folder / "tmp", "FIRST": folder / "first", "GOOD": folder / "good"}
    project = Project(folder, {**os.environ, **environment, **{name: str(path) for name, path in folders.items()}})
    return started(project, *STAGE, stdout=subprocess.PIPE)


NO_APT = "" if shutil.which("apt-get") and shutil.which("dpkg-deb") else "it needs apt-get and dpkg-deb"
ROWS = (
    Row("The URL of the data set fails in one of ten ways", 30, repeated(web_folder, 2)),
    Row("The Debian package of the data set fails in one of ten ways", 30, repeated(package, 2), NO_APT),
    Row("The local folder of the data set fails in one of ten ways", 30, repeated(local_folder, 2)),
    Row("The fetch of the data set is killed at a random moment", 30, repeated(killed, 2)),
)
