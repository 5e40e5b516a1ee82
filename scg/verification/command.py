"""The command ``scg verify``: a graph of a file, compiled and verified, as a table and an exit status."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from scg.commands import Command, Ended, positive
from scg.errors import GraphError
from scg.graph import Graph
from scg.program.program import Program
from scg.program.program import compile as compiled
from scg.verification.verify import verify

STATUS = {"unbiased": 0, "biased": 1, "undecided": 2}


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "graph", metavar="FILE.py:NAME", help="a graph, a program, or a function that makes one"
    )
    parser.add_argument("--policy", default="auto", metavar="NAME", help="estimator of every node (auto)")
    parser.add_argument("--samples", type=positive, metavar="K", help="replicates (none)")
    parser.add_argument(
        "--resolution", type=float, default=0.05, metavar="R", help="relative bias to see (0.05)"
    )
    parser.add_argument("--alpha", type=float, default=0.01, metavar="A", help="of false alarms (0.01)")
    parser.add_argument("--draws", type=positive, default=2**20, metavar="N", help="most runs (1,048,576)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of all noise (0)")


def _run(options: argparse.Namespace) -> Ended:
    found = verify(
        _program(_named(options.graph), options),
        resolution=options.resolution,
        alpha=options.alpha,
        draws=options.draws,
        noise=options.seed,
        progress=True,
    )
    return Ended(str(found), STATUS[found.verdict])


def _program(given: Any, options: argparse.Namespace) -> Program:
    made = given() if callable(given) and not isinstance(given, Program) else given
    if isinstance(made, Program):
        return made
    if not isinstance(made, Graph):
        raise GraphError(f"{options.graph} is a {type(made).__name__}: name a scg.Graph, or a scg.Program")
    return compiled(made, options.policy, samples=options.samples)


def _named(place: str) -> Any:
    """Return what stands under a name in a file, or in a module."""
    source, _, name = place.rpartition(":")
    if not source or not name:
        raise GraphError(f"'{place}' names no graph: write FILE.py:NAME, as in model.py:graph")
    module = _module(source)
    if not hasattr(module, name):
        raise GraphError(f"{source} has no '{name}'")
    return getattr(module, name)


def _module(source: str) -> ModuleType:
    path = Path(source)
    if path.suffix != ".py":
        return importlib.import_module(source)
    if not path.is_file():
        raise GraphError(f"there is no file {source}")
    name = f"scg_verify_{path.stem}"  # no module that is imported, whatever the file is called
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses of the file look
    spec.loader.exec_module(module)
    return module


VERIFY = Command(
    "test whether a graph's gradient is unbiased; 1 if it is biased, 2 if undecided", _declare, _run
)
