"""The documentation: links, names and paths are right."""

import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

import fashion
from fashion.dvc import Lock
from fashion.params import check_params
from fashion.review.rules import Rules
from fashion.validation import parse_yaml, validated
from tests.conftest import MODELS, ROOT, idx_params

PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
LINKING_PAGES = [*PAGES, "tests/photos/README.md", "reports/MODEL_CARD.md"]
TARGETS = set(re.findall(r"^([a-z][a-z -]*):", (ROOT / "Makefile").read_text(), re.M))
COMMANDS = (ROOT / "fashion" / "cli.py").read_text()
OUTPUTS = Lock.read(ROOT).outputs
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
FOLDERS = {"data", "models", *(name.partition("/")[0] for name in TRACKED if "/" in name)}
EXAMPLE = "logistic"  # docs/extend.md adds this model
# Results for Fashion-MNIST, which a project with other images deletes with tests/test_results.py
RESULTS = r"studies/.*\.(?!py$|yaml$)\w+|reports/benchmarks\..*|docs/(results|tour)\.md|tests/test_results\.py"
EXCUSED = "(?!)" if (ROOT / "tests" / "test_results.py").exists() else RESULTS  # files that a page may name in vain


def read_page(page: str) -> str:
    return (ROOT / page).read_text()


def code(page: str) -> Iterator[str]:
    """Yield the code spans and the lines of the code blocks of a page."""
    for token in MarkdownIt().enable("table").parse(read_page(page)):
        if token.type == "fence":
            yield from token.content.splitlines()
        yield from (child.content for child in token.children or () if child.type == "code_inline")


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)", re.sub(r"```.*?```", "", read_page(page), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: str) -> Iterator[str]:
    """Yield the link targets of a page that do not exist or lack the anchor."""
    text = re.sub(r"```.*?```", "", read_page(page), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith("http"):
            name, _, anchor = link.partition("#")
            target = (ROOT / page).parent.joinpath(name).resolve() if name else ROOT / page
            path = str(target.relative_to(ROOT))
            if not target.exists() or (anchor and anchor not in anchors(path)):
                yield path


@pytest.mark.parametrize("page", LINKING_PAGES)
def test_links(page: str) -> None:
    assert [path for path in broken_links(page) if not re.fullmatch(EXCUSED, path)] == []


@pytest.mark.parametrize("page", PAGES)
def test_commands(page: str) -> None:
    for line in code(page):
        command = line.split("# ")[0].removeprefix("$ ")
        for target in re.findall(r"(?:^|&& )make ([a-z][a-z-]*)", command):
            assert any(target in targets.split() for targets in TARGETS), line
        for name, options in re.findall(r"^fashion ([a-z]+)(.*)", command):
            assert f'"{name}"' in COMMANDS, line
            assert all(f'"{option}"' in COMMANDS for option in re.findall(r"--[a-z-]+", options)), line


def has_key(values: Any, name: str) -> bool:
    """Return whether nested mappings have a dotted key; true for a name that is of no section of params.yaml."""
    section, *keys = name.replace("NAME", MODELS[-1]).split(".")
    if section not in values or keys[-1] in ("yml", "html", EXAMPLE):
        return True
    value = values[section]
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True


@pytest.mark.parametrize("page", PAGES)
def test_params(page: str) -> None:
    values = parse_yaml(idx_params(), "params.yaml")
    inherited = {**values, "models": check_params(values, "params.yaml").models}  # with the keys of `training`
    for line in code(page):
        if re.fullmatch(r"[a-z]+(\.[a-z_A-Z]+)+", line):
            assert has_key(inherited, line), line
        for plus, name in re.findall(r"(?:--set-param|\.ci/retrain) (\+?)([\w.]+)", line):
            assert has_key(inherited, name), line
            assert has_key(values, name) or plus, f"{name} is not in params.yaml, so it needs a +: {line}"


def missing_paths(page: str) -> Iterator[str]:
    """Yield the paths in a page's code that are neither in the working tree nor outputs of the pipeline."""
    for line in code(page):
        path = line.replace("NAME", MODELS[-1]).rstrip("/")
        if re.fullmatch(r"[\w.*{},/-]+", path) and path.split("/")[0] in FOLDERS and EXAMPLE not in path:
            choices = re.search(r"\{(.*)\}", path)
            for choice in choices[1].split(",") if choices else [""]:
                name = re.sub(r"\{.*\}", choice, path)
                if not any(ROOT.glob(name)) and not any(f"{out}/".startswith(f"{name}/") for out in OUTPUTS):
                    yield name


@pytest.mark.parametrize("page", PAGES)
def test_paths(page: str) -> None:
    assert [path for path in missing_paths(page) if not re.fullmatch(EXCUSED, path)] == []


def test_review_section() -> None:
    blocks = [
        block for block in re.findall(r"```yaml\n(.*?)```", read_page("docs/review.md"), re.S) if "review:" in block
    ]
    waivers, whole = (yaml.safe_load(block)["review"] for block in blocks)
    validated(Rules, {**whole, **waivers}, "docs/review.md")
    assert blocks[1].count("\n") <= 10


def test_reproducibility() -> None:
    text = read_page("docs/reproducibility.md")
    assert all(f"`{prefix}*`" in text or f"`{prefix}`" in text for prefix in fashion.UNSET_PREFIXES)
    machines = (ROOT / ".ci" / "machines").read_text()
    cases = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", text, re.M)))
    assert len(cases) > 10
    assert all(re.search(rf"^{case}\(\)", machines, re.M) for case in cases)
