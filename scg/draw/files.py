"""Drawings as files and strings: the format follows from the suffix."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from scg.draw.layout import layout
from scg.draw.text import dot, mermaid
from scg.errors import GraphError
from scg.nodes.ir import IR

_LIMIT = 2000


def write(ir: IR, path: str | os.PathLike[str], *, labels: Mapping[str, str] | None = None) -> None:
    """Draw a graph into a file: .svg, .png, .mmd (Mermaid) or .dot; ``labels`` adds a line below names."""
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix in (".svg", ".png"):
        file.write_bytes(_picture(ir, suffix[1:], labels))
    elif suffix in (".mmd", ".mermaid"):
        file.write_text(mermaid(ir, labels=labels), encoding="utf-8")
    elif suffix in (".dot", ".gv"):
        file.write_text(dot(ir, labels=labels), encoding="utf-8")
    else:
        found = f"the suffix {file.suffix!r}" if file.suffix else "no suffix"
        raise GraphError(f"cannot draw into {str(path)!r}, which has {found}: write .svg, .png, .mmd or .dot")


def svg(ir: IR, *, labels: Mapping[str, str] | None = None) -> str:
    """Return the picture as SVG whose letters are text; the same graph gives the same string."""
    return _picture(ir, "svg", labels).decode()


def _picture(ir: IR, kind: str, labels: Mapping[str, str] | None) -> bytes:
    if len(ir) > _LIMIT:
        raise GraphError(f"a picture of {len(ir)} nodes cannot be read: draw into .dot or .mmd instead")
    try:
        from scg.draw.picture import render
    except ImportError as missing:
        raise GraphError(
            f'{kind.upper()} pictures need matplotlib: pip install "scg[draw]"; .mmd and .dot need nothing'
        ) from missing
    return render(layout(ir, labels), kind)
