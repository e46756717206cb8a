"""Strict reading of YAML: settings are checked against a schema, and every problem is one line that names its key.

Editing it keeps comments.
"""

import json
import re
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fashion.errors import UserError, escaped, one_line
from fashion.yaml_limits import CONVERSION_ERRORS, check_limits


def matches(pattern: str, description: str) -> AfterValidator:
    """Return a validator of text that must match a regular expression as a whole."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"should be {description}")
        return text

    return AfterValidator(check)


def _check_name(name: str) -> str:
    if name != name.strip() or escaped(name) != name or len(name.splitlines()) > 1:
        raise ValueError("should be one line of printable text, without leading or trailing spaces")
    if "</script" in name.lower():
        raise ValueError("should not contain </script, which would end the page that `dvc plots` writes")
    return name


Name = Annotated[str, Field(min_length=1), AfterValidator(_check_name)]


class StrictModel(BaseModel):
    """Settings: every key is required, no other is allowed, and no value is converted."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


S = TypeVar("S", bound=StrictModel)


def raise_problems(problems: Iterable[str]) -> None:
    """Raise a `UserError` with a line per problem, if there are any."""
    if text := "\n".join(problems):
        raise UserError(text)


def validated(section: type[S], values: Any, name: str, separator: str = ": ") -> S:
    """Return `values` as a section.

    Raises:
        UserError: a line, starting with `name`, per key that is unknown, missing, of the wrong type or out of bounds.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(f"{name}{separator}{_explain(details)}" for details in error.errors())) from error


def read_yaml(path: Path) -> Any:
    """Read a YAML file as DVC does (YAML 1.2).

    Raises:
        UserError: the file cannot be read, or as for `parse_yaml`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"there is no {path.absolute()}; run this in the project's folder") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return parse_yaml(text, str(path))


def look_up(values: Any, key: str) -> Any:
    """Return the value of a dotted key in nested mappings, None if there is none."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def parse_yaml(text: str, name: str) -> Any:
    """Return the content of a YAML file as DVC reads it (YAML 1.2).

    Raises:
        UserError: it is not YAML, or exceeds a limit of `fashion.yaml_limits`.
    """
    try:
        check_limits(text, name)
        return YAML(typ="safe").load(text)
    except (yaml.YAMLError, YAMLError, *CONVERSION_ERRORS) as error:
        raise UserError(f"{name} is not YAML: {one_line(error)}") from error


def yaml_editor() -> YAML:
    """Return a reader and writer of YAML that keeps comments, in the style of this project."""
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 1000  # no line breaks
    return yaml


def set_value(section: Any, key: str, value: Any) -> None:
    """Set a value in a section that `yaml_editor` has read, with its comment right behind it."""
    section[key] = value
    if key in section.ca.items and (comment := section.ca.items[key][2]):
        comment.column = 0


def edited(text: str, changes: Mapping[str, Any]) -> str:
    """Return a YAML text with changes, by dotted key, in the style of this project; comments are kept."""
    yaml = yaml_editor()
    content = yaml.load(text)
    for key, value in reversed(list(changes.items())):
        section, (name, *inner) = content, key.split(".")
        while inner and isinstance(section.get(name), Mapping):
            section, (name, *inner) = section[name], inner
        for part in reversed(inner):
            value = {part: value}
        new = yaml.load(json.dumps(value))  # on one line
        if name in section:
            set_value(section, name, new)
        else:
            section.insert(0, name, new)  # at the end, it would follow the blank line that ends the section
    yaml.dump(content, stream := StringIO())
    return stream.getvalue()


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Return `key=value` settings as a nested mapping: `a.b=1` is {"a": {"b": 1}}; values are YAML.

    Raises:
        UserError: a setting has no key, or its value is not YAML.
    """
    result: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not all(key.split(".")):
            raise UserError(f"{setting}: expected KEY=VALUE, such as epochs=3 or augmentation.translate=2")
        nested = parse_yaml(value, setting)
        for part in reversed(key.split(".")):
            nested = {part: nested}
        result = merged(result, nested)
    return result


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with `changes`; where both have a mapping, key by key."""
    nested = {
        key: merged(values[key], new)
        for key, new in changes.items()
        if isinstance(new, Mapping) and isinstance(values.get(key), Mapping)
    }
    return {**values, **changes, **nested}


def _explain(details: ErrorDetails) -> str:
    match details["type"]:
        case "missing":
            problem = "missing"
        case "extra_forbidden":
            problem = "unknown key"
        case _:
            problem = f"{re.sub('^(Value error, |Input )', '', details['msg'])}, found {details['input']!r:.200}"
    return f"{'.'.join(map(str, details['loc'])) or '(top level)'}: {problem}"
