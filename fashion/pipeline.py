"""Run the pipeline as `make` does: list the stages, run those that are out of date, and print their times."""

import os
import subprocess
import sys
from pathlib import Path

from fashion.environment import exclusive
from fashion.errors import STAGE_TIMES, UserError
from fashion.params import load_params, read_yaml


def run(root: Path) -> None:
    """Run `dvc repro` in the project at `root` and print how long each stage took; wait for another run to end.

    Raises:
        UserError: there is no pipeline, or a stage failed; DVC has said why.
    """
    load_params(root / "params.yaml")  # before DVC deletes the outputs of a stage that is going to fail
    stages = ", ".join(read_yaml(root / "dvc.yaml")["stages"])
    scratch = root / ".dvc" / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    with exclusive(scratch / "make.lock", "Another `make` is running here; waiting for it"):
        print(f"Stages: {stages}. Only those that are out of date run.\n", flush=True)
        times = scratch / "stage_times.tsv"
        times.write_text("")
        code = _repro(root, times.absolute())
        print(_table(times.read_text(encoding="utf-8")), end="", flush=True)
    if code:
        raise UserError(
            "`dvc repro` failed; its message is above. Mend the cause and run `make` again, or undo all that is not "
            "committed: git checkout . && .venv/bin/dvc checkout"
        )


def _repro(root: Path, times: Path) -> int:
    environment = {**os.environ, STAGE_TIMES: str(times)}
    with subprocess.Popen([sys.executable, "-m", "dvc", "repro"], cwd=root, env=environment) as dvc:
        try:
            return dvc.wait()
        except KeyboardInterrupt as interrupt:
            if interrupt.args:  # SIGTERM, which reached this process alone; the terminal sends Ctrl-C to DVC as well
                dvc.terminate()
            dvc.wait()
            raise


def _table(times: str) -> str:
    """Return a line per stage that ran, and their sum; nothing if none did."""
    rows = [(name, float(seconds)) for name, seconds in (line.split("\t") for line in times.splitlines())]
    if not rows:
        return ""
    rows.append(("all stages", sum(seconds for _, seconds in rows)))
    width = max(len(name) for name, _ in rows)
    return "\n" + "".join(f"{name.ljust(width)} {seconds:7.1f} s\n" for name, seconds in rows)
