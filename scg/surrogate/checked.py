"""Checked runs: an emitted program line by line, with every value held against its declaration."""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.immutable_collections import immutable_dict, immutable_list

from scg.analysis.invoke import wrapped
from scg.errors import GraphError, NonFiniteError, ScgError
from scg.laws import Law
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.records import Cost, Param, Record, Sample

LINE = re.compile(r"\s*(\w+)\s*=")


class CheckedRun(fx.Interpreter):
    """Runs a program and raises, by node, for what is not finite or outside its constraint.

    ``nodes`` maps the lines that evaluate nodes to these, ``places`` every line that is a node's doing, and
    ``draws`` the lines that draw to the node and its law.
    """

    def __init__(
        self,
        module: nn.Module,
        graph: fx.Graph,
        ir: IR,
        nodes: Mapping[str, str],
        places: Mapping[str, str],
        draws: Mapping[str, tuple[str, Law]],
    ) -> None:
        """Prepare to run ``graph`` on what ``module`` holds."""
        super().__init__(module, graph=graph)
        self.extra_traceback = False
        self.ir = ir
        self.nodes = nodes
        self.places = places
        self.draws = draws

    def run_node(self, line: fx.Node) -> Any:
        """Run one line, and check what it gave."""
        if line.name in self.draws:
            self._constraints(line)
        try:
            value = super().run_node(line)
        except Exception as error:
            if line.name not in self.places:
                raise
            raise told(self.ir[self.places[line.name]], error) from error
        if line.name in self.nodes:
            self._finite(self.ir[self.nodes[line.name]], value)
        return value

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a line, in containers that a function may write into."""
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        return tuple(map(_thawed, args)), {key: _thawed(value) for key, value in kwargs.items()}

    def _constraints(self, line: fx.Node) -> None:
        name, law = self.draws[line.name]
        (parameters, *_), _ = self.fetch_args_kwargs_from_env(line)
        violated = law.violations(parameters)
        if violated is not None:
            raise GraphError(f"sample '{name}' ({self.ir[name].where}): {law.family} parameter {violated}")

    def _finite(self, record: Record, value: Any) -> None:
        if not isinstance(record, (Param, Sample, Cost)):
            return
        for leaf in pytree.tree_leaves(value):
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and not bool(torch.isfinite(leaf).all()):
                kind = type(record).__name__.lower()
                found = "NaN" if bool(torch.isnan(leaf).any()) else "infinite"
                advice = "set it to finite values" if kind == "param" else "look at what it is computed from"
                raise NonFiniteError(f"{kind} '{record.name}' ({record.where}) is {found}: {advice}")


def _thawed(value: Any) -> Any:
    """Return a list or dict of Python for one of torch.fx."""
    if isinstance(value, immutable_list):
        return [*map(_thawed, value)]
    if isinstance(value, immutable_dict):
        return {key: _thawed(item) for key, item in value.items()}
    return tuple(map(_thawed, value)) if type(value) is tuple else value


def told(record: Record, error: Exception) -> Exception:
    """Return an error with the node that raised it, and the line where that was declared."""
    if not isinstance(error, ScgError):
        return wrapped(record, error)
    return error if record.where in str(error) else type(error)(f"'{record.name}' ({record.where}): {error}")


def arose(places: Mapping[str, str], error: BaseException, filename: str) -> str | None:
    """Return the node in whose line of emitted text an error arose, if it is known.

    Errors of torch.compile tell in ``real_stack`` what they were tracing.
    """
    frames = [*(getattr(error, "real_stack", None) or ()), *traceback.extract_tb(error.__traceback__)]
    for frame in frames:
        if frame.filename == filename and frame.lineno is not None:
            found = LINE.match(linecache.getline(filename, frame.lineno))
            if found is not None and found.group(1) in places:
                return places[found.group(1)]
    return None
