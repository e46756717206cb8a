"""Run the pipeline as `make` does: list the stages, run the stale ones, and print how long they took."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fashion.data import about
from fashion.dvc import MD5_PATTERN, Lock, md5, read_committed
from fashion.environment import exclusive
from fashion.errors import STAGE_TIMES, UserError
from fashion.files import read_json, write_bytes
from fashion.params import FolderParams, Params, load_params
from fashion.validation import read_yaml


def run(root: Path) -> None:
    """Run `dvc repro` in the project at `root` and print how long each stage took; wait for another run to end.

    Damaged files in the cache, and files that a killed DVC left incomplete, are repaired first.

    Raises:
        UserError: there is no pipeline, params.yaml or data/about.md is wrong, or a stage failed; DVC has printed why.
    """
    from dvc.exceptions import DvcException

    params = load_params(root / "params.yaml")
    about.load(root / about.PATH, params.dataset.name)
    pipeline = read_yaml(root / "dvc.yaml")
    if not isinstance(pipeline, dict) or not isinstance(pipeline.get("stages"), dict):
        raise UserError("dvc.yaml has no stages; restore it: git checkout dvc.yaml")
    if isinstance(params.fetch, FolderParams):
        fetch = pipeline["stages"].get("fetch")
        if isinstance(fetch, dict) and params.fetch.folder not in fetch.get("deps", []):
            raise UserError(f"dvc.yaml: the stage fetch does not depend on {params.fetch.folder}; run `make deps`")
    stages = ", ".join(pipeline["stages"])
    scratch = root / ".dvc" / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    with exclusive(scratch / "make.lock", "Another `make` is running here; waiting for it"):
        try:
            delete_broken_rwlock(scratch)
            restore_lock(root)
            check_networks(root, params)  # before DVC deletes the outputs of a stage that would fail
            delete_damaged(root)
        except DvcException as error:  # a mistake in .dvc/config, for example
            raise UserError(str(error)) from error
        print(f"Stages: {stages}. Only the stale ones run.\n", flush=True)
        times = scratch / "stage_times.tsv"
        times.write_text("")
        code = _repro(root, times.absolute())
        print(_table(times.read_text(encoding="utf-8")), end="", flush=True)
    if folders := leftovers(root, params):
        print(f"No model in params.yaml uses these folders; delete them: {', '.join(folders)}\n", flush=True)
    if code:
        images = f", in {params.fetch.folder}/ too" if isinstance(params.fetch, FolderParams) else ""
        raise UserError(
            "`dvc repro` failed; its message is above. Fix the cause and run `make` again, or undo all uncommitted "
            f"changes{images}: git checkout . && .venv/bin/dvc checkout"
        )


def check_networks(root: Path, params: Params) -> None:
    """Check the networks' own params if these or the networks have changed; otherwise do not import TensorFlow.

    Raises:
        UserError: as for `fashion.models.networks.check`.
    """
    sections = read_yaml(root / "params.yaml")
    needed = {"training": sections["training"]} | {f"models.{name}": own for name, own in sections["models"].items()}
    recorded: dict[str, Any] = {}
    code: dict[str, str | None] = {}
    if (root / "dvc.lock").exists():
        lock = Lock.read(root)
        for stage in lock.stages:
            recorded |= lock.params(stage).get("params.yaml", {})
            code |= {path: hash_ for path, hash_ in lock.inputs(stage).items() if path.startswith("fashion/models/")}
    edited = any(md5((root / path).read_bytes()) != hash_ for path, hash_ in code.items() if (root / path).exists())
    if edited or any(recorded.get(key) != value for key, value in needed.items()):
        from fashion.models import networks

        networks.check(params)


def delete_broken_rwlock(folder: Path) -> None:
    """Delete DVC's list of running commands, in its temporary folder, if a killed DVC left it half-written.

    All DVC commands would fail: https://github.com/treeverse/dvc/issues/7615.
    """
    from dvc.lock import make_lock

    path = folder / "rwlock"
    with make_lock(f"{path}.lock", tmp_dir=str(folder)):
        try:
            read_json(path)
        except FileNotFoundError:
            pass
        except UserError:
            path.unlink()


def restore_lock(root: Path) -> None:
    """Restore the dvc.lock of the last commit if a killed DVC left it incomplete; delete it if no commit has one.

    DVC does not replace the file atomically. It restores later results from its run cache.

    Raises:
        UserError: a merge left conflicts in it.
    """
    from dvc.lock import make_lock

    path = root / "dvc.lock"
    with make_lock(str(root / ".dvc" / "tmp" / "lock"), wait=True):
        if not path.exists():
            return
        content = path.read_bytes()
        if b"<<<<<<<" in content:
            Lock.parse(content, str(path))
        committed = read_committed(root, "HEAD", "dvc.lock")
        if content == committed or _is_whole(root, content, committed):
            return
        moved = path.replace(root / ".dvc" / "tmp" / "dvc.lock")
        action = "no commit has one, so DVC starts anew from its run cache"
        if committed is not None:
            write_bytes(path, committed)
            action = "restored the last committed version"
    print(f"dvc.lock was incomplete (moved to {moved}): {action}")


def _is_whole(root: Path, content: bytes, committed: bytes | None) -> bool:
    """Return whether a dvc.lock ends with all outputs of a stage, as DVC writes it.

    Outputs that dvc.yaml has gained since the committed dvc.lock may be missing.
    """
    from dvc.dvcfile import Lockfile
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        try:
            stages = Lockfile(repo, str(root / "dvc.lock")).load().get("stages")
        except DvcException:
            return False
        if not stages or not content.endswith(b"\n"):
            return False
        name, last = list(stages.items())[-1]
        try:
            declared = {
                output.def_path
                for stage in repo.index.stages
                if (stage.name, stage.path_in_repo) == (name, "dvc.yaml")
                for output in stage.outs
            }
        except DvcException:  # a mistake in a dvc.yaml, which `dvc repro` reports
            return True
    if committed is not None and b"<<<<<<<" not in committed:
        old = Lock.parse(committed, "dvc.lock of HEAD").stages.get(name)
        if old is not None:
            declared &= {output["path"] for output in old.get("outs", ())}
    outputs = last.get("outs", ())
    return declared <= {output["path"] for output in outputs} and all(
        "size" in output and ("nfiles" in output or not output["md5"].endswith(".dir")) for output in outputs
    )


def delete_damaged(root: Path) -> None:
    """Delete cached outputs whose MD5 differs from dvc.lock, and print a line for each.

    DVC restores read-only files from its cache unchecked. Only files whose time, size or inode has changed since they
    were last hashed are read.
    """
    if not (root / "dvc.lock").exists():
        return
    from dvc.repo import Repo
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.errors import ObjectFormatError

    with Repo(str(root)) as repo:
        cache = repo.cache.local
        names = list(Lock.read(root).outputs.values())
        while names:
            name = str(names.pop())
            if not MD5_PATTERN.fullmatch(name):  # none, or a path, which could lead out of the cache
                continue
            try:
                HashFileDB.check(cache, name)
            except FileNotFoundError:  # not in the cache, such as the metrics
                continue
            except ObjectFormatError:
                print(f"deleted {cache.oid_to_path(name)}: damaged; DVC restores it")
            else:
                if name.endswith(".dir"):
                    names += [entry["md5"] for entry in read_json(Path(cache.oid_to_path(name)))]


def leftovers(root: Path, params: Params) -> list[str]:
    """Return the folders of models that are no longer in params.yaml, relative to `root`."""
    folders = {path.parent for name in ("history.csv", "metrics.json") for path in root.glob(f"reports/*/{name}")}
    folders |= {path.parent for path in root.glob("models/*/model.*")}
    return sorted(str(folder.relative_to(root)) for folder in folders if folder.name not in params.models)


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
    """Return a line per stage that ran and a line with the total; nothing if none ran."""
    rows = [(name, float(seconds)) for name, seconds in (line.split("\t") for line in times.splitlines())]
    if not rows:
        return ""
    rows.append(("all stages", sum(seconds for _, seconds in rows)))
    width = max(len(name) for name, _ in rows)
    return "\n" + "".join(f"{name.ljust(width)} {seconds:7.1f} s\n" for name, seconds in rows)
