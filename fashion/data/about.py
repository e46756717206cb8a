"""data/about.md: the hand-written description of the data set, for the model card."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Strict

from fashion.errors import UserError
from fashion.validation import Name, StrictModel, parse_yaml, validated

PATH = Path("data", "about.md")
SECTIONS = ("Intended use", "Data", "Limitations", "Licence")
Names = Annotated[tuple[Name, ...], Strict(False)]
SKELETON = """---
name: {name} # dataset.name in params.yaml
license: unknown # of the models: a Hugging Face licence identifier, such as mit
datasets: [] # IDs on the Hub, such as owner/name
tags: []
---

## Intended use

TODO: what the models are for, and what they must not be used for.

## Data

TODO: what the images show, who made and labelled them, when and how; a link to the source.

## Limitations

- TODO: images that neither the training nor the test set has, such as those of other cameras, places or seasons.

## Licence

TODO: the licences of the images and of the models.
"""


class Header(StrictModel):
    """The YAML header. The header of the model card copies every key but `name`, other keys of the Hub included.

    Attributes:
        name: of the data set, as in params.yaml.
        license: of the models.
        datasets: IDs of the data set on the Hugging Face Hub.
        tags: for the search on the Hub.
    """

    model_config = ConfigDict(extra="allow")

    name: Name
    license: Name
    datasets: Names
    tags: Names


@dataclass(frozen=True)
class About:
    """The content of data/about.md: its header, and the Markdown of each of `SECTIONS`."""

    header: Header
    sections: Mapping[str, str]


def read(path: Path) -> About:
    """Read the description of a data set.

    Raises:
        UserError: the file is missing, its header is malformed, or its sections are not `SECTIONS`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; restore it from Git, or run `fashion dataset PATH`") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    parts = re.fullmatch(r"---\n(.*?)^---\n(.*)", text, re.DOTALL | re.MULTILINE)
    if not parts:
        raise UserError(f"{path}: no header; expected YAML between two `---` lines at the top")
    header = validated(Header, parse_yaml(parts[1], f"{path}: the header"), path.as_posix())
    before, *sections = re.split(rf"^## ({'|'.join(SECTIONS)})[ ]*$", parts[2], flags=re.MULTILINE)
    titles = sections[::2]
    if sorted(titles) != sorted(SECTIONS):
        found = ", ".join(titles) or "none"
        raise UserError(f"{path}: found the sections {found}; expected {', '.join(SECTIONS)}, each exactly once")
    if before.strip():
        raise UserError(f"{path}: text before the first section, {titles[0]}; move it into a section")
    return About(header, dict(zip(titles, (section.strip() for section in sections[1::2]), strict=True)))


def load(path: Path, name: str) -> About:
    """Read the description of the data set `name`.

    Raises:
        UserError: it is that of another data set, or as for `read`.
    """
    about = read(path)
    if about.header.name != name:
        raise UserError(
            f"{path}: describes {about.header.name!r}, but dataset.name in params.yaml is {name!r}; correct the text "
            "and its name"
        )
    return about


def skeleton(name: str) -> str:
    """Return the text for a new data set, with lines to fill in."""
    return SKELETON.format(name=json.dumps(name, ensure_ascii=False))
