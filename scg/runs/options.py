"""Options of long runs for argparse: the same words in every command, and a file that says them instead."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scg.runs.config import as_kind, checked, load
from scg.runs.devices import DTYPES

UNSAID = ("help", "config", "resume", "overwrite")
"""What a file does not say: it is of one call, not of the run."""


def add_options(parser: argparse.ArgumentParser, *, out: str = "out", devices: bool = False) -> None:
    """Declare on a ``parser`` where to write, ``out`` unless said, to resume, to overwrite, seed and file.

    With ``devices`` also where and in which type of numbers to compute.
    """
    parser.add_argument(
        "--out", type=Path, default=Path(out), metavar="DIR", help=f"folder to write into ({out})"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is in --out")
    parser.add_argument("--config", type=Path, metavar="FILE", help="options in TOML, unless said here")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of everything that is drawn (1)")
    if devices:
        parser.add_argument("--device", default="cpu", metavar="D", help="as cuda:1 (cpu)")
        parser.add_argument("--dtype", default="float32", metavar="T", help=f"{', '.join(DTYPES)} (float32)")


def configure(parser: argparse.ArgumentParser, path: Path) -> None:
    """Have a TOML file at ``path`` say the defaults of a ``parser``; parse again after it."""
    actions = {action.dest: action for action in parser._actions if action.dest not in UNSAID}
    readers = {dest: _reader(action) for dest, action in actions.items()}
    parser.set_defaults(**checked(path, load(path), readers))


def _reader(action: argparse.Action) -> Callable[[Any], Any]:
    def one(value: Any) -> Any:
        if isinstance(action, (argparse._StoreTrueAction, argparse._StoreFalseAction)):
            return as_kind(bool, value)
        # What converts a text knows its type: numbers of TOML count as they would be written.
        kind = {None: str, int: int, float: float}.get(action.type)  # type: ignore[arg-type]
        if kind is not None:
            return as_kind(kind, value)
        if not isinstance(value, (str, int, float)) or isinstance(value, bool):
            raise TypeError("and has to be a number or a text")
        assert callable(action.type)
        try:
            return action.type(str(value))
        except (argparse.ArgumentTypeError, ValueError) as error:
            raise ValueError(f"which does not do: {error}") from error

    def several(value: Any) -> list[Any]:
        return [one(each) for each in as_kind(list, value)]

    return several if action.nargs in ("+", "*") else one
