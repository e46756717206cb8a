"""Set up .venv, the virtual environment of the project, and check the machine.

`make` runs this file with the system's Python before anything is installed, so it uses the standard library only:

    python3 -I -X utf8 fashion/environment.py setup     set up .venv unless it is up to date
    python3 -I -X utf8 fashion/environment.py doctor    check the machine and change nothing

`make test` also runs the command `check-temporary-folder`, and `make drill` the command `delete-damaged-bytecode`.
"""

from __future__ import annotations  # Python 3.8 must get as far as `check_python`

import ast
import fcntl
import hashlib
import importlib.util
import marshal
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "ready"
CPUINFO = Path("/proc/cpuinfo")  # on Linux
INPUTS = ("requirements.lock", "pyproject.toml", ".dvc/plots/page.py", "fashion/environment.py")
PACKAGES = ("benchmarks", "fashion", "stages", "studies", "tests")
STANDARD_MODULES = ("_bz2", "_ctypes", "_lzma", "_sqlite3", "_ssl", "ensurepip", "venv")  # some builds lack some
# Settings kept from the user's pip configuration. Others could change what pip installs, or where.
PIP_SETTINGS = (
    *("cache-dir", "cert", "client-cert", "default-timeout", "extra-index-url", "find-links", "index-url"),
    *("keyring-provider", "no-index", "proxy", "retries", "timeout", "trusted-host"),
)
BOOTSTRAP = ("pip", "setuptools")  # installed first, to install the rest
DISK_SPACE, TEMPORARY_SPACE = 4.0, 0.5  # required, in GB

# Python reads this .pth file at start-up: it makes the project importable and runs STARTUP.
PTH = "../../../..\nimport fashion_startup\n"
STARTUP = '''\
"""Add the programs of .venv to PATH, keep caches in .venv where needed, set USER and HOME if no passwd entry does."""

import os
import pwd
import sys

os.environ["PATH"] = os.path.join(sys.prefix, "bin") + os.pathsep + os.environ.get("PATH", os.defpath)
index = os.path.join(sys.prefix, "dvc")
if os.access(index, os.W_OK):  # not if another user has set up .venv
    os.environ.setdefault("DVC_SITE_CACHE_DIR", index)
try:
    pwd.getpwuid(os.getuid())
except KeyError:  # in a container; DVC needs a user name, and caches are in the home folder
    os.environ.setdefault("USER", str(os.getuid()))
    os.environ.setdefault("HOME", sys.prefix)
if not os.access(os.path.expanduser("~"), os.W_OK):  # Matplotlib would warn, and search for fonts in every process
    os.environ.setdefault("MPLCONFIGDIR", os.path.join(sys.prefix, "matplotlib"))
'''
# The first lines of a script. The shell runs the Python in the script's folder, without variables that would load other
# code. To Python, these lines are a string.
LAUNCHER = b"""\
#!/bin/sh
'''exec' env -u PYTHONHOME -u PYTHONPATH \
"$(dirname -- "$(readlink -f -- "$0" 2> /dev/null || echo "$0")")/python" "$0" "$@"
' '''
"""


class SetupError(Exception):
    """A problem with the machine or the checkout. The message states what to do."""


