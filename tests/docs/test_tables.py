"""The documentation is complete: every estimator has a row and every module a line."""

from __future__ import annotations

import re
from pathlib import Path

import scg
from scg.estimators.registry import registry

ROOT = Path(__file__).parents[2]


def rows(page: str, pattern: str) -> list[str]:
    """Return what a pattern finds in a page, in order."""
    return sorted(re.findall(pattern, (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE))


def own_estimators() -> list[str]:
    return sorted(name for name, kind in registry().items() if kind.__module__.startswith("scg."))


def test_every_estimator_has_one_row() -> None:
    assert rows("docs/estimators.md", r"^\| `([a-z-]+)` \|") == own_estimators()


def test_the_readme_has_a_row_for_every_estimator() -> None:
    assert rows("README.md", r'^\| `"([a-z-]+)"`') == own_estimators()


def test_every_module_has_one_line() -> None:
    package = Path(scg.__file__).parent
    modules = (path for path in package.rglob("*.py") if path.name != "__init__.py")
    named = sorted(path.relative_to(package.parent).as_posix() for path in modules)
    assert rows("docs/modules.md", r"^- `(scg/[\w/]+\.py)`: ") == named
