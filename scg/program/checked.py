"""Checked runs: an emitted program line by line, with every value held against its declaration."""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.immutable_collections import immutable_dict, immutable_list

from scg.errors import GraphError, NonFiniteError, PlateError, ScgError
from scg.evaluation.invoke import wrapped
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.records import Cost, Param, Record, Sample
from scg.surrogate.lowering.lower import Lowered

LINE = re.compile(r"\s*(\w+)\s*=")
Look = Callable[[Record, Any], None]


class CheckedRun(fx.Interpreter):
    """Runs a program and raises, by node, for values that are not what was declared.

    That is a parameter of a law outside its constraint, or leading dimensions other than the added axes and
    the plates, of which ``sizes`` are known. ``looks`` sees what else is to be raised for.
    """

    def __init__(
        self, module: nn.Module, ir: IR, lowered: Lowered, sizes: Mapping[str, int], looks: Look
    ) -> None:
        """Prepare to run what was lowered on what ``module`` holds."""
        super().__init__(module, graph=lowered.graph)
        self.extra_traceback = False
        self.ir = ir
        self.lowered = lowered
        self.sizes = dict(sizes)
        self.looks = looks

    def run_node(self, line: fx.Node) -> Any:
        """Run one line, and check what it gave."""
        lowered = self.lowered
        if line.name in lowered.draws:
            self._constraints(line)
        try:
            value = super().run_node(line)
        except Exception as error:
            if line.name not in lowered.places:
                raise
            raise named_error(self.ir[lowered.places[line.name]], error) from error
        if line.name in lowered.leads:
            self._shape(*lowered.leads[line.name], value)
        if line.name in lowered.nodes:
            self.looks(self.ir[lowered.nodes[line.name]], value)
        return value

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a line, in containers that a function may write into."""
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        return tuple(map(_thawed, args)), {key: _thawed(value) for key, value in kwargs.items()}

    def _constraints(self, line: fx.Node) -> None:
        name, law = self.lowered.draws[line.name]
        (parameters, *_), _ = self.fetch_args_kwargs_from_env(line)
        violated = law.violations(parameters)
        if violated is not None:
            raise GraphError(f"sample '{name}' ({self.ir[name].where}): {law.family} parameter {violated}")

    def _shape(self, name: str, labels: Sequence[str], value: Any) -> None:
        """Hold leading dimensions against their sizes; that of a branch is what its outcomes say first."""
        for leaf in pytree.tree_leaves(value):
            if not isinstance(leaf, Tensor):
                continue
            shape = tuple(leaf.shape)
            sizes = [
                self.sizes.setdefault(label, size) if label else 1
                for label, size in zip(labels, shape, strict=False)
            ]
            if len(shape) < len(labels) or list(shape[: len(labels)]) != sizes:
                wanted = ", ".join(f"{x.strip('#') or 1}={self.sizes.get(x, 1)}" for x in labels)
                raise PlateError(
                    f"node '{name}' ({self.ir[name].where}) has shape {shape}, and its leading dimensions "
                    f"are ({wanted}): write its function for any number of elements in front"
                )


def finite(record: Record, value: Any) -> None:
    """Raise for a parameter, sample or cost that is not finite."""
    if not isinstance(record, (Param, Sample, Cost)):
        return
    for leaf in _floats(value):
        if not bool(torch.isfinite(leaf).all()):
            kind = type(record).__name__.lower()
            found = "NaN" if _is_nan(leaf) else "infinite"
            advice = "set it to finite values" if kind == "param" else "look at what it is computed from"
            raise NonFiniteError(f"{kind} '{record.name}' ({record.where}) is {found}: {advice}")


def anything(record: Record, value: Any) -> None:
    """Raise for nothing."""


class NaNs:
    """Remembers which nodes were NaN in a run, and which costs were infinite."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self.names: set[str] = set()
        self.has_infinite_cost = False

    def __call__(self, record: Record, value: Any) -> None:
        """Take in the value of a node."""
        for leaf in _floats(value):
            if _is_nan(leaf):
                self.names.add(record.name)
            elif isinstance(record, Cost) and not bool(torch.isfinite(leaf).all()):
                self.has_infinite_cost = True

    def error(self, ir: IR) -> NonFiniteError | None:
        """Return an error that names the node in which the NaN of the loss arose; costs may be infinite."""
        if not self.names and self.has_infinite_cost:
            return None
        name = next((cost for cost in ir.costs if cost in self.names), None)
        if name is None:
            return NonFiniteError(
                "the loss is NaN, though no node is: it arose in an estimator, or is not there when the run "
                "is repeated. Look at parameters that are huge, or set program.check_values = True"
            )
        while above := [parent for parent in ir[name].parents if parent in self.names]:
            name = above[0]
        record = ir[name]
        kind = type(record).__name__.lower()
        return NonFiniteError(
            f"the loss is NaN, which arose in {kind} '{name}' ({record.where}): "
            "look at what it is computed from"
        )


def _floats(value: Any) -> list[Tensor]:
    leaves = pytree.tree_leaves(value)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _is_nan(leaf: Tensor) -> bool:
    return bool(torch.isnan(leaf).any())


def _thawed(value: Any) -> Any:
    """Return a list or dict of Python for one of torch.fx."""
    if isinstance(value, immutable_list):
        return [*map(_thawed, value)]
    if isinstance(value, immutable_dict):
        return {key: _thawed(item) for key, item in value.items()}
    return tuple(map(_thawed, value)) if type(value) is tuple else value


def named_error(record: Record, error: Exception) -> Exception:
    """Return an error with the node that raised it, and the line where that was declared."""
    if not isinstance(error, ScgError):
        return wrapped(record, error)
    return error if record.where in str(error) else type(error)(f"'{record.name}' ({record.where}): {error}")


def node_of_error(places: Mapping[str, str], error: BaseException, filename: str) -> str | None:
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
