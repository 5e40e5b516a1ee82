"""The documentation is complete: every estimator has a row and every module a line."""

from __future__ import annotations

import re
from pathlib import Path

import scg
from scg.surrogate.estimators.registry import registry

ROOT = Path(__file__).parents[2]


def test_every_estimator_has_one_row() -> None:
    rows = re.findall(r"^\| `(\w[\w-]*)` \|", (ROOT / "docs" / "estimators.md").read_text("utf-8"), re.MULTILINE)
    own = [name for name, kind in registry().items() if kind.__module__.startswith("scg.")]
    assert sorted(rows) == sorted(own)


def test_the_readme_names_every_estimator() -> None:
    rows = re.findall(r'^\| `"([\w-]+)"`', (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    own = [name for name, kind in registry().items() if kind.__module__.startswith("scg.")]
    assert sorted(rows) == sorted(own)


def test_every_module_has_one_line() -> None:
    package = Path(scg.__file__).parent
    modules = [path for path in package.rglob("*.py") if path.name != "__init__.py"]
    lines = re.findall(r"^- `(scg/[\w/]+\.py)`: ", (ROOT / "docs" / "architecture.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(lines) == sorted(path.relative_to(package.parent).as_posix() for path in modules)
