"""Worlds: the values of the graph's nodes in one emitted evaluation, and the axes that they carry."""

from __future__ import annotations

import operator
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, fx

from scg.analysis.calls import is_elementwise, transform_of
from scg.analysis.facts import Facts
from scg.analysis.modes import vectorised
from scg.analysis.trace import Trace
from scg.laws import Law
from scg.nodes.ir import IR
from scg.nodes.plates import Index, insertion, positions, trimmed
from scg.nodes.records import STRUCTURAL, Constant, Det, Function, Param, Record
from scg.surrogate.controls import Controlled
from scg.surrogate.lowering.emitter import Emitter
from scg.surrogate.ops import expand_lead, on_copied_buffers
from scg.surrogate.policy import Choice

REPLICATES = "#samples"
POINTS = "#points"
NOISE = "#noise"

Labels = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Plan:
    """What every part of lowering reads.

    ``axes`` are the added dimensions in their one order, ``modes`` how each function takes them,
    ``varying`` the nodes that may carry one, ``useful`` those that lead to a cost. ``controls`` has what
    is known of the controls of nodes that have some, ``relaxing`` names those whose estimators evaluate
    costs at relaxed values; ``learnable`` names the samples whose parameters may
    need a gradient; ``constants`` has the numbers that the program holds, by name, those of programs
    emitted before included.
    """

    ir: IR
    facts: Facts
    choices: Mapping[str, Choice]
    samples: int | None
    axes: Labels
    modes: Mapping[str, str]
    varying: frozenset[str]
    useful: frozenset[str]
    controls: Mapping[str, Controlled]
    relaxing: frozenset[str]
    learnable: frozenset[str]
    constants: dict[str, Tensor] = field(default_factory=dict)

    def constant(self, name: str, value: Tensor) -> str:
        """Return the name under which the program holds a number; equal numbers of one name are shared."""
        key = (name, value.dtype, value.item())  # of one element: what is larger is a node
        if key not in self._numbers:
            self._numbers[key] = f"{name}_{len(self.constants) + 1}"
            self.constants[self._numbers[key]] = value
        return self._numbers[key]

    @cached_property
    def _numbers(self) -> dict[tuple[str, torch.dtype, float], str]:
        return {(n.rpartition("_")[0], v.dtype, v.item()): n for n, v in self.constants.items()}

    def ordered(self, axes: Iterable[str]) -> Labels:
        """Return added axes in their one order, each once."""
        several = frozenset(axes)
        return tuple(axis for axis in self.axes if axis in several) if several else ()


