"""Getting the raw files from the first source that has them, and letting in nothing but the expected bytes.

A source is one line of params.yaml: a web folder (`https://.../`), a package of the Debian or Ubuntu archive
(`debian:NAME`, which needs neither root nor an installation) or a folder named by an environment variable (`env:NAME`).
What is verified is the payload, the uncompressed IDX file: the archives around it differ between the sources.
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

Locate = Callable[[str], Path]
"""From a file's name to a copy of it on this machine, compressed or not; raises `SourceError`."""


class SourceError(Exception):
    """A source cannot serve a file; the message says why."""


def fetch(files: Mapping[str, RawFile], sources: tuple[str, ...], folder: Path, timeout: float, retries: int) -> None:
    """Write each file's payload to `folder`/KEY.idx, from the first source that has it: all of them, or none.

    Args:
        files: what to fetch, by key.
        sources: where to look, in this order.
        folder: where to write; it is the same byte for byte whichever source served it.
        timeout: seconds without an answer before a download is given up.
        retries: further attempts per file of a web folder.

    Raises:
        UserError: no source had a file, each with its reason; or the folder cannot be written.
    """
    payloads: dict[str, bytes] = {}
    failures: list[str] = []
    for source in sources:
        try:
            with tempfile.TemporaryDirectory(prefix="fashion-fetch-") as scratch:
                locate = _open(source, Path(scratch), timeout, retries)
                for key in [key for key in files if key not in payloads]:
                    payloads[key] = _read_verified(locate(files[key].name), files[key])
                    print(
                        f"{files[key].name}: {len(payloads[key]):,} bytes from {source}, SHA-256 as expected",
                        flush=True,
                    )
        except (SourceError, OSError) as error:
            failures.append(f"{source}: {error}")
            print(failures[-1], flush=True)
        if len(payloads) == len(files):
            break
    else:
        missing = [files[key].name for key in files if key not in payloads]
        variable = next((source.removeprefix("env:") for source in sources if source.startswith("env:")), None)
        raise UserError(
            "no source had every file:\n"
            + "".join(f"  - {failure}\n" for failure in failures)
            + f"To place the files by hand, put {', '.join(missing)} (or each with .gz)\n"
            + (
                f"into a folder and name it: {variable}=that/folder dvc repro"
                if variable
                else "into a folder, and add env:VARIABLE to params.yaml: fetch.sources"
            )
        )
    for key, payload in payloads.items():
        with atomic_write(folder / f"{key}.idx") as file:
            file.write(payload)


def _open(source: str, scratch: Path, timeout: float, retries: int) -> Locate:
    kind, _, name = source.partition(":")
    match kind:
        case "debian":
            return _debian_package(name, scratch, timeout, retries)
        case "env":
            return _user_folder(name)
        case _:
            return _web_folder(source, scratch, timeout, retries)


def _web_folder(url: str, scratch: Path, timeout: float, retries: int) -> Locate:
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
            raise SourceError(f"{archive}: no answer within {timeout:g} seconds") from error
        except requests.exceptions.RequestException as error:
            raise SourceError(f"{archive}: {_root_cause(error)}") from error
        finally:
            truststore.extract_from_ssl()

    return locate


def _debian_package(package: str, scratch: Path, timeout: float, retries: int) -> Locate:
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise SourceError(f"{program} is not on this machine (it is on Debian and Ubuntu)")
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
    apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    print(f"asking apt for the package {package}", flush=True)
    _command([*apt, "update"], scratch)
    _command([*apt, "download", package], scratch)
    for archive in scratch.glob("*.deb"):
        _command(["dpkg-deb", "-x", str(archive), str(root)], scratch)
    return lambda name: _find(root.rglob, name, f"the package {package}")


def _user_folder(variable: str) -> Locate:
    value = os.environ.get(variable)
    if not value:
        raise SourceError("this environment variable is not set")
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder")
    return lambda name: _find(folder.glob, name, str(folder))


def _find(search: Callable[[str], Iterable[Path]], name: str, where: str) -> Path:
    for candidate in (f"{name}.gz", name):
        for path in search(candidate):
            return path
    raise SourceError(f"neither {name}.gz nor {name} is in {where}")


def _command(words: list[str], folder: Path) -> None:
    done = subprocess.run(words, cwd=folder, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        last_line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SourceError(f"`{words[0]} {words[-2]} {words[-1]}` failed: {last_line}")


def _read_verified(path: Path, file: RawFile) -> bytes:
    """Return the uncompressed content of `path`, reading at most one byte more than is expected."""
    with path.open("rb") as stream:
        start = stream.read(2)
    try:
        with gzip.open(path) if start == b"\x1f\x8b" else path.open("rb") as stream:
            payload = stream.read(file.length + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{path.name} is damaged: {error}") from error
    if payload.lstrip().startswith(b"<"):
        raise SourceError(f"{path.name} is a web page, not data; it starts with {payload[:20]!r}")
    if len(payload) != file.length:
        found = f"{len(payload):,}" if len(payload) < file.length else "more"
        raise SourceError(f"{path.name} holds {found} bytes, expected {file.length:,}")
    digest = hashlib.sha256(payload).hexdigest()
    if digest != file.sha256:
        raise SourceError(f"{path.name} has the SHA-256 {digest}, expected {file.sha256}")
    return payload


def _root_cause(error: BaseException) -> str:
    """Return the innermost reason of a failed request, without the description of the connection before it."""
    reason: object = error
    while isinstance(reason, BaseException) and reason.args and isinstance(reason.args[-1], BaseException):
        reason = getattr(reason.args[-1], "reason", None) or reason.args[-1]
    return re.sub(r"^(<.+?>|\w+\(.+?\)): ", "", str(reason))
