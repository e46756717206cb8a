"""The differences between two dvc.lock files: params, code, data, and the stages that they make run again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fashion.dvc import Lock

ABSENT = object()


@dataclass(frozen=True)
class LockDiff:
    """The differences between two dvc.lock files.

    Attributes:
        params: key, value in base, value in head; `ABSENT` where there is none.
        code: dependencies that no stage makes.
        commands: stages whose command differs.
        outputs: data, models, metrics and figures.
        rerun: stages of head whose command, dependencies or params differ, or that are new.
        unchanged: the other stages of head.
        removed: stages of base that head does not have.
    """

    params: tuple[tuple[str, Any, Any], ...]
    code: tuple[str, ...]
    commands: tuple[str, ...]
    outputs: tuple[str, ...]
    rerun: tuple[str, ...]
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]


def compare(base: Lock, head: Lock) -> LockDiff:
    """Compare two dvc.lock files."""
    rerun = tuple(name for name in head.stages if name not in base.stages or _needs(head, name) != _needs(base, name))
    return LockDiff(
        params=differences(_params(base), _params(head)),
        code=tuple(
            path
            for path, *_ in differences(_inputs(base), _inputs(head))
            if path not in base.outputs and path not in head.outputs
        ),
        commands=tuple(
            name for name in base.stages if name in head.stages and _command(base, name) != _command(head, name)
        ),
        outputs=tuple(path for path, *_ in differences(base.outputs, head.outputs)),
        rerun=rerun,
        unchanged=tuple(name for name in head.stages if name not in rerun),
        removed=tuple(name for name in base.stages if name not in head.stages),
    )


def differences(base: Mapping[str, Any], head: Mapping[str, Any]) -> tuple[tuple[str, Any, Any], ...]:
    """Return each key whose value differs, with both values."""
    pairs = ((key, base.get(key, ABSENT), head.get(key, ABSENT)) for key in sorted(base.keys() | head.keys()))
    return tuple(pair for pair in pairs if pair[1] != pair[2])


def flat(values: Any, key: str = "") -> dict[str, Any]:
    """Return nested mappings as one mapping with dotted keys."""
    if not isinstance(values, Mapping):
        return {key: values}
    return {
        inner: leaf
        for name, value in values.items()
        for inner, leaf in flat(value, f"{key}.{name}".lstrip(".")).items()
    }


def _params(lock: Lock) -> dict[str, Any]:
    """Return the params of all stages with dotted keys, which start with the file's name unless it is params.yaml."""
    return {
        ("" if file == "params.yaml" else f"{file}: ") + key: value
        for stage in lock.stages
        for file, values in lock.params(stage).items()
        for key, value in flat(values).items()
    }


def _inputs(lock: Lock) -> dict[str, str | None]:
    return {path: md5 for stage in lock.stages for path, md5 in lock.inputs(stage).items()}


def _command(lock: Lock, stage: str) -> Any:
    return lock.stages[stage].get("cmd")


def _needs(lock: Lock, stage: str) -> tuple[Any, ...]:
    return _command(lock, stage), lock.inputs(stage), lock.params(stage)
