"""Set up the environment in .venv that everything here runs in, and check the machine.

`make` runs this file with the machine's own Python before anything is installed. It needs the standard library alone:

    python3 -I -X utf8 fashion/environment.py setup     set up .venv unless it is up to date
    python3 -I -X utf8 fashion/environment.py doctor    check the machine and change nothing
"""

import fcntl
import hashlib
import os
import platform
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "ready"
INPUTS = ("requirements.lock", "pyproject.toml", ".dvc/plots/page.py", "fashion/environment.py")
BOOTSTRAP = ("pip", "setuptools")  # are installed first; they install the rest
DISK_SPACE, TEMPORARY_SPACE, MEMORY = 4.0, 0.5, 3.0  # what is needed, in GB

# A .pth file, which Python reads whenever it starts. It makes the project importable and lets stages and tests find the
# programs of .venv. In a container, a user may lack a home folder, which caches need, and a name, which DVC needs.
STARTUP = """\
../../../..
import os, sys; os.environ["PATH"] = os.path.join(sys.prefix, "bin") + os.pathsep + os.environ.get("PATH", os.defpath)
import os, sys; os.path.expanduser("~") == "~" and os.environ.update(HOME=sys.prefix)
import os; os.environ.setdefault("USER", str(os.getuid()))
"""
# The head of a script. The shell runs the Python beside the script; Python takes the same lines for a string.
LAUNCHER = b"""\
#!/bin/sh
'''exec' "$(dirname -- "$0")/python" "$0" "$@"
' '''
"""


class SetupError(Exception):
    """What is wrong with the machine or the checkout; the message says what to do."""


def main() -> None:
    """Run the command and exit: 0 when done, 1 with a message otherwise."""
    commands: dict[str, Callable[[], object]] = {
        "setup": setup,
        "doctor": doctor,
        "check-temporary-folder": check_temporary_folder,
    }
    try:
        commands[sys.argv[1]]()
    except (SetupError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the next `make` starts the set-up again")


def setup() -> None:
    """Set up .venv unless it is up to date; wait for another set-up in this folder.

    Raises:
        SetupError: the machine or the checkout is unsuitable, or pip failed.
    """
    for check in (check_python, check_folder, check_git):
        check()
    with exclusive(ROOT / ".venv.lock", "Another `make` is setting up .venv; waiting for it"):
        if not _is_ready():
            check_disk()
            _install()


def doctor() -> None:
    """Print a line for each thing that a machine needs, and raise if one is missing.

    Raises:
        SetupError: something is missing.
    """
    failed = 0
    for check in (
        check_python,
        check_folder,
        check_git,
        check_disk,
        check_temporary_folder,
        check_memory,
        check_processor,
        check_environment,
    ):
        try:
            print(f"ok       {check()}")
        except SetupError as error:
            failed += 1
            print(f"PROBLEM  {error}")
    if failed:
        raise SetupError(f"{failed} of the checks above failed")


def check_python() -> str:
    """Return the Python in use; it must be 3.11, 3.12 or 3.13."""
    if not (3, 11) <= sys.version_info < (3, 14):
        raise SetupError(
            f"{sys.executable} is Python {platform.python_version()}; "
            "use 3.11, 3.12 or 3.13: make PYTHON=/path/to/python"
        )
    return f"Python {platform.python_version()} at {sys.executable}"


def check_folder() -> str:
    """Return the project's folder; it must be writable."""
    try:
        with tempfile.TemporaryFile(dir=ROOT):
            return f"{ROOT} is writable"
    except OSError as error:
        raise SetupError(
            f"cannot write to {ROOT} ({error.strerror}); `make` installs and trains there, so clone the project into "
            "a folder of your own"
        ) from error


def check_git() -> str:
    """Return Git's version; the project must be the top folder of a Git repository, as DVC needs one."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--show-toplevel"], cwd=ROOT, capture_output=True, encoding="utf-8", check=False
        )
        version = subprocess.run(["git", "--version"], capture_output=True, encoding="utf-8", check=False).stdout
    except FileNotFoundError as error:
        raise SetupError("git is not installed; install it (Debian: `apt install git`)") from error
    if found.returncode == 0 and Path(found.stdout.rstrip("\n")).samefile(ROOT):
        return version.strip()
    if found.returncode and "not a git repository" not in found.stderr:
        raise SetupError(f"git refuses to read {ROOT}:\n{found.stderr.strip()}")
    raise SetupError(
        f"{ROOT} is not a Git repository, which DVC needs (a downloaded ZIP is not one). Clone the project instead, "
        "or make this folder a repository:\ngit init -b main && git add --all && git commit -m 'Import the project'"
    )


def check_disk() -> str:
    """Return the free space in the project's folder."""
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < DISK_SPACE and not STAMP.exists():
        raise SetupError(f"{ROOT} has {free:.1f} GB of free space; the set-up needs {DISK_SPACE:.0f} GB")
    return f"{free:.0f} GB of free space"


def check_temporary_folder() -> str:
    """Return the folder for temporary files; the tests need space there, and to run programs."""
    try:
        folder = Path(tempfile.gettempdir())
        free = shutil.disk_usage(folder).free / 1e9
        if free < TEMPORARY_SPACE:
            raise SetupError(
                f"the temporary folder {folder} has {1000 * free:.0f} MB of free space; the tests need "
                f"{1000 * TEMPORARY_SPACE:.0f} MB. Name another folder: TMPDIR=/path/to/folder make test"
            )
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            program = Path(scratch, "program")
            program.write_text("#!/bin/sh\n")
            program.chmod(0o700)
            subprocess.run([program], check=True)
    except PermissionError as error:
        raise SetupError(
            f"programs cannot run in the temporary folder {folder} (it is mounted noexec), and the tests run some. "
            "Name another folder: TMPDIR=/path/to/folder make test"
        ) from error
    except OSError as error:
        raise SetupError(
            f"there is no usable temporary folder: {error}. Name one: TMPDIR=/path/to/folder make test"
        ) from error
    return f"temporary files go to {folder} ({free:.0f} GB of free space)"


def check_memory() -> str:
    """Return the size of the memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    if memory < MEMORY:
        raise SetupError(f"the machine has {memory:.1f} GB of memory; training needs {MEMORY:.0f} GB")
    return f"{memory:.0f} GB of memory"


def check_processor() -> str:
    """Return how many cores there are, and whether they have bfloat16 instructions."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:  # not Linux
        flags = set()
    kind = "bfloat16 instructions" if flags & {"avx512_bf16", "amx_bf16"} else "no bfloat16 instructions"
    return f"{platform.machine()}, {os.cpu_count()} cores, {kind}"


def check_environment() -> str:
    """Return that .venv is up to date and complete."""
    if not _is_ready():
        raise SetupError(".venv is missing or out of date; run `make setup`")
    checked = subprocess.run([PYTHON, "-I", "-m", "pip", "check"], capture_output=True, encoding="utf-8", check=False)
    if checked.returncode:
        raise SetupError(
            f".venv is damaged:\n{(checked.stdout + checked.stderr).strip()}\nRun `rm -r .venv && make setup`"
        )
    return ".venv is up to date"


@contextmanager
def exclusive(path: Path, waiting: str) -> Iterator[None]:
    """Hold the lock file at `path`, which is made if need be; print `waiting` if another process holds it."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(waiting, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fingerprint() -> str:
    """Return a hash of `INPUTS` and of the project's path, which .venv/bin/activate contains."""
    digest = hashlib.sha256(str(ROOT).encode("utf-8", "surrogateescape"))
    for name in INPUTS:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def _is_ready() -> bool:
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text() == _fingerprint()


def _install() -> None:
    started = time.monotonic()
    print(f"Setting up .venv with Python {platform.python_version()}, which takes about a minute.", flush=True)
    fingerprint = _fingerprint()
    if VENV.exists():
        shutil.rmtree(VENV)
    _run([sys.executable, "-I", "-m", "venv", str(VENV)])
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = {entry.split("==")[0]: entry for entry in re.split(r"\n(?=\S)", lock)}
    bootstrap = VENV / "bootstrap.txt"
    bootstrap.write_text("\n".join(entries[name] for name in BOOTSTRAP) + "\n", encoding="utf-8")
    # requirements.lock has every dependency and every build tool
    install = ("install", "--quiet", "--no-deps", "--no-build-isolation", "--no-compile")
    _pip(*install, "--require-hashes", "-r", str(bootstrap), *_certificates())
    _pip(*install, "--require-hashes", "-r", "requirements.lock")
    _pip(*install, "--editable", ".")
    _make_relocatable()
    _run([str(PYTHON), "-I", ".dvc/plots/page.py"])
    # Not in .dvc/config, as without the page every `dvc plots` would fail.
    _run([str(PYTHON), "-I", "-m", "dvc", "config", "--local", "plots.html_template", "plots/page.html"])
    STAMP.write_text(fingerprint)
    print(f"Set up in {time.monotonic() - started:.0f} seconds.", flush=True)


def _pip(*arguments: str) -> None:
    _run([str(PYTHON), "-I", "-m", "pip", *arguments])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, env=_clean_environment(), check=False)
    if done.returncode:
        raise SetupError(
            f"`{shlex.join(command)}` failed; its message is above. `make doctor` checks the machine, "
            f"`{shlex.quote(str(PYTHON))} -m pip config debug` shows pip's configuration"
        )


