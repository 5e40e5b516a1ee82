"""The page: what a tour showed, as one file of HTML that has its pictures in itself."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path

KINDS = {".png": "image/png", ".svg": "image/svg+xml"}
STYLE = """
body { font: 16px/1.5 sans-serif; color: #222; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { border-top: 1px solid #ccc; margin-top: 2.5rem; padding-top: 1.5rem; }
pre { background: #f5f5f3; padding: .7rem; overflow-x: auto; font-size: 13px; line-height: 1.35; }
figure { margin: 1rem 0; } figcaption, .note { color: #666; font-size: 14px; }
figure.several { display: inline-block; vertical-align: top; margin: .5rem 1.5rem .5rem 0; max-width: 19rem; }
img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; } th, td { padding: .15rem .6rem; white-space: nowrap; }
th { border-bottom: 1px solid #999; text-align: left; } td.number { text-align: right; }
"""


@dataclass(frozen=True)
class Picture:
    """A picture and what it shows."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Code:
    """A program that was emitted, and which it is."""

    caption: str
    text: str


@dataclass(frozen=True)
class Stop:
    """A stop of the tour: what it is about, the command that makes it, its tables as Markdown, seconds."""

    title: str
    told: str
    command: str
    tables: str
    pictures: Sequence[Picture] = ()
    programs: Sequence[Code] = ()
    seconds: float = 0.0


def page(title: str, told: str, stops: Sequence[Stop]) -> str:
    """Return the page, which reads nothing from elsewhere."""
    links = "".join(f'<li><a href="#stop{n}">{escape(s.title)}</a></li>' for n, s in enumerate(stops))
    body = "\n".join(_stop(number, stop) for number, stop in enumerate(stops))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>\n<h1>{escape(title)}</h1>\n<p>{escape(told)}</p>\n"
        f"<ol>{links}</ol>\n{body}\n</body></html>\n"
    )


def _stop(number: int, stop: Stop) -> str:
    several = ' class="several"' if len(stop.pictures) > 1 else ""
    pictures = "".join(
        f'<figure{several}><img src="{embedded(picture.path)}" alt="{escape(picture.caption)}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>\n"
        for picture in stop.pictures
    )
    programs = "".join(
        f"<details{' open' * (not index)}><summary>{escape(code.caption)}</summary>"
        f"<pre>{escape(code.text.strip())}</pre></details>\n"
        for index, code in enumerate(stop.programs)
    )
    return (
        f'<h2 id="stop{number}">{escape(stop.title)}</h2>\n<p>{escape(stop.told)}</p>\n'
        f"<pre>{escape(stop.command)}</pre>\n{pictures}{as_html(stop.tables)}\n{programs}"
        f'<p class="note">{stop.seconds:.0f} seconds.</p>'
    )


def embedded(path: Path) -> str:
    """Return a picture as an address that has all of it."""
    return f"data:{KINDS[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def as_html(markdown: str) -> str:
    """Return tables, titles and paragraphs of Markdown as HTML.

    >>> as_html("## So & so")
    '<h3>So &amp; so</h3>'
    """
    return "\n".join(_blocks(markdown))


def _blocks(markdown: str) -> Iterator[str]:
    for is_blank, lines in groupby(markdown.splitlines(), key=lambda line: not line.strip()):
        block = [*lines]
        if is_blank:
            continue
        if block[0].startswith("|"):
            yield _table([[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block])
        elif block[0].startswith("#"):
            yield f"<h3>{escape(block[0].lstrip('# '))}</h3>"
        else:
            yield f"<p>{escape(' '.join(block))}</p>"


def _table(rows: Sequence[Sequence[str]]) -> str:
    titles, rule, *lines = rows
    sides = [' class="number"' if dashes.endswith(":") else "" for dashes in rule]
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(
        "<tr>"
        + "".join(f"<td{side}>{escape(cell)}</td>" for side, cell in zip(sides, line, strict=True))
        + "</tr>\n"
        for line in lines
    )
    return f'<div class="wide"><table><tr>{head}</tr>\n{body}</table></div>'
