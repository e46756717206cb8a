"""What differs between two dvc.lock files: params, code, data, and so the stages that had to run again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fashion.review.revision import flat


@dataclass(frozen=True)
class Changes:
    """What differs between the locks of two revisions.

    Attributes:
        params: key, its value in base and in head; None where it is not there.
        code: files that stages depend on and no stage makes.
        data: outputs of stages.
        rerun: stages that ran again (or came from DVC's run cache), as what goes into them differs.
        kept: stages that did not, as nothing differs.
    """

    params: tuple[tuple[str, Any, Any], ...]
    code: tuple[str, ...]
    data: tuple[str, ...]
    rerun: tuple[str, ...]
    kept: tuple[str, ...]


def compare(base: Mapping[str, Any], head: Mapping[str, Any]) -> Changes:
    """Compare the stages of two dvc.lock files."""
    params_base, params_head = _params(base), _params(head)
    outs_base, outs_head = _hashes(base, "outs"), _hashes(head, "outs")
    deps_base, deps_head = _hashes(base, "deps"), _hashes(head, "deps")
    made = outs_base.keys() | outs_head.keys()
    rerun = tuple(name for name, stage in head.items() if _inputs(stage) != _inputs(base.get(name, {})))
    return Changes(
        params=tuple((key, params_base.get(key), params_head.get(key)) for key in _differing(params_base, params_head)),
        code=tuple(path for path in _differing(deps_base, deps_head) if path not in made),
        data=tuple(_differing(outs_base, outs_head)),
        rerun=rerun,
        kept=tuple(name for name in head if name not in rerun),
    )


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


def _differing(base: Mapping[str, Any], head: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in base.keys() | head.keys() if base.get(key) != head.get(key))