def _clean_environment() -> dict[str, str]:
    """Return the environment without variables that change where pip installs; those of the network stay."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    for name in ("PIP_PREFIX", "PIP_ROOT", "PIP_TARGET"):
        environment.pop(name, None)
    folder = VENV / "tmp"
    folder.mkdir(parents=True, exist_ok=True)  # /tmp may be too small
    if os.path.expanduser("~") == "~":  # noqa: PTH111 - Path.home() raises an error
        environment["HOME"] = str(VENV)
    return environment | {
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_REQUIRE_HASHES": "0",  # the project itself has no hash; the other installs ask for them
        "PIP_USER": "0",
        "TMPDIR": str(folder),
    }


def _certificates() -> list[str]:
    """Return options that make pip before 24.2, which old Pythons bring, trust the system's certificates."""
    configured = subprocess.run(
        [PYTHON, "-I", "-m", "pip", "config", "list"],
        env=_clean_environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    paths = ssl.get_default_verify_paths()
    bundle = paths.cafile or paths.capath
    return [] if bundle is None or ".cert=" in configured.stdout else ["--cert", bundle]


def _make_relocatable() -> None:
    """Make the scripts in .venv find Python beside them, and Python the project around it.

    pip writes absolute paths. Quotes in a path break the scripts, and in a copied folder they run the original's code.
    """
    for script in PYTHON.parent.iterdir():
        content = b"" if script.is_symlink() else script.read_bytes()
        header = re.match(rb"#!(/bin/sh\n'''exec' .*\n' '''|.*python[\d.]*)\n", content)
        if header:
            script.write_bytes(LAUNCHER + content[header.end() :])
    activate = PYTHON.with_name("activate")
    text = re.sub(r"(?m)^VIRTUAL_ENV=.*$", lambda _: f"VIRTUAL_ENV={shlex.quote(str(VENV))}", activate.read_text())
    activate.write_text(text)
    (editable,) = VENV.glob("lib/python*/site-packages/_editable_impl_fashion.pth")
    editable.write_text(STARTUP)


if __name__ == "__main__":
    main()
