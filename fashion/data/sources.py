"""Download the raw files from the first source that has them, and verify their length and SHA-256.

A source is a line of params.yaml: a URL (`https://.../`), a Debian or Ubuntu package (`debian:NAME`; needs no root and
is not installed) or a local folder named by an environment variable (`env:NAME`). The uncompressed files are verified
because compressed files differ between sources.
"""

import gzip
import hashlib
import http.client
import math
import os
import shutil
import signal
import ssl
import subprocess
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from types import FrameType
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

import psutil
import truststore
from tqdm import tqdm

from fashion.errors import UserError, escaped, one_line
from fashion.files import write_bytes
from fashion.params import RawFile

Reader = Callable[[RawFile], bytes]
"""Return the verified content of a file. Raises `SourceError`."""


class SourceError(Exception):
    """A source cannot provide a file. The message states the reason."""


class DeadlineError(Exception):
    """A source took too long. Not a `SourceError`: after that, a download is retried."""


def fetch(
    files: Mapping[str, RawFile],
    sources: tuple[str, ...],
    folder: Path,
    timeout: float,
    retries: int,
    deadline: float,
) -> None:
    """Fetch all files, then write each uncompressed to `folder`/KEY.idx.

    The bytes written are the same whichever source provides them. Nothing is written unless all files were fetched.

    Args:
        files: files to fetch, by key.
        sources: sources, in the order to try them.
        folder: output folder.
        timeout: seconds without a response after which a download fails.
        retries: attempts per file after the first.
        deadline: seconds after which a source is abandoned, even if it still responds.

    Raises:
        UserError: no source has one of the files (the message lists each source's error), or `folder` is not writable.
    """
    payloads: dict[str, bytes] = {}
    failures: list[str] = []
    scratch = folder.absolute().with_name(f".{folder.name}.tmp")
    for source in sources:
        shutil.rmtree(scratch, ignore_errors=True)  # left by a killed fetch
        try:
            with _time_limit(deadline):
                read = _reader(source, scratch / str(os.getpid()), timeout, retries)
                for key in [key for key in files if key not in payloads]:
                    file = files[key]
                    payloads[key] = read(file)
                    print(f"{file.name}: {file.length:,} bytes from {source}, SHA-256 verified", flush=True)
        except (SourceError, DeadlineError, OSError) as error:
            failures.append(f"{source}: {error}")
            print(escaped(failures[-1]), flush=True)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if len(payloads) == len(files):
            break
    else:
        missing = [files[key].name for key in files if key not in payloads]
        variable = next((source.removeprefix("env:") for source in sources if source.startswith("env:")), None)
        raise UserError(
            f"cannot fetch {', '.join(missing)} from any source:\n"
            + "".join(f"  - {failure}\n" for failure in failures)
            + "To use local files, put them (or the .gz files) into a folder\n"
            + (
                f"and run: {variable}=path/to/folder dvc repro"
                if variable
                else "and add env:VARIABLE to fetch.sources in params.yaml, where VARIABLE names the folder"
            )
        )
    for key, payload in payloads.items():
        write_bytes(folder / f"{key}.idx", payload)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise a `DeadlineError` in the block after `seconds`, whatever it waits for."""

    def stop(_signum: int, _frame: FrameType | None) -> None:
        raise DeadlineError(f"not finished after {seconds:g} seconds")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _reader(source: str, scratch: Path, timeout: float, retries: int) -> Reader:
    kind, _, name = source.partition(":")
    match kind:
        case "debian":
            return _debian_package(name, scratch, timeout, retries)
        case "env":
            return _user_folder(name)
        case _:
            return _web_folder(source, timeout, retries)


class _RedirectHandler(HTTPRedirectHandler):
    """Does not read the body of a redirect, which may be endless."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> Request | None:
        fp.close()
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _web_folder(url: str, timeout: float, retries: int) -> Reader:
    opener = build_opener(_RedirectHandler, HTTPSHandler(context=truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)))

    def download(file: RawFile) -> bytes:
        archive = f"{file.name}.gz"
        try:
            with (
                opener.open(quote(f"{url}{archive}", safe=":/?&=%@[]"), timeout=timeout) as response,
                tqdm.wrapattr(response, "read", total=response.length, desc=archive, leave=False, disable=None) as body,
            ):
                return _read_verified(body, archive, file)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, HTTPError):
                error.close()
            reason = error.reason if type(error) is URLError else error
            if isinstance(reason, TimeoutError):
                raise SourceError(f"{archive}: no response within {timeout:g} seconds") from error
            raise SourceError(f"{archive}: {one_line(reason)}") from error

    def read(file: RawFile) -> bytes:
        for _ in range(retries):
            with suppress(SourceError):
                return download(file)
            time.sleep(1)  # the server may be overloaded
        return download(file)

    return read


