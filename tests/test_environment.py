"""The checks before the set-up, .venv in any folder, and how commands exit."""

import importlib.metadata
import importlib.util
import os
import platform
import py_compile
import re
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from fashion import cli, environment, errors, pipeline
from fashion.environment import SetupError
from fashion.files import write_json
from tests.conftest import FASHION, MODELS, ROOT, Project
from tests.flowers import Flowers

BIN = Path(sys.executable).parent


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a Git repository that the checks use as the project's folder."""
    folder = tmp_path / "the \"folder\" of 'somebody' $HOME"
    folder.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    monkeypatch.setattr(environment, "ROOT", folder)
    return folder


def test_makefile_program_paths() -> None:
    """The make of macOS does not find programs of .venv without their path."""
    called = set(re.findall(r"^\t@?(\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert "$(BIN)/pytest" in called
    assert called & {program.name for program in BIN.iterdir()} == set()


def test_makefile_comments() -> None:
    """A variable with a comment on its line would end in a space."""
    assert re.findall(r"(?m)^[^#\n]*=.*#.*$", (ROOT / "Makefile").read_text().replace("\\\n", "")) == []


def test_autocrlf(tmp_path: Path) -> None:
    options = ["-c", "core.autocrlf=true", "-c", "core.eol=crlf"]
    subprocess.run(["git", *options, "clone", "-q", str(ROOT), str(tmp_path / "clone")], check=True)
    listed = subprocess.run(
        ["git", "ls-files", "--eol"], cwd=tmp_path / "clone", capture_output=True, text=True, check=True
    )
    assert [line for line in listed.stdout.splitlines() if "w/crlf" in line or "w/mixed" in line] == []


def test_suitable_checkout(checkout: Path) -> None:
    assert environment.check_folder() == f"{checkout} is writable"
    assert environment.check_git()


def test_downloaded_zip(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    with pytest.raises(SetupError, match="is not a Git repository, which DVC needs"):
        environment.check_git()


def test_folder_inside_another_repository(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / "inside").mkdir()
    monkeypatch.setattr(environment, "ROOT", checkout / "inside")
    with pytest.raises(SetupError, match="is not a Git repository, which DVC needs"):
        environment.check_git()


def test_translated_git(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = checkout / "programs"
    programs.mkdir()
    (programs / "git").write_text('#!/bin/sh\ntest "$LC_ALL" = C && echo "fatal: not a git repository" >&2\nexit 128\n')
    (programs / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    with pytest.raises(SetupError, match="is not a Git repository, which DVC needs"):
        environment.check_git()


@pytest.mark.usefixtures("checkout")
def test_git_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(SetupError, match=r"(?s)Git cannot read .*git config --global --add safe.directory"):
        environment.check_git()


def test_no_git(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    with pytest.raises(SetupError, match="git is not installed"):
        environment.check_git()


@pytest.mark.parametrize(("flags", "suitable"), [("sse4_2 avx avx2", True), ("sse4_2", False)])
def test_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, suitable: bool) -> None:
    monkeypatch.setattr(environment, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert environment.check_processor() == "x86_64 processor", "not Linux"
    (tmp_path / "cpuinfo").write_text(f"flags : fpu {flags}\n")
    with nullcontext() if suitable else pytest.raises(SetupError, match="the processor has no AVX instructions"):
        environment.check_processor()


@pytest.mark.parametrize(("machine", "suitable"), [("arm64", True), ("x86_64", False)])
def test_mac(monkeypatch: pytest.MonkeyPatch, machine: str, suitable: bool) -> None:
    """No package is pinned for an x86-64 Python, so .venv would stay empty."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with nullcontext() if suitable else pytest.raises(SetupError, match="is a Python for x86_64; on a Mac"):
        environment.check_processor()


def test_incomplete_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python built without a library has ssl.py, but not the module in C that it needs."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("_ssl", "_lzma") else name)
    with pytest.raises(SetupError, match="lacks the standard modules lzma, ssl; it was built without the libraries"):
        environment.check_python()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else name)
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    with pytest.raises(SetupError, match=f"ensurepip; run `apt install {package}`"):
        environment.check_python()


def test_disk_full(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(checkout)
    monkeypatch.setattr(environment, "STAMP", checkout / "none")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000_000))
    with pytest.raises(SetupError, match=r"has 0\.1 GB of free space; the set-up needs 4 GB"):
        environment.check_disk()
    with pytest.raises(SetupError, match=r"the temporary folder .* has 100 MB of free space; .* TMPDIR="):
        environment.check_temporary_folder()


def test_lock(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from fashion.environment import exclusive\n"
        "with exclusive(Path('lock'), 'waiting'):\n"
        "    print('in', flush=True); sys.stdin.readline(); print('out', flush=True)"
    )
    command = [sys.executable, "-c", script]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": tmp_path}
    with subprocess.Popen(command, **pipes) as first:  # type: ignore[call-overload]
        assert first.stdout.readline() == "in\n"
        with subprocess.Popen(command, **pipes) as second:  # type: ignore[call-overload]
            assert second.stdout.readline() == "waiting\n"
            assert first.communicate("\n")[0] == "out\n"
            assert second.communicate("\n")[0] == "in\nout\n"


def test_linked_environment(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "VENV", checkout / ".venv")
    (checkout / ".venv").symlink_to(checkout / "elsewhere")
    with pytest.raises(SetupError, match="is a symbolic link, which is not supported: delete it"):
        environment._install()


def test_other_python(checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`make PYTHON=...` changes nothing in an environment that is up to date, and says so."""
    for check in ("check_python", "check_processor", "check_folder", "check_git", "delete_damaged_bytecode"):
        monkeypatch.setattr(environment, check, lambda: "")
    monkeypatch.setattr(environment, "_is_ready", lambda: True)
    monkeypatch.setattr(environment, "VENV", checkout)
    (checkout / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {platform.python_version()}\n")
    environment.setup()
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sys, "version_info", (3, 99, 1))
    environment.setup()
    assert "to use 3.99, run `rm -r .venv`" in capsys.readouterr().out


def test_scripts_without_absolute_paths() -> None:
    """With them, renamed and copied folders would run the old code, and quotes in a path would break the scripts."""
    scripts = [path for path in BIN.iterdir() if path.read_bytes().startswith(b"#!")]
    assert {"dvc", "fashion", "pytest"} <= {path.name for path in scripts}
    assert [path for path in scripts if str(ROOT).encode() in path.read_bytes()] == []


@pytest.mark.parametrize(
    "line", ["VIRTUAL_ENV={}", "    export VIRTUAL_ENV={}", "        VIRTUAL_ENV={}"], ids=["3.11", "3.12", "3.13"]
)
def test_folder_with_quotes(tmp_path: Path, line: str) -> None:
    venv = tmp_path / "the \"venv\" of 'somebody' $HOME"
    (venv / "bin").mkdir(parents=True)
    packages = venv / "lib" / "python3" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "_editable_impl_fashion.pth").write_text("/elsewhere")
    (venv / "bin" / "python").symlink_to(sys.executable)
    (venv / "bin" / "activate").write_text("\n".join([line.format(f'"{venv}"'), "export VIRTUAL_ENV"]))
    for name, head in (
        ("short", f"#!{venv}/bin/python3\n"),
        ("long", f"#!/bin/sh\n'''exec' \"{venv}/bin/python\" \n' '''\n"),
    ):
        (venv / "bin" / name).write_text(f"{head}import sys; print(sys.argv)\n")
        (venv / "bin" / name).chmod(0o755)
    environment._make_relocatable(venv)
    (tmp_path / "link").symlink_to(venv / "bin" / "short")
    for script in (venv / "bin" / "short", venv / "bin" / "long", tmp_path / "link"):
        variables = {**os.environ, "PYTHONPATH": "/elsewhere", "PYTHONHOME": "/elsewhere"}
        done = subprocess.run([script, "a"], env=variables, capture_output=True, text=True, check=True)
        assert done.stdout == f"{[str(script), 'a']}\n"
    activate = ["sh", "-c", '. "$1" && printf %s "$VIRTUAL_ENV"', "sh", str(venv / "bin" / "activate")]
    assert subprocess.run(activate, capture_output=True, text=True, check=True).stdout == str(venv)


def test_pip_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://mirror/simple\ntarget = /elsewhere\n[install]\nuser = true\ncert = /file\n"
        "[wheel]\nindex-url = https://elsewhere/simple\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_CERT", "/variable")
    monkeypatch.setenv("PIP_DRY_RUN", "1")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    settings = environment._pip_settings(kept)
    assert settings["PIP_INDEX_URL"] == "https://mirror/simple"
    assert settings["PIP_CERT"] == "/variable"
    assert settings["PIP_CONFIG_FILE"] == os.devnull
    assert settings.keys() & {"PIP_TARGET", "PIP_USER", "PIP_DRY_RUN"} == set()


def test_stale_environment(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment.INPUTS:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    monkeypatch.setattr(environment, "STAMP", checkout / "ready")
    assert not environment._is_ready()
    environment.STAMP.write_text(environment._fingerprint())
    assert environment._is_ready()
    with (checkout / "requirements.lock").open("a") as lock:
        lock.write("\n")
    assert not environment._is_ready()
    environment.STAMP.write_text(environment._fingerprint())
    monkeypatch.setattr(environment, "PYTHON", checkout / "python")
    assert not environment._is_ready()


def test_path_without_activation() -> None:
    """The commands of stages find `python` and `dvc` when .venv is not activated."""
    script = "import shutil; print(shutil.which('python'), shutil.which('dvc'))"
    done = subprocess.run(
        [BIN / "python", "-c", script], env={"PATH": os.defpath}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(BIN / "python"), str(BIN / "dvc")]


@pytest.mark.slow
def test_dvc_without_activation(original_flowers: Flowers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = os.environ["PATH"].split(os.pathsep)
    monkeypatch.setenv("PATH", os.pathsep.join(folder for folder in folders if Path(folder) != BIN))
    flowers = original_flowers.copy(tmp_path / "flowers")
    assert "Running stage 'train'" in flowers.run(str(BIN / "dvc"), "repro", "--force").stdout


def test_another_checkout(tmp_path: Path) -> None:
    (tmp_path / "fashion").mkdir()
    (tmp_path / "fashion" / "errors.py").touch()
    done = subprocess.run([BIN / "fashion", "results"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"error: this command runs the code in {ROOT}, but the current folder is another checkout"
    )


def command(body: str) -> list[str]:
    """Return a command that runs `body` as all commands of this project run."""
    return [sys.executable, "-c", f"from fashion.errors import run_command; run_command(lambda: {body})"]


def test_closed_output() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *command("print('text')")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_output_into_head() -> None:
    with subprocess.Popen(
        command("input() or print('text')"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        process.stdout.close()
        assert process.communicate("\n", timeout=60)[1] == ""
        assert process.returncode == 128 + signal.SIGPIPE


def test_terminal_encoding() -> None:
    variables = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command("print('\\xb1')"), env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\xb1\n", "")


def test_control_characters_in_errors() -> None:
    done = subprocess.run(command("open('\\x1b[2J\\nb\xe9')"), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: \\x1b[2J\nb\xe9: No such file or directory\n")


def test_stage_duration(tmp_path: Path) -> None:
    times = tmp_path / "times.tsv"
    variables = {**os.environ, "DVC_STAGE": "fetch", errors.STAGE_TIMES: str(times)}
    for _ in range(2):
        subprocess.run(command("None"), env=variables, check=True)
    assert re.fullmatch(r"(fetch\t\d+\.\d\n){2}", times.read_text())


def test_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def repro(_root: Path, times: Path) -> int:
        times.write_text("fetch\t1.5\nplot\t10.0\n")
        return 0

    (tmp_path / "data").mkdir()
    for name in ("params.yaml", "dvc.yaml", "data/about.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    metrics = {
        "accuracy": 0.5,
        "accuracy_interval": {"low": 0.4, "high": 0.6},
        "balanced_accuracy": 0.5,
        "macro_f1": 0.5,
        "parameters": 1234,
    }
    write_json(tmp_path / "reports" / MODELS[0] / "metrics.json", metrics)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fashion", "run"])
    monkeypatch.setattr(pipeline, "_repro", repro)
    monkeypatch.setattr(pipeline, "check_networks", lambda *_: None)
    cli.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Stages: fetch, preprocess, train")
    assert lines[3:6] == ["fetch          1.5 s", "plot          10.0 s", "all stages    11.5 s"]
    assert any(line.startswith(f"| {MODELS[0].upper()} ") for line in lines)
    assert lines[-1] == f"Open {tmp_path / 'reports' / 'index.html'}"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (".dvc/config", "[core]\nremot = x\n", "config file error"),
        ("dvc.yaml", "", "dvc.yaml has no stages; restore it: git checkout dvc.yaml"),
        ("dvc.yaml", "plots: []\n", "dvc.yaml has no stages"),
    ],
)
def test_run_with_a_mistake(tmp_path: Path, file: str, text: str, message: str) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    for path in ("data", ".dvc"):
        (tmp_path / path).mkdir()
    for name in ("params.yaml", "dvc.yaml", "dvc.lock", "data/about.md", ".dvc/config"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / file).write_text(text)
    with pytest.raises(errors.UserError, match=message):
        pipeline.run(tmp_path)


@pytest.mark.slow
def test_run_of_unchanged_pipeline(project: Project) -> None:
    lines = project.run(*FASHION, "run").stdout.splitlines()
    assert lines[0].startswith("Stages: fetch, preprocess, train")
    assert "Data and pipelines are up to date." in lines
    assert lines[-1] == f"Open {project.folder / 'reports' / 'index.html'}"


def test_pinned_packages() -> None:
    """All packages of requirements.lock for this machine and version of Python are installed."""
    installed = {re.sub(r"[._]", "-", package.name.lower()) for package in importlib.metadata.distributions()}
    lines = re.findall(r"(?m)^([a-z0-9-]+==.*?)(?: \\)?$", (ROOT / "requirements.lock").read_text())
    requirements = [Requirement(line) for line in lines]
    assert len(requirements) > 100
    pinned = {one.name for one in requirements if one.marker is None or one.marker.evaluate()}
    assert pinned - installed == set()


def test_damaged_bytecode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    (tmp_path / "fashion").mkdir()
    for name in ("good", "damaged"):
        source = tmp_path / "fashion" / f"{name}.py"
        source.write_text("x = 1")
        py_compile.compile(str(source))
    good, damaged = (next(tmp_path.rglob(f"{name}.*.pyc")) for name in ("good", "damaged"))
    os.truncate(damaged, damaged.stat().st_size - 1)
    environment.delete_damaged_bytecode()
    assert good.exists()
    assert not damaged.exists()


def test_index_of_dvc() -> None:
    """Other users could put pickled code into DVC's default folder."""
    variables = {name: value for name, value in os.environ.items() if name != "DVC_SITE_CACHE_DIR"}
    command = [sys.executable, "-c", "from dvc.dirs import site_cache_dir; print(site_cache_dir())"]
    folder = Path(subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout.strip())
    assert folder == Path(sys.prefix) / "dvc"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_home_that_is_not_writable() -> None:
    """Matplotlib keeps its list of fonts in .venv, so that it does not search for fonts in every process."""
    command = [sys.executable, "-c", "import os; print(os.environ.get('MPLCONFIGDIR'))"]
    for home, folder in ((os.environ["HOME"], "None"), ("/nowhere", f"{sys.prefix}/matplotlib")):
        done = subprocess.run(command, env={**os.environ, "HOME": home}, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == folder
