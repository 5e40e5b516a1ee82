"""Commands as data: what each does, what it takes, and tables of them as subcommands of another."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """What a command prints, and its exit status."""

    text: str
    status: int = 0


@dataclass(frozen=True)
class Command:
    """A command: what it does, its options, and ``run``, which returns what is to be printed.

    What only offers other commands has no ``run`` of its own.
    """

    summary: str
    declare: Callable[[argparse.ArgumentParser], object]
    run: Callable[[argparse.Namespace], str | Ended] | None = None


def offer(parser: argparse.ArgumentParser, commands: Mapping[str, Command], metavar: str) -> None:
    """Make a table of commands the subcommands of a parser, which are options.run, .prog and .parser then."""
    rows = parser.add_subparsers(required=True, metavar=metavar)
    for name, command in commands.items():
        row = rows.add_parser(name, help=command.summary, description=f"{name}: {command.summary}.")
        row.set_defaults(run=command.run, prog=row.prog, parser=row)
        command.declare(row)


def add_out(parser: argparse.ArgumentParser) -> None:
    """Declare the folder to write into."""
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where to write (out)")


def positive(text: str) -> int:
    """Read a whole number above 0.

    >>> positive("64")
    64
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not above 0")
    return number