def _debian_package(package: str, scratch: Path, timeout: float, retries: int) -> Reader:
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise SourceError(f"{program} is not installed (it is part of Debian and Ubuntu)")
    lists, cache = scratch / "lists", scratch / "cache"
    for folder in (lists / "partial", cache / "archives" / "partial"):
        folder.mkdir(parents=True)
    options = [
        f"Dir::State::Lists={lists}",
        f"Dir::Cache={cache}",
        "APT::Sandbox::User=",
        "APT::Update::Error-Mode=any",
        f"Acquire::Retries={retries}",
        f"Acquire::http::Timeout={math.ceil(timeout)}",
    ]
    apt = ["apt-get", "-qq", *(argument for option in options for argument in ("-o", option))]
    print(f"downloading the package {package} with apt-get", flush=True)
    _run([*apt, "update"], scratch)
    _run([*apt, "download", package], scratch)
    archive = next(scratch.glob("*.deb"))

    def read(file: RawFile) -> bytes:
        """Read the package as a stream: unpacking it could fill the disk."""
        command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
        try:
            with (
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process,
                tarfile.open(fileobj=process.stdout, mode="r|") as members,
            ):
                for member in members:
                    name = PurePosixPath(member.name).name
                    if name in (f"{file.name}.gz", file.name) and (content := members.extractfile(member)):
                        return _read_verified(content, name, file)
        except tarfile.TarError as error:
            raise SourceError(f"{archive.name} is corrupt: {error}") from error
        raise SourceError(f"neither {file.name}.gz nor {file.name} is in the package {package}")

    return read


def _run(command: list[str], folder: Path) -> None:
    """Run a program of APT; if interrupted, kill it and the programs that it has started.

    Raises:
        SourceError: it fails.
    """
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            _, errors = process.communicate()
        except BaseException:
            with suppress(psutil.NoSuchProcess):  # it has just ended
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
            raise
    if process.returncode:
        lines = errors.decode(errors="replace").strip().splitlines() or ["no error message"]
        reason = next((line for line in lines if line.startswith("E:")), lines[-1])
        raise SourceError(f"`{command[0]} {command[-2]} {command[-1]}` failed: {reason}")


def _user_folder(variable: str) -> Reader:
    value = os.environ.get(variable)
    if not value:
        raise SourceError("the environment variable is not set")
    folder = Path(os.path.expanduser(value))  # noqa: PTH111 - leaves an unknown ~user as it is
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder")

    def read(file: RawFile) -> bytes:
        for path in (folder / f"{file.name}.gz", folder / file.name):
            if path.is_file():  # not a named pipe, which would block
                with path.open("rb") as stream:
                    return _read_verified(stream, path.name, file)
            if os.path.lexists(path):
                raise SourceError(f"{path} is not a file")
        raise SourceError(f"neither {file.name}.gz nor {file.name} is in {folder}")

    return read


def _read_verified(stream: Any, name: str, file: RawFile) -> bytes:
    """Return the uncompressed content of a buffered stream; read at most one byte beyond the expected length."""
    try:
        content = gzip.GzipFile(fileobj=stream) if stream.peek(1)[:1] == b"\x1f" else stream
        payload = content.read(file.length + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{name} is corrupt: {error}") from error
    if payload.lstrip().startswith(b"<"):
        raise SourceError(f"{name} is an HTML page instead of data; it starts with {payload[:20]!r}")
    if len(payload) != file.length:
        found = f"{len(payload):,}" if len(payload) < file.length else "more"
        raise SourceError(f"{name} contains {found} bytes, expected {file.length:,}")
    digest = hashlib.sha256(payload).hexdigest()
    if digest != file.sha256:
        raise SourceError(f"{name} has SHA-256 {digest}, expected {file.sha256}")
    return payload