class World:
    """Values by node name in one function; what it lacks is looked up in ``outer``.

    A world whose emitter is another than that of ``outer`` is a function of its own: ``captured``
    pairs each value that it reads outside with the argument that stands for it. A world with a
    ``temperature`` draws discrete nodes relaxed; ``trace`` has example values of its nodes, and ``modes``
    how their functions take added dimensions.
    """

    def __init__(
        self,
        plan: Plan,
        emitter: Emitter,
        outer: World | None = None,
        suffix: str = "",
        trace: Trace | None = None,
        modes: Mapping[str, str] | None = None,
    ) -> None:
        """Start without values; ``suffix`` ends the names of this world's lines."""
        self.plan = plan
        self.emitter = emitter
        self.outer = outer
        self.suffix = suffix
        self.trace = plan.facts.trace if trace is None else trace
        self.modes = plan.modes if modes is None else modes
        self.temperature: fx.Node | None = None
        self.values: dict[str, fx.Node] = {}
        self.axes: dict[str, Labels] = {}
        self.parameters: dict[tuple[str, Labels], dict[str, fx.Node]] = {}
        self.log_probs: dict[str, fx.Node] = {}
        self.draws: dict[str, tuple[str, Law]] = {}
        self.captured: dict[fx.Node, fx.Node] = {}

    def value(self, name: str) -> fx.Node:
        """Return the value of a node, or of the noise argument."""
        if name in self.values:
            return self.values[name]
        assert self.outer is not None, name
        return self.capture(self.outer.value(name))

    def axes_of(self, name: str) -> Labels:
        """Return the added axes that the value of a node carries."""
        if name in self.values or self.outer is None:
            return self.axes.get(name, ())
        return self.outer.axes_of(name)

    def home(self, names: Iterable[str]) -> World:
        """Return the innermost world that has a value of its own for any of several nodes."""
        world = self
        while world.outer is not None and world.values.keys().isdisjoint(names):
            world = world.outer
        return world

    def lead(self, name: str) -> Labels:
        """Return the leading dimensions of a node's value: added axes, then plates."""
        return self.axes_of(name) + self.plan.ir.layout[name]

    def union(self, names: Iterable[str]) -> Labels:
        """Return the added axes that any of several nodes carries."""
        found = {self.axes_of(name) for name in names}
        return (
            next(iter(found))
            if len(found) == 1
            else self.plan.ordered(axis for axes in found for axis in axes)
        )

    def capture(self, value: fx.Node) -> fx.Node:
        """Return what stands here for a value of the outer world."""
        if value.graph is self.emitter.graph:
            return value
        if value not in self.captured:
            self.captured[value] = self.emitter.argument(value.name)
        return self.captured[value]

    def held(self, target: str) -> fx.Node:
        """Return a tensor or module that the program holds, read once."""
        key = f"#held_{target}"
        if key not in self.values:
            outer = self.outer
            self.values[key] = (
                self.emitter.held(target) if outer is None else self.capture(outer.held(target))
            )
        return self.values[key]

    def size(self, plate: str) -> fx.Node | int:
        """Return the size of a plate, read from a leaf that has it where it is not declared."""
        ir, key = self.plan.ir, f"#size_{plate}"
        declared = ir.plates[plate].size
        if declared is not None:
            return declared
        if key not in self.values:
            leaf = next(name for name in (*ir.inputs, *ir.params) if plate in ir.layout[name])
            position = ir.layout[leaf].index(plate)
            self.values[key] = self.emitter.method("size", self.value(leaf), position, name=plate)
        return self.values[key]

    def aligned(self, value: fx.Node, have: Labels, want: Labels) -> fx.Node:
        """Give leading dimensions ``have`` size-1 dimensions for the rest of ``want``."""
        return self.emitter.index(value, insertion(have, want))

    def called(self, name: str) -> str:
        """Return the name of a line of this world."""
        return f"{name}{self.suffix}"

    def leaf(self, record: Record) -> None:
        """Append the line of a parameter or constant."""
        assert isinstance(record, (Param, Constant))
        self.values[record.name] = self.held(record.name)

    def deterministic(self, record: Det) -> None:
        """Append the lines of a deterministic node, with whatever axes its parents carry."""
        name, ir = record.name, self.plan.ir
        axes = self.union(record.arguments.names)
        value = self.apply(record, record.fn, axes, name)
        inherited = frozenset().union(*(ir.layout[parent] for parent in record.parents))
        if not inherited.issuperset(ir.layout[name]):
            sizes = [None if plate in inherited else self.size(plate) for plate in ir.layout[name]]
            expand = self.emitter.shown("expand", None, expand_lead)
            value = self.emitter.call(expand, value, [*[None] * len(axes), *sizes], name=self.called(name))
        self.values[name], self.axes[name] = value, axes

    def apply(self, record: Record, function: Function, axes: Labels, line: str) -> fx.Node:
        """Append the call of a node's function and return what it gives, with leading ``axes``."""
        transform, name = transform_of(record), self.called(line)
        if isinstance(record, Det) and record.fn.call in STRUCTURAL:
            args, _ = record.arguments.substitute(self.value)
            return args[0] if len(args) == 1 else self.emitter.call(operator.getitem, *args, name=name)
        if not axes or is_elementwise(record):
            args, kwargs = record.arguments.substitute(lambda parent: self._argument(record, parent, axes))
            return self._invoke(function, transform, record.name, name, args, kwargs)
        carried = {parent: self.axes_of(parent) for parent in record.arguments.names}
        mode = self.modes[record.name]
        call = vectorised(self.plan.ir, record, axes, carried, self.plan.varying, mode)
        if call.is_plain:
            args, kwargs = record.arguments.substitute(self.value)
            return self._invoke(function, transform, record.name, name, args, kwargs)

        def several(fn: Callable[..., Any]) -> Callable[..., Any]:
            one = fn if transform is None else transform(fn)
            return lambda *values: call(one, *values)

        values = tuple(self.value(parent) for parent in record.arguments.names)
        return self._invoke(function, several, f"{mode}_{record.name}", name, values, {})

    def _invoke(
        self,
        function: Function,
        transform: Callable[[Callable[..., Any]], Callable[..., Any]] | None,
        label: str,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> fx.Node:
        emitter = self.emitter
        if function.owner is None:
            assert function.call is not None
            if transform is None and isinstance(function.call, types.MethodDescriptorType):
                return emitter.method(function.call.__name__, *args, name=name, **kwargs)
            if transform is None and is_library(function.call):
                return emitter.call(function.call, *args, name=name, **kwargs)
            fn = function.call if transform is None else transform(function.call)
            return emitter.call(emitter.shown(label, name, fn), *args, name=name, **kwargs)
        has_buffers = any(True for _ in self.plan.ir.store.modules[function.owner].buffers())
        copies = self.outer is not None and has_buffers
        if transform is None and self.is_program and not copies:
            return emitter.module(function.owner, args, kwargs, name)

        def applied(module: Any, *args: Any, **kwargs: Any) -> Any:
            call = partial(on_copied_buffers, module) if copies else module
            return (call if transform is None else transform(call))(*args, **kwargs)

        module = self.held(function.owner)
        return emitter.call(emitter.shown(label, name, applied), module, *args, name=name, **kwargs)

    @property
    def root(self) -> World:
        """The world of the program itself."""
        world = self
        while world.outer is not None:
            world = world.outer
        return world

    @property
    def is_program(self) -> bool:
        """Whether this world's lines are part of the program itself, which holds the modules."""
        return self.outer is None or (self.outer.emitter is self.emitter and self.outer.is_program)

    def _argument(self, record: Record, parent: str, axes: Labels) -> fx.Node:
        """Return a parent's value with size-1 dimensions for the plates and axes that it lacks."""
        ir, values = self.plan.ir, self.trace.values
        have, want, carried = ir.layout[parent], ir.layout[record.name], self.axes_of(parent)
        plates: Index = ()
        if have and not set(want) <= set(have):
            plates = positions(have, tuple(p for p in ir.plates if p in have or p in want))
        if not carried:
            return self.emitter.index(self.value(parent), trimmed(plates))
        rank = values[parent].dim() + plates.count(None)
        pad = max(values[record.name].dim() - rank, 0)
        index = (*positions(carried, axes), *(None,) * pad, *plates)
        return self.emitter.index(self.value(parent), trimmed(index))


def is_library(fn: Callable[..., Any]) -> bool:
    """Say whether a callable is one of torch or Python that emitted code can name."""
    if isinstance(fn, (types.MethodDescriptorType, types.WrapperDescriptorType)):
        return getattr(torch.Tensor, fn.__name__, None) is fn
    module = getattr(fn, "__module__", None) or ""
    return isinstance(fn, (types.BuiltinFunctionType, types.FunctionType)) and (
        module in ("_operator", "builtins", "torch") or module.startswith("torch.")
    )
