"""Download the raw files from the first source that has them, and verify their length and SHA-256.

A source is a line of params.yaml: a URL (`https://.../`), a Debian or Ubuntu package (`debian:NAME`; needs no root and
is not installed) or a local folder named by an environment variable (`env:NAME`). The uncompressed files are verified
because compressed files differ between sources.
"""

import gzip
import hashlib
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from fashion.errors import UserError
from fashion.files import atomic_write
from fashion.params import RawFile

Locator = Callable[[str], Path]
"""Return the path of a local copy of the named file, gzipped or not. Raises `SourceError`."""


class SourceError(Exception):
    """A source cannot provide a file. The message states the reason."""


def fetch(files: Mapping[str, RawFile], sources: tuple[str, ...], folder: Path, timeout: float, retries: int) -> None:
    """Fetch all files, then write each uncompressed to `folder`/KEY.idx.

    The bytes written are the same whichever source provides them. Nothing is written unless all files were fetched.

    Args:
        files: files to fetch, by key.
        sources: sources, in the order to try them.
        folder: output folder.
        timeout: seconds without a response after which a download fails.
        retries: attempts per file after the first.

    Raises:
        UserError: no source has one of the files (the message lists each source's error), or `folder` is not writable.
    """
    payloads: dict[str, bytes] = {}
    failures: list[str] = []
    for source in sources:
        try:
            with tempfile.TemporaryDirectory(prefix="fashion-fetch-") as scratch:
                locate = _locator(source, Path(scratch), timeout, retries)
                for key in [key for key in files if key not in payloads]:
                    file = files[key]
                    payloads[key] = _read_verified(locate(file.name), file)
                    print(f"{file.name}: {file.length:,} bytes from {source}, SHA-256 verified", flush=True)
        except (SourceError, OSError) as error:
            failures.append(f"{source}: {error}")
            print(failures[-1], flush=True)
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
        with atomic_write(folder / f"{key}.idx") as output:
            output.write(payload)


def _locator(source: str, scratch: Path, timeout: float, retries: int) -> Locator:
    kind, _, name = source.partition(":")
    match kind:
        case "debian":
            return _debian_package(name, scratch, timeout, retries)
        case "env":
            return _user_folder(name)
        case _:
            return _web_folder(source, scratch, timeout, retries)


def _web_folder(url: str, scratch: Path, timeout: float, retries: int) -> Locator:
    import pooch
    import requests
    import truststore

    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=timeout)

    def locate(name: str) -> Path:
        archive = f"{name}.gz"
        downloads = pooch.create(scratch, base_url=url, registry={archive: None}, retry_if_failed=retries)
        truststore.inject_into_ssl()
        try:
            return Path(downloads.fetch(archive, downloader=downloader))
        except requests.exceptions.HTTPError as error:
            raise SourceError(f"{archive}: {error}") from error
        except requests.exceptions.Timeout as error:
            raise SourceError(f"{archive}: no response within {timeout:g} seconds") from error
        except requests.exceptions.RequestException as error:
            raise SourceError(f"{archive}: {_root_cause(error)}") from error
        finally:
            truststore.extract_from_ssl()

    return locate


def _debian_package(package: str, scratch: Path, timeout: float, retries: int) -> Locator:
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise SourceError(f"{program} is not installed (it is part of Debian and Ubuntu)")
    lists, cache, root = scratch / "lists", scratch / "cache", scratch / "root"
    for folder in (lists / "partial", cache / "archives" / "partial", root):
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
    for archive in scratch.glob("*.deb"):
        _run(["dpkg-deb", "-x", str(archive), str(root)], scratch)
    return lambda name: _find(root.rglob, name, f"the package {package}")


def _user_folder(variable: str) -> Locator:
    value = os.environ.get(variable)
    if not value:
        raise SourceError("the environment variable is not set")
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder")
    return lambda name: _find(folder.glob, name, str(folder))


def _find(search: Callable[[str], Iterable[Path]], name: str, where: str) -> Path:
    for candidate in (f"{name}.gz", name):
        for path in search(candidate):
            return path
    raise SourceError(f"neither {name}.gz nor {name} is in {where}")


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        last_line = (done.stderr.strip().splitlines() or ["no error message"])[-1]
        raise SourceError(f"`{command[0]} {command[-2]} {command[-1]}` failed: {last_line}")


def _read_verified(path: Path, file: RawFile) -> bytes:
    """Return the uncompressed content of `path`; read at most one byte beyond the expected length."""
    with path.open("rb") as stream:
        magic = stream.read(2)
    try:
        with gzip.open(path) if magic == b"\x1f\x8b" else path.open("rb") as stream:
            payload = stream.read(file.length + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{path.name} is corrupt: {error}") from error
    if payload.lstrip().startswith(b"<"):
        raise SourceError(f"{path.name} is an HTML page instead of data; it starts with {payload[:20]!r}")
    if len(payload) != file.length:
        found = f"{len(payload):,}" if len(payload) < file.length else "more"
        raise SourceError(f"{path.name} contains {found} bytes, expected {file.length:,}")
    digest = hashlib.sha256(payload).hexdigest()
    if digest != file.sha256:
        raise SourceError(f"{path.name} has SHA-256 {digest}, expected {file.sha256}")
    return payload


def _root_cause(error: BaseException) -> str:
    """Return the innermost reason of a failed request, without the connection object in front of it."""
    reason: object = error
    while isinstance(reason, BaseException) and reason.args and isinstance(reason.args[-1], BaseException):
        reason = getattr(reason.args[-1], "reason", None) or reason.args[-1]
    return re.sub(r"^(<.+?>|\w+\(.+?\)): ", "", str(reason))
