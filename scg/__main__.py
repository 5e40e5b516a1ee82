"""The command ``scg``: one subcommand a row of ``COMMANDS``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scg.demo import demo
from scg.errors import ScgError


@dataclass(frozen=True)
class Command:
    """A subcommand: what it does, what it takes, and how it is run."""

    summary: str
    declare: Callable[[argparse.ArgumentParser], object]
    run: Callable[[argparse.Namespace], None]


def _declare_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where to write (out)")
    parser.add_argument("--seed", type=int, default=1, help="of the noise of every estimate (1)")


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "draw the five graphs of Schulman et al. (2015) and hold estimates against exact gradients",
        _declare_demo,
        lambda options: demo(options.out, seed=options.seed),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit status."""
    parser = argparse.ArgumentParser(prog="scg", description="A compiler for stochastic computation graphs.")
    rows = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.declare(rows.add_parser(name, help=command.summary, description=command.summary))
    options = parser.parse_args(arguments)
    try:
        COMMANDS[options.command].run(options)
    except (ScgError, OSError) as error:
        print(f"scg {options.command}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
