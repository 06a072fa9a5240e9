"""The house (DESIGN): data flows downward, so that an import never points up."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import leasehold

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE: Final = Path(leasehold.__file__).parent

#: From the top; what is not named here is what flow authors touch.
FLOORS: Final = ("cli", "testing", "authoring", "concurrency", "client", "embedded", "ground")
ENTRIES: Final = {"cli", "testing"}
GROUND: Final = {"exceptions", "forks", "settings", "sources"}

#: Stands below a floor for its name alone, which flow authors know.
BY_NAME: Final = ("leasehold.client.schemas",)

MODULES: Final = sorted(PACKAGE.rglob("*.py"))


def floor_of(module: str) -> str:
    """Say on which floor a module is; "ground" also has the package itself."""
    if module.startswith(BY_NAME):
        return "authoring"
    part = [*module.split("."), ""][1]
    if part == "__main__":
        return "cli"
    if part in GROUND or not part:
        return "ground"
    return part if part in FLOORS else "authoring"


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path) -> Iterator[str]:
    """Give the modules of ours that a file imports when it runs, at its top or inside."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.startswith("leasehold"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("leasehold"):
            if node.module == "leasehold":
                yield from (f"leasehold.{one.name}" for one in node.names if one.name[0] != "_")
            else:
                yield str(node.module)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_an_import_never_points_up(path: Path) -> None:
    here = floor_of(name_of(path))
    for module in imports(path):
        there = floor_of(module)
        assert there == here or there not in ENTRIES, f"{module} is an entry: nothing imports it"
        assert FLOORS.index(there) >= FLOORS.index(here), f"{module} is above {name_of(path)}"


def test_the_guard_needs_nothing_but_the_standard_library() -> None:
    assert list(imports(PACKAGE / "concurrency" / "guard.py")) == []
