"""Experiments are written as users would write them: by what is public."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from scg import experiments
from tests.test_arrows import imports

ROOT = Path(experiments.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
PUBLIC = ("scg", "scg.errors", "scg.rl", "scg.runs")
HOUSE = ("scg.commands", "scg.experiments", "scg.markdown", "scg.noise", "scg.panels", "scg.progress")
"""What commands are made of: tables, panels, progress, and noise that is a function of a seed."""
INSIDE = ("estimators",)
"""Experiments on the estimators themselves, which list what is registered."""


@pytest.fixture(params=FILES, ids=lambda file: str(file.relative_to(ROOT)))
def tree(request: pytest.FixtureRequest) -> tuple[Path, ast.Module]:
    path: Path = request.param
    return path, ast.parse(path.read_text(encoding="utf-8"))


def test_only_public_modules_are_imported(tree: tuple[Path, ast.Module]) -> None:
    path, parsed = tree
    if path.relative_to(ROOT).parts[0] not in INSIDE:
        own = [name for name in imports(parsed) if name == "scg" or name.startswith("scg.")]
        assert [name for name in own if name not in PUBLIC and not name.startswith(HOUSE)] == []


def test_no_private_name_is_used(tree: tuple[Path, ast.Module]) -> None:
    _, parsed = tree
    imported = [
        alias.name
        for node in ast.walk(parsed)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name.startswith("_")
    ]
    reached = [
        ast.unparse(node)
        for node in ast.walk(parsed)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and ast.unparse(node.value) not in ("self", "cls")
    ]
    assert imported + reached == []
