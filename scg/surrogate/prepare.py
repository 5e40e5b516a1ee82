"""Preparing: one pass of the whole pipeline on example inputs, from facts to an emitted program."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from scg.analysis.facts import Facts, checked, gather
from scg.analysis.sizes import plate_sizes
from scg.nodes.ir import IR
from scg.noise import NoiseLayout, NoiseSpec, noise_layout
from scg.surrogate.controls import Controlled, controlled
from scg.surrogate.describe import node_facts
from scg.surrogate.lowering.lower import Lowered, lower
from scg.surrogate.ops import fresh_key, unwrapped
from scg.surrogate.policy import Choice, Policy, check_branches, choose


@dataclass(eq=False)
class Emitted:
    """A lowered graph with the function that runs it on what a program holds."""

    lowered: Lowered
    module: fx.GraphModule
    run: Callable[..., dict[str, Any]]
    filename: str
    has_run: bool = False
    compiled: Callable[..., dict[str, Any]] | None = None


@dataclass(eq=False)
class Prepared:
    """Everything that one kind of input determines: facts, choices, and programs emitted on demand.

    ``opaque`` says of nodes what differentiates by itself where control variates need two derivatives.
    """

    ir: IR
    facts: Facts
    choices: Mapping[str, Choice]
    samples: int | None
    keep: tuple[str, ...]
    controls: Mapping[str, Controlled]
    relaxing: frozenset[str]
    inputs: Mapping[str, Tensor]
    noise: Mapping[str, NoiseSpec]
    opaque: Mapping[str, str]
    emitted: dict[bool, Emitted] = field(default_factory=dict)
    _layouts: dict[tuple[Any, ...], tuple[NoiseLayout, ...]] = field(default_factory=dict)

    def surrogate(self, program: nn.Module) -> Emitted:
        """Return the program with gradients."""
        return self._emit(program, gradients=True)

    def values(self, program: nn.Module) -> Emitted:
        """Return the program that only samples."""
        return self._emit(program, gradients=False)

    @property
    def modes(self) -> Mapping[str, str]:
        """How each function takes added dimensions, as far as programs were emitted."""
        return {
            name: mode for emitted in self.emitted.values() for name, mode in emitted.lowered.modes.items()
        }

    @property
    def device(self) -> torch.device | None:
        """Where noise is drawn: where the parameters and inputs are."""
        held = [*self.ir.store.tensors.values(), *self.inputs.values()]
        return held[0].device if held else None

    def noise_shapes(self, inputs: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
        """Return the shape of the noise of each node, for a run on these inputs."""
        layouts = self.layouts(inputs, fresh=True)
        shapes = {n: spec.shape for layout in layouts for spec, names in layout.groups for n in names}
        sizes = plate_sizes(self.ir, inputs)
        lead = () if self.samples is None else (self.samples,)
        for name in self.ir.samples:
            if name not in shapes:
                event = self.facts.trace.event_shape(self.ir, name)
                shapes[name] = (*lead, *(sizes[plate] for plate in self.ir.layout[name]), *event)
        return shapes

    def layouts(self, inputs: Mapping[str, Tensor], *, fresh: bool) -> tuple[NoiseLayout, ...]:
        """Return the base noise that a run on these inputs needs, and what estimators need for themselves."""
        if torch.compiler.is_compiling():  # where sizes may be symbols, which are not to be hashed
            return self._laid_out(inputs, fresh=fresh)
        key = (fresh, *(value.shape for value in inputs.values()))
        if key not in self._layouts:
            self._layouts[key] = self._laid_out(inputs, fresh=fresh)
        return self._layouts[key]

    def _laid_out(self, inputs: Mapping[str, Tensor], *, fresh: bool) -> tuple[NoiseLayout, ...]:
        sizes = plate_sizes(self.ir, inputs)
        lead = () if self.samples is None else (self.samples,)

        def placed(name: str, spec: NoiseSpec) -> NoiseSpec:
            plates = self.ir.layout[spec.name]
            shape = (*lead, *(sizes[plate] for plate in plates), *spec.shape)
            alike = (spec.kind, str(spec.dtype), plates, spec.shape)
            return NoiseSpec(name, spec.kind, shape, spec.dtype, alike)

        shared = noise_layout([placed(name, spec) for name, spec in self.noise.items()])
        if not fresh:
            return (shared,)
        own = [
            placed(fresh_key(name, index), self.noise[name])
            for name, choice in self.choices.items()
            for index in range(choice.estimator.noises)
        ]
        return shared, noise_layout(own)

    def _emit(self, program: nn.Module, *, gradients: bool) -> Emitted:
        if gradients not in self.emitted:
            constants = program.get_submodule("constants")
            lowered = lower(
                self.facts,
                self.choices,
                samples=self.samples,
                keep=self.keep,
                controls=self.controls,
                relaxing=self.relaxing,
                constants=dict(constants.named_buffers()),
                gradients=gradients,
            )
            for name, tensor in lowered.constants.items():
                if not hasattr(constants, name):
                    constants.register_buffer(name, tensor, persistent=False)
            module = fx.GraphModule(program, lowered.graph)
            run = type(module).forward
            run.__globals__.update(unwrapped(run.__globals__))
            self.emitted[gradients] = Emitted(lowered, module, run, run.__code__.co_filename)
        return self.emitted[gradients]


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep Python's cycle collector from scanning, again and again, what the pipeline makes and keeps.

    Its scans grow with the graph and would make the time of the pipeline grow faster than the graph.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def prepare(
    ir: IR,
    inputs: Mapping[str, Tensor],
    policy: Policy,
    *,
    samples: int | None,
    keep: tuple[str, ...],
    allow_biased: bool,
    controls: nn.ModuleDict,
) -> Prepared:
    """Run the pipeline: gather and check facts, choose estimators, make their controls; emit later."""
    facts = checked(gather(ir, inputs))
    choices = choose(ir, policy, lambda name: node_facts(facts, name, samples), allow_biased=allow_biased)
    check_branches(facts, choices)
    known = controlled(facts, choices, samples, controls)
    relaxing = frozenset(
        name for name, choice in choices.items() if choice.estimator.relaxes(node_facts(facts, name, samples))
    )
    opaque = _opaque(facts, known, relaxing)
    return Prepared(ir, facts, choices, samples, keep, known, relaxing, dict(inputs), facts.noise, opaque)


def _opaque(facts: Facts, controls: Mapping[str, Controlled], relaxing: frozenset[str]) -> dict[str, str]:
    """Return what calls an ``autograd.Function`` where control variates need two derivatives, by node."""
    networks = {name: "its network" for name, known in controls.items() if known.is_opaque}
    functions = {
        other: f"its function, which the control variate of '{name}' evaluates,"
        for name in sorted(relaxing)
        for other in facts.relaxation(name).opaque
    }
    return {**networks, **functions}
