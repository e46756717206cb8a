"""What differs between two dvc.lock files: params, code, data, and so the stages that had to run again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NOT_THERE = object()


@dataclass(frozen=True)
class Changes:
    """What differs between the locks of two revisions.

    Attributes:
        params: key, its value in base and in head; NOT_THERE where it is not.
        code: files that stages depend on and no stage makes.
        commands: stages whose command differs.
        outs: what stages made that differs: data, models, metrics, pictures.
        rerun: stages that had to run again, as something they need differs, or are new.
        kept: stages that had not.
        gone: stages that head has no more.
    """

    params: tuple[tuple[str, Any, Any], ...]
    code: tuple[str, ...]
    commands: tuple[str, ...]
    outs: tuple[str, ...]
    rerun: tuple[str, ...]
    kept: tuple[str, ...]
    gone: tuple[str, ...]


def compare(base: Mapping[str, Any], head: Mapping[str, Any]) -> Changes:
    """Compare the stages of two dvc.lock files."""
    outs = [_hashes(stages, "outs") for stages in (base, head)]
    rerun = tuple(name for name, stage in head.items() if _inputs(stage) != _inputs(base.get(name, {})))
    return Changes(
        params=differences(*(_params(stages) for stages in (base, head))),
        code=tuple(
            path
            for path, *_ in differences(*(_hashes(stages, "deps") for stages in (base, head)))
            if not any(path in made for made in outs)
        ),
        commands=tuple(name for name in base if name in head and base[name]["cmd"] != head[name]["cmd"]),
        outs=tuple(path for path, *_ in differences(*outs)),
        rerun=rerun,
        kept=tuple(name for name in head if name not in rerun),
        gone=tuple(name for name in base if name not in head),
    )


def differences(base: Mapping[str, Any], head: Mapping[str, Any]) -> tuple[tuple[str, Any, Any], ...]:
    """Return each key whose value differs, with both values."""
    pairs = ((key, base.get(key, NOT_THERE), head.get(key, NOT_THERE)) for key in sorted(base.keys() | head.keys()))
    return tuple(pair for pair in pairs if pair[1] != pair[2])


def flat(values: Any, key: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted keys."""
    if not isinstance(values, Mapping):
        return {key: values}
    return {
        inner: leaf
        for name, value in values.items()
        for inner, leaf in flat(value, f"{key}.{name}".lstrip(".")).items()
    }


def _params(stages: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params of all stages with dotted keys; those of another file than params.yaml with its name."""
    found: dict[str, Any] = {}
    for stage in stages.values():
        for file, values in stage.get("params", {}).items():
            prefix = "" if file == "params.yaml" else f"{file}: "
            found |= {prefix + key: value for key, value in flat(values).items()}
    return found


def _hashes(stages: Mapping[str, Any], kind: str) -> dict[str, str]:
    return {entry["path"]: entry.get("md5") for stage in stages.values() for entry in stage.get(kind, [])}


def _inputs(stage: Mapping[str, Any]) -> tuple[Any, ...]:
    return stage.get("cmd"), _hashes({"": stage}, "deps"), stage.get("params")
