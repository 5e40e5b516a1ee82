"""The Python blocks of a page, executed, with what they print in the text blocks that follow them.

``python tests/docs/blocks.py`` brings every page up to date.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import re
import sys
import types
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```\n(\n```text\n)?(?(2).*?^```\n)", re.MULTILINE | re.DOTALL)


def rendered(page: Path) -> str:
    """Return a page as it would read if every text block after a Python block showed what that prints."""
    module = types.ModuleType("documentation")
    sys.modules["documentation"] = module  # where torch.compile looks for the classes of a page
    space: dict[str, Any] = vars(module)
    torch.manual_seed(0)

    def run(found: re.Match[str]) -> str:
        printed = io.StringIO()
        # the source of its functions, for those who ask for it
        linecache.cache[str(page)] = (len(found[1]), None, found[1].splitlines(keepends=True), str(page))
        with contextlib.redirect_stdout(printed):
            exec(compile(found[1], str(page), "exec", dont_inherit=True), space)
        shown = "".join(f"{line.rstrip()}\n" for line in printed.getvalue().strip().splitlines())
        return f"```python\n{found[1]}```\n" + (f"{found[2]}{shown}```\n" if found[2] else "")

    return BLOCK.sub(run, page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rendered(page), encoding="utf-8")
