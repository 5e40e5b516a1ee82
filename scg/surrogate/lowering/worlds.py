"""Worlds: the values of the graph's nodes in one emitted evaluation, and the axes that they carry."""

from __future__ import annotations

import operator
import types
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, fx, nn

from scg.evaluation.calls import is_elementwise, transform_of
from scg.evaluation.repeated import vectorised
from scg.evaluation.trace import Trace
from scg.laws import Law
from scg.nodes.plates import Index, insertion, positions, trimmed
from scg.nodes.records import STRUCTURAL, Constant, Det, Function, Param, Record, Sample, attribute
from scg.surrogate.lowering.emitter import Emitter, is_library
from scg.surrogate.lowering.guards import guarded
from scg.surrogate.lowering.plan import Labels, Plan
from scg.surrogate.runtime.ops import beside, expand_lead, rows, size_within


class World:
    """Values by node name in one function; what it lacks is looked up in ``outer``.

    A world whose emitter is another than that of ``outer`` is a function of its own: ``captured`` pairs each
    value that it reads outside with the argument that stands for it, and ``leads`` has the leading dimensions
    of those that have some. Besides nodes, ``values`` has what is
    read once, under keys such as "#held:name" that no node and no other kind of key can have. A world with a
    ``temperature`` draws discrete nodes relaxed, and one that ``redraws`` draws from noise that is there for
    the view of this key alone; ``trace`` has example values of its nodes, and ``modes`` how their functions
    take added dimensions.
    """

    def __init__(
        self,
        plan: Plan,
        emitter: Emitter,
        outer: World | None = None,
        suffix: str = "",
        stream: str = "",
        trace: Trace | None = None,
        modes: Mapping[str, str] | None = None,
    ) -> None:
        """Start without values; ``suffix`` ends the names of this world's lines.

        ``stream`` is what sets apart its draws from those that other worlds make of the same nodes.
        """
        self.plan = plan
        self.emitter = emitter
        self.outer = outer
        self.suffix = suffix
        self.stream = stream
        self.trace = plan.facts.trace if trace is None else trace
        self.modes = plan.modes if modes is None else modes
        self.temperature: fx.Node | None = None
        self.redraws: str | None = None
        self.values: dict[str, fx.Node] = {}
        self.axes: dict[str, Labels] = {}
        self.repeating: dict[str, frozenset[str]] = {}
        self.parameters: dict[tuple[str, Labels], dict[str, fx.Node]] = {}
        self.log_probs: dict[str, fx.Node] = {}
        self.draws: dict[str, tuple[str, Law]] = {}
        self.captured: dict[fx.Node, fx.Node] = {}
        self.leads: dict[fx.Node, Labels] = {}

    def value(self, name: str) -> fx.Node:
        """Return the value of a node in full, or of the noise argument."""
        if name not in self.values:
            assert self.outer is not None, name
            return self.capture(self.outer.value(name), self._outer_lead(name))
        plates, key = self.repeating.get(name), f"#full:{name}"
        if not plates:
            return self.values[name]
        if key not in self.values:
            sizes = [self.size(label) if label in plates else None for label in self.lead(name)]
            self.values[key] = self._expanded(self.values[name], sizes, name)
        return self.values[key]

    def lean(self, name: str) -> fx.Node:
        """Return the value of a node as it is held: 1 long in the plates along which it repeats."""
        if name in self.values:
            return self.values[name]
        assert self.outer is not None, name
        return self.capture(self.outer.lean(name), self._outer_lead(name))

    def repeats(self, name: str) -> frozenset[str]:
        """Return the plates along which the value of a node repeats, and is held 1 long."""
        if name in self.values or self.outer is None:
            return self.repeating.get(name, frozenset())
        return self.outer.repeats(name)

    def all_repeat(self, names: Iterable[str]) -> frozenset[str]:
        """Return the plates along which every one of several nodes that has them repeats."""
        several = tuple(names)
        found: frozenset[str] = frozenset().union(*map(self.repeats, several))
        if not found:
            return found
        return found.difference(*(set(self.plan.ir.layout[name]) - self.repeats(name) for name in several))

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

    def _outer_lead(self, name: str) -> Labels:
        return self.outer.lead(name) if self.outer is not None and name in self.plan.ir else ()

    def capture(self, value: fx.Node, lead: Labels = ()) -> fx.Node:
        """Return what stands here for a value of the outer world, with the leading dimensions that it has."""
        if value.graph is self.emitter.graph:
            return value
        if value not in self.captured:
            self.captured[value], self.leads[value] = self.emitter.argument(value.name), lead
        return self.captured[value]

    def held(self, target: str) -> fx.Node:
        """Return a tensor or module that the program holds, read once."""
        key = f"#held:{target}"
        if key not in self.values:
            outer = self.outer
            ir = self.plan.ir  # the name of a sample is that of its value
            ending = "_module" if target in ir and isinstance(ir[target], Sample) else ""
            self.values[key] = (
                self.emitter.held(target, ending) if outer is None else self.capture(outer.held(target))
            )
        return self.values[key]

    def size(self, plate: str) -> fx.Node | int:
        """Return the size of a plate, read from a leaf that has it where it is not declared."""
        ir, key = self.plan.ir, f"#size:{plate}"
        declared = ir.plates[plate].size
        if key not in self.values:
            if declared is not None:
                return declared
            leaf = next(name for name in (*ir.inputs, *ir.params) if plate in ir.layout[name])
            position, value = ir.layout[leaf].index(plate), self.value(leaf)
            if isinstance(self.trace.values[leaf], Tensor):
                self.values[key] = self.emitter.method("size", value, position, name=plate)
            else:
                size = self.emitter.shown("size", None, size_within)
                self.values[key] = self.emitter.call(size, value, position, name=plate)
        return self.values[key]

    def aligned(self, value: fx.Node, have: Labels, want: Labels) -> fx.Node:
        """Give leading dimensions ``have`` size-1 dimensions for the rest of ``want``."""
        assert set(have) <= set(want), (have, want)
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
        axes, (read, repeated) = self.union(record.arguments.names), self._read(record)
        value = self.apply(record, record.fn, axes, name, read)
        inherited = frozenset().union(*(ir.layout[parent] for parent in record.parents))
        if not inherited.issuperset(ir.layout[name]):
            sizes = [None if plate in inherited else self.size(plate) for plate in ir.layout[name]]
            value = self._expanded(value, [*[None] * len(axes), *sizes], name)
        self.values[name], self.axes[name], self.repeating[name] = value, axes, repeated

    def _expanded(self, value: fx.Node, sizes: list[fx.Node | int | None], name: str) -> fx.Node:
        """Give leading dimensions the sizes that are not None."""
        expand = self.emitter.shown("expand", None, expand_lead)
        return self.emitter.call(expand, value, sizes, name=self.called(name))

    def _read(self, record: Det) -> tuple[Callable[[str], fx.Node], frozenset[str]]:
        """Return how a node reads its parents, and the plates along which it then repeats as they do.

        A function sees values 1 long in a plate only where that says all, and it tells no elements apart.
        """
        plan, name, names = self.plan, record.name, record.arguments.names
        several: frozenset[str] = frozenset().union(*map(self.repeats, names))
        if not several or not several.issubset(plan.ir.layout[name]):
            return self.value, frozenset()
        common = self.all_repeat(names)
        if is_elementwise(record):
            return self.lean, common
        if common != several or not self.is_program:
            return self.value, frozenset()
        if not plan.facts.repeats(name, common, plan.varying, self.modes[name]):
            return self.value, frozenset()
        return self.lean, common

    def apply(
        self,
        record: Record,
        function: Function,
        axes: Labels,
        line: str,
        read: Callable[[str], fx.Node],
    ) -> fx.Node:
        """Append the call of a node's function and return what it gives, with leading ``axes``.

        ``read`` returns the values of its parents.
        """
        transform, name = self._transform(record), self.called(line)
        if isinstance(record, Det) and record.fn.call in STRUCTURAL:
            args, _ = record.arguments.substitute(read)
            return args[0] if len(args) == 1 else self.emitter.call(operator.getitem, *args, name=name)
        if not axes or is_elementwise(record):
            args, kwargs = record.arguments.substitute(
                lambda parent: self._argument(record, parent, read(parent), axes)
            )
            return self._invoke(record, function, transform, record.name, name, args, kwargs)
        carried = {parent: self.axes_of(parent) for parent in record.arguments.names}
        mode = self.modes[record.name]
        call = vectorised(self.plan.ir, record, axes, carried, self.plan.varying, mode)
        if call.is_plain:
            args, kwargs = record.arguments.substitute(read)
            return self._invoke(record, function, transform, record.name, name, args, kwargs)

        def several(fn: Callable[..., Any]) -> Callable[..., Any]:
            one = fn if transform is None else transform(fn)
            return lambda *values: call(one, *values)

        values = tuple(map(read, record.arguments.names))
        return self._invoke(record, function, several, f"{mode}_{record.name}", name, values, {})

    def _transform(self, record: Record) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:
        """Return what makes a function one of tensors, or None where it is one; factories are guarded."""
        if isinstance(record, Det):
            return transform_of(record)
        return guarded(record, self.plan.facts.trace.densities[record.name].law)

    def _invoke(
        self,
        record: Record,
        function: Function,
        transform: Callable[[Callable[..., Any]], Callable[..., Any]] | None,
        label: str,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> fx.Node:
        emitter = self.emitter
        args = tuple(map(emitter.argument_of, args))
        kwargs = {key: emitter.argument_of(value) for key, value in kwargs.items()}
        if function.owner is None:
            assert function.call is not None
            if transform is None and function.call is attribute:
                return emitter.call(getattr, *args, name=name)
            if transform is None and isinstance(function.call, types.MethodDescriptorType):
                return emitter.method(function.call.__name__, *args, name=name, **kwargs)
            if transform is None and is_library(function.call):
                is_lookup = (
                    function.call is operator.getitem and isinstance(args[1], fx.Node) and self.is_shared
                )
                known = emitter.shown("rows", None, rows) if is_lookup else function.call
                call = partial(emitter.call, known, *args, name=name, **kwargs)
                if self.is_shared and (is_lookup or is_elementwise(record)):
                    return emitter.once("call", (known, repr((args, kwargs))), call)
                return call()
            fn: Callable[..., Any] = function.call
            running = [module for module in self._captured_by(record) if any(True for _ in module.buffers())]
            if running and self.outer is not None:
                fn = partial(beside, running, fn)
            fn = self.plan.watch.function(record, fn)
            fn = fn if transform is None else transform(fn)
            return emitter.call(emitter.shown(label, name, fn), *args, name=name, **kwargs)
        has_buffers = any(True for _ in self.plan.ir.store.modules[function.owner].buffers())
        copies = self.outer is not None and has_buffers
        if transform is None and self.is_program and not copies:
            return emitter.module(function.owner, args, kwargs, name)

        def applied(module: Any, *args: Any, **kwargs: Any) -> Any:
            call = self.plan.watch.copied(module) if copies else module
            return (call if transform is None else transform(call))(*args, **kwargs)

        module = self.held(function.owner)
        return emitter.call(emitter.shown(label, name, applied), module, *args, name=name, **kwargs)

    def _captured_by(self, record: Record) -> list[nn.Module]:
        """Return the modules that the functions of a node capture."""
        store = self.plan.ir.store
        return [store.modules[key] for key in store.reached.get(record.name, ()) if key in store.modules]

    @property
    def is_shared(self) -> bool:
        """Whether equal lines are written once: in the branches, where nodes of a chain are often alike."""
        return self.outer is not None and self.is_program

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

    def _argument(self, record: Record, parent: str, value: fx.Node, axes: Labels) -> fx.Node:
        """Return the value of a parent with size-1 dimensions for the plates and axes that it lacks."""
        ir, values = self.plan.ir, self.trace.values
        have, want, carried = ir.layout[parent], ir.layout[record.name], self.axes_of(parent)
        plates: Index = ()
        if have and not set(want) <= set(have):
            plates = positions(have, tuple(p for p in ir.plates if p in have or p in want))
        if not carried:
            nested = not isinstance(values[parent], Tensor)
            return self.emitter.index(value, trimmed(plates), nested=nested)
        rank = values[parent].dim() + plates.count(None)
        pad = max(values[record.name].dim() - rank, 0)
        index = (*positions(carried, axes), *(None,) * pad, *plates)
        return self.emitter.index(value, trimmed(index))