def main() -> None:
    """Run the command; exit with 0 on success, with 1 and a message on failure."""
    try:
        {
            "setup": setup,
            "doctor": doctor,
            "check-temporary-folder": check_temporary_folder,
            "delete-damaged-bytecode": delete_damaged_bytecode,
        }[sys.argv[1]]()
    except (SetupError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the next `make` restarts the set-up")


def setup() -> None:
    """Set up .venv unless it is up to date. Wait if another process is doing so.

    Raises:
        SetupError: the machine or the checkout is unsuitable, or pip failed.
    """
    for check in (check_python, check_processor, check_folder, check_git):
        check()
    delete_damaged_bytecode()
    with exclusive(ROOT / ".venv.lock", "Another `make` is setting up .venv; waiting for it to finish"):
        if not _is_ready():
            check_disk()
            _install()
        elif (version := _venv_version()) != (other := "{}.{}".format(*sys.version_info)):
            print(
                f".venv uses Python {version}; to use {other}, run `rm -r .venv`, then this command again", flush=True
            )


def delete_damaged_bytecode() -> None:
    """Delete the .pyc files that Python left half-written on a full disk: it fails to import them, and keeps them."""
    pattern = f"**/__pycache__/*.{sys.implementation.cache_tag}.pyc"
    for path in (path for package in PACKAGES for path in (ROOT / package).glob(pattern)):
        try:
            marshal.loads(path.read_bytes()[16:])  # noqa: S302 - code that Python would run
        except FileNotFoundError:  # another process has just deleted it
            continue
        except (EOFError, ValueError, TypeError):
            path.unlink(missing_ok=True)


def doctor() -> None:
    """Run all checks and print a line for each.

    Raises:
        SetupError: a check failed.
    """
    failed = 0
    checks = (check_python, check_processor, check_folder, check_git)
    for check in (*checks, check_disk, check_temporary_folder, check_environment):
        try:
            print(f"ok       {check()}")
        except SetupError as error:
            failed += 1
            print(f"PROBLEM  {error}")
    if failed:
        raise SetupError(f"{failed} of the checks above failed")


def check_python() -> str:
    """Check that Python is 3.11, 3.12 or 3.13 and complete; return its version and path."""
    if not (3, 11) <= sys.version_info < (3, 14):
        raise SetupError(
            f"{sys.executable} is Python {platform.python_version()}; "
            "use 3.11, 3.12 or 3.13: make PYTHON=/path/to/python"
        )
    if missing := [name.lstrip("_") for name in STANDARD_MODULES if importlib.util.find_spec(name) is None]:
        if set(missing) <= {"ensurepip", "venv"}:  # Debian and Ubuntu package them separately
            advice = f"run `apt install python{sys.version_info.major}.{sys.version_info.minor}-venv`"
        else:
            advice = "it was built without the libraries they need; rebuild it"
        raise SetupError(
            f"{sys.executable} lacks the standard modules {', '.join(missing)}; {advice}, or use another Python: "
            "make PYTHON=/path/to/python"
        )
    return f"Python {platform.python_version()} at {sys.executable}"


def check_processor() -> str:
    """Check that TensorFlow runs here: x86-64 processors need AVX instructions, and Macs an Arm processor."""
    if sys.platform == "darwin" and platform.machine() != "arm64":
        raise SetupError(
            f"{sys.executable} is a Python for {platform.machine()}; on a Mac, TensorFlow needs Apple silicon and "
            "a Python for arm64: make PYTHON=/path/to/python"
        )
    flags = CPUINFO.read_text(encoding="utf-8").split() if CPUINFO.exists() else []
    if platform.machine() == "x86_64" and flags and "avx" not in flags:
        raise SetupError(
            "the processor has no AVX instructions, which TensorFlow needs; on a virtual machine, give it the host's "
            "processor type"
        )
    return f"{platform.machine()} processor"


def check_folder() -> str:
    """Check that the project's folder is writable."""
    try:
        with tempfile.TemporaryFile(dir=ROOT):
            return f"{ROOT} is writable"
    except OSError as error:
        raise SetupError(
            f"cannot write to {ROOT} ({error.strerror}), where `make` installs packages and saves models; clone the "
            "project into a writable folder"
        ) from error


def check_git() -> str:
    """Check that the folder is the top level of a Git repository, which DVC needs."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--show-toplevel"],
            cwd=ROOT,
            env={**os.environ, "LC_ALL": "C", "LANGUAGE": ""},
            capture_output=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise SetupError("git is not installed; install it (Debian: `apt install git`)") from error
    if found.returncode == 0 and os.path.samefile(found.stdout.rstrip(b"\n"), ROOT):  # noqa: PTH121 - bytes
        return "the folder is a Git repository"
    if found.returncode and b"not a git repository" not in found.stderr:
        raise SetupError(f"Git cannot read {ROOT}:\n{found.stderr.decode(errors='replace').strip()}")
    raise SetupError(
        f"{ROOT} is not a Git repository, which DVC needs (a downloaded ZIP is not one). Clone the project, or turn "
        "this folder into a repository:\ngit init -b main && git add --all && git commit -m 'Import the project'"
    )


def check_disk() -> str:
    """Check that the project's folder has space for .venv; return the free space."""
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < DISK_SPACE and not STAMP.exists():
        raise SetupError(f"{ROOT} has {free:.1f} GB of free space; the set-up needs {DISK_SPACE:.0f} GB")
    return f"{free:.0f} GB of free space"


def check_temporary_folder() -> str:
    """Check that the tests can write files to the temporary folder and run programs there; return its path."""
    try:
        folder = Path(tempfile.gettempdir())
        free = shutil.disk_usage(folder).free / 1e9
        if free < TEMPORARY_SPACE:
            raise SetupError(
                f"the temporary folder {folder} has {1000 * free:.0f} MB of free space; the tests need "
                f"{1000 * TEMPORARY_SPACE:.0f} MB. Use another folder: TMPDIR=/path/to/folder make test"
            )
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            program = Path(scratch, "program")
            program.write_text("#!/bin/sh\n")
            program.chmod(0o700)
            subprocess.run([program], check=True)
    except PermissionError as error:
        raise SetupError(
            f"programs cannot run in the temporary folder {folder} (it is mounted noexec), which the tests need. "
            "Use another folder: TMPDIR=/path/to/folder make test"
        ) from error
    except OSError as error:
        raise SetupError(f"no usable temporary folder: {error}. Set one: TMPDIR=/path/to/folder make test") from error
    return f"temporary files go to {folder} ({free:.0f} GB of free space)"


def check_environment() -> str:
    """Check that the packages in .venv are compatible; return whether .venv is up to date."""
    if not _is_ready():
        return ".venv is not up to date; `make` sets it up"
    checked = subprocess.run([PYTHON, "-I", "-m", "pip", "check"], capture_output=True, encoding="utf-8", check=False)
    if checked.returncode:
        raise SetupError(
            f".venv is broken:\n{(checked.stdout + checked.stderr).strip()}\nRun `rm -r .venv && make setup`"
        )
    return f".venv is up to date, with Python {_venv_version()}"


@contextmanager
def exclusive(path: Path, waiting: str) -> Iterator[None]:
    """Hold a lock on the file `path`, created if missing. If another process holds it, print `waiting` and wait."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(waiting, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fingerprint() -> str:
    """Return a hash of `INPUTS` and the project's path, which .venv/bin/activate contains."""
    digest = hashlib.sha256(str(ROOT).encode("utf-8", "surrogateescape"))
    for name in INPUTS:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def _is_ready() -> bool:
    """Return whether .venv is up to date and its Python still works."""
    if not (PYTHON.exists() and STAMP.exists() and STAMP.read_text() == _fingerprint()):
        return False
    return subprocess.run([PYTHON, "-I", "-c", "import fashion"], capture_output=True, check=False).returncode == 0


def _venv_version() -> str:
    """Return the major and minor version of the Python in .venv; an update may change the rest in place."""
    lines = (VENV / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    return ".".join(dict(line.split(" = ", 1) for line in lines)["version"].split(".")[:2])


def _install() -> None:
    started = time.monotonic()
    print(f"Setting up .venv with Python {platform.python_version()}; this takes about a minute.", flush=True)
    if VENV.is_symlink():
        raise SetupError(
            f"{VENV} is a symbolic link, which is not supported: delete it. If this disk is full, move the whole "
            "project to another one"
        )
    fingerprint = _fingerprint()
    if VENV.exists():
        shutil.rmtree(VENV)
    environment = _environment()
    run = partial(_run, environment=environment)
    python = sys._base_executable  # type: ignore[attr-defined] # sys.executable was in .venv, if that was activated
    run([python, "-I", "-m", "venv", str(VENV)])
    environment |= _pip_settings(environment)
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = {entry.split("==")[0]: entry for entry in re.split(r"\n(?=\S)", lock)}
    bootstrap = VENV / "bootstrap.txt"
    bootstrap.write_text("\n".join(entries[name] for name in BOOTSTRAP) + "\n", encoding="utf-8")
    # requirements.lock lists all dependencies and build tools
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-compile")
    pip = [str(PYTHON), "-I", "-m", "pip", "install", *options]
    run([*pip, *_certificates(environment), "--require-hashes", "-r", str(bootstrap)])
    run([*pip, "--require-hashes", "-r", "requirements.lock"])
    run([*pip, "--editable", "."])
    _make_relocatable(VENV)
    (VENV / "dvc").mkdir(mode=0o700)  # DVC's own choice in /var/tmp is open to code of other users (CVE-2025-69872)
    run([str(PYTHON), "-I", ".dvc/plots/page.py"])
    # Not in .dvc/config: `dvc plots` fails if the template is missing.
    run([str(PYTHON), "-I", "-m", "dvc", "config", "--local", "plots.html_template", "plots/page.html"])
    shutil.rmtree(environment["TMPDIR"])
    STAMP.write_text(fingerprint)
    print(f"Set up in {time.monotonic() - started:.0f} seconds.", flush=True)


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
        raise SetupError(f"`{shlex.join(command)}` failed; see its output above, and run `make doctor`")


def _environment() -> dict[str, str]:
    """Return the environment variables for the set-up, without those that redirect Python or pip."""
    scratch = VENV / "tmp"  # /tmp may be too small
    scratch.mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    if os.path.expanduser("~") == "~":  # noqa: PTH111 - Path.home() raises an exception
        kept["HOME"] = str(VENV)
    return {**kept, "TMPDIR": str(scratch)}


def _pip_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the user's `PIP_SETTINGS` as environment variables that disable pip's configuration files."""
    user = {**environment, **{name: value for name, value in os.environ.items() if name.startswith("PIP_")}}
    listed = subprocess.run(
        [PYTHON, "-I", "-m", "pip", "config", "list"], env=user, stdout=subprocess.PIPE, encoding="utf-8", check=False
    )
    if listed.returncode:
        raise SetupError("pip cannot read its configuration; see its output above")
    settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for line in sorted(listed.stdout.splitlines(), key=lambda line: line.startswith(":env:")):  # variables win
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in ("global", "install", ":env:") and name in PIP_SETTINGS:
            settings[f"PIP_{name.upper().replace('-', '_')}"] = str(ast.literal_eval(value))
    return settings


def _certificates(environment: Mapping[str, str]) -> list[str]:
    """Return options that make pip before 24.2, bundled with older Pythons, trust the system's certificates."""
    import ssl  # some Pythons lack it; `check_python` reports that

    paths = ssl.get_default_verify_paths()
    bundle = paths.cafile or paths.capath
    return [] if bundle is None or "PIP_CERT" in environment else ["--cert", bundle]


def _make_relocatable(venv: Path) -> None:
    """Make .venv work in a folder that is renamed or copied, or has quotes in its name.

    pip writes absolute paths: quotes in them break the scripts, and in a copy they run the original's code.
    """
    for script in (venv / "bin").iterdir():
        content = b"" if script.is_symlink() else script.read_bytes()
        header = re.match(rb"#!(/bin/sh\n'''exec' .*\n' '''|.*python[\d.]*)\n", content)
        if header:
            script.write_bytes(LAUNCHER + content[header.end() :])
    activate = venv / "bin" / "activate"
    assignment = r"(?m)^(\s*(?:export )?VIRTUAL_ENV=)(?!\$\(cygpath).*$"  # unquoted, or in double quotes
    text = activate.read_text(encoding="utf-8")
    activate.write_text(re.sub(assignment, lambda found: found[1] + shlex.quote(str(venv)), text), encoding="utf-8")
    (editable,) = venv.glob("lib/python*/site-packages/_editable_impl_fashion.pth")
    editable.write_text(PTH)
    editable.with_name("fashion_startup.py").write_text(STARTUP)


if __name__ == "__main__":
    main()
