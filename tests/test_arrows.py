"""Import arrows: which package of scg may import which, as the page on architecture has it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import scg

ROOT = Path(scg.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
PAGE = ROOT.parent / "docs" / "architecture.md"
ROW = re.compile(r"^\| `(scg[\w.]*)` \| .* \|(.*)\|$", re.MULTILINE)


def may_import() -> dict[str, tuple[str, ...]]:
    """Return what the table of the page on architecture says of each package."""
    rooms = ROW.findall(PAGE.read_text(encoding="utf-8"))
    return {
        room: (room, "scg.errors", *(f"scg.{name}" for name in re.findall(r"`([\w.]+)`", several)))
        for room, several in rooms
    }


MAY_IMPORT = may_import()
"""What each package may import; the longest prefix counts, and what is not listed may import anything."""

KNOW_FX = (
    "scg.algebra.reading",
    "scg.algebra.tracing",
    "scg.surrogate.lowering",
    "scg.program.checked",
    "scg.program.prepare",
    "scg.program.program",
    "scg.program.recording",
)
OPTIONAL = (
    "PIL",
    "gymnasium",
    "matplotlib",
    "numpy",
    "scg.draw.picture",
    "scg.rl.player",
    "scipy",
    "sklearn",
    "torch.utils.tensorboard",
)
"""What may be imported inside a function: optional, or reached only with what is optional."""


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def within(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


def imported(node: ast.AST) -> Iterator[str]:
    """Yield the modules that an import statement names; ``from scg import draw`` names ``scg.draw``."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.module is not None and node.level == 0, "write absolute imports"
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        inner = [name for name in names if is_module(name)]
        yield from inner or [node.module]


def is_module(name: str) -> bool:
    path = ROOT.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imports(tree: ast.AST) -> list[str]:
    return [module for node in ast.walk(tree) for module in imported(node)]


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@pytest.fixture(params=FILES, ids=lambda file: str(file.relative_to(ROOT.parent)))
def file(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_imports_follow_the_arrows(file: Path) -> None:
    module = module_of(file)
    rules = [package for package in MAY_IMPORT if within(module, (package,))]
    own = [name for name in imports(parsed(file)) if within(name, ("scg",))]
    if rules:
        allowed = MAY_IMPORT[max(rules, key=len)]
        assert [name for name in own if not within(name, allowed)] == []


def test_only_the_emitting_modules_know_fx(file: Path) -> None:
    if not within(module_of(file), KNOW_FX):
        tree = parsed(file)
        named = [name for name in imports(tree) if within(name, ("torch.fx",))]
        aliased = [
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "torch"
            for alias in node.names
            if alias.name == "fx"
        ]
        reached = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_fx(node)]
        assert named + aliased + reached == []


def is_fx(node: ast.Attribute) -> bool:
    return node.attr == "fx" and isinstance(node.value, ast.Name) and node.value.id == "torch"


def test_values_are_taken_apart_in_one_place(file: Path) -> None:
    """torch's pytrees take a dataclass for a leaf; what is recorded or traced are no values of nodes."""
    if module_of(file) not in ("scg.nodes.trees", "scg.program.estimate") and not within(
        module_of(file), ("scg.probes", "scg.algebra")
    ):
        found = [name for name in imports(parsed(file)) if within(name, ("torch.utils",))]
        assert [name for name in found if name != "torch.utils.tensorboard"] == []


def test_imports_are_at_the_top(file: Path) -> None:
    inner = [
        module
        for function in ast.walk(parsed(file))
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef))
        for node in ast.walk(function)
        for module in imported(node)
    ]
    assert [module for module in inner if not within(module, OPTIONAL)] == []


def test_gradients_are_torch_s_own(file: Path) -> None:
    """No custom autograd function: what is emitted is differentiated by what torch knows."""
    tree = parsed(file)
    named = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    named |= {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    custom = ("autograd.Function", "autograd.function.Function")
    assert [name for name in named if name.endswith(custom)] == []


def test_every_rule_names_something() -> None:
    assert len(MAY_IMPORT) > 10
    modules = [module_of(path) for path in FILES]
    for package in {
        *MAY_IMPORT,
        *KNOW_FX,
        *(n for rule in MAY_IMPORT.values() for n in rule),
    }:
        assert any(within(module, (package,)) for module in modules), package
