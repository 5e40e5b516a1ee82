"""Markdown tables whose columns line up in plain text as well."""

from __future__ import annotations

from collections.abc import Sequence


def table(titles: Sequence[str], sides: str, rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned table; ``sides`` has "<" or ">" for each column.

    >>> print(table(("name", "size"), "<>", [("b", "10"), ("theta", "2")]))
    | name  | size |
    | ----- | ---: |
    | b     |   10 |
    | theta |    2 |
    """
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    rule = [
        "-" * (width - 1) + ("-" if side == "<" else ":") for side, width in zip(sides, widths, strict=True)
    ]
    lines = (
        " | ".join(f"{word:{side}{width}}" for word, side, width in zip(line, sides, widths, strict=True))
        for line in (titles, rule, *rows)
    )
    return "\n".join(f"| {line} |" for line in lines)
