"""Preparing: one pass of the whole pipeline on example inputs, from facts to an emitted program."""

from __future__ import annotations

import gc
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from scg.analysis.facts import Facts, checked, gather, warn
from scg.choosing.apart import apart
from scg.choosing.automatic import AUTO
from scg.choosing.choice import Choice, views
from scg.choosing.controls import Controlled, controlled
from scg.choosing.coupled import Scheme, check_coupled, schemes
from scg.choosing.describe import drawn_below
from scg.choosing.divided import divided
from scg.choosing.expense import expenses
from scg.choosing.limits import check_branches
from scg.choosing.policy import Policy, choose, match
from scg.coupling import Coupling, coupling
from scg.errors import EstimatorError, EvaluationWarning, GraphError
from scg.nodes.ir import IR
from scg.nodes.trees import needs_gradient, tensors
from scg.noise import NoiseSpec
from scg.program.resizing import check_sizes, disagreeing
from scg.surrogate.lowering.lower import Lowered, lower
from scg.surrogate.runtime.ops import unwrapped
from scg.surrogate.runtime.randomness import Randomness, block_key, redrawn_key


@dataclass(eq=False)
class Emitted:
    """A lowered graph with the function that runs it on what a program holds."""

    lowered: Lowered
    module: fx.GraphModule
    run: Callable[..., dict[str, Any]]
    filename: str
    compiled: Callable[..., dict[str, Any]] | None = None
    code: str | None = None


@dataclass(eq=False)
class Prepared:
    """Everything that one kind of input determines: facts, choices, and programs emitted on demand.

    ``policy`` is what was asked for, with the parts of nodes that were divided; ``ir`` is the graph in which
    these pass their value on without its gradient to some costs.
    ``opaque`` says of nodes what differentiates by itself where control variates need two derivatives.
    ``looped`` names those whose functions turned out to take added axes only one by one.
    ``has_run`` tells whether values were once seen to be finite. ``expenses`` are warnings of estimators
    that evaluate very often, by the node.
    """

    ir: IR
    facts: Facts
    choices: Mapping[str, Choice]
    samples: int | None
    keep: tuple[str, ...]
    controls: Mapping[str, Controlled]
    inputs: Mapping[str, Tensor]
    randomness: Randomness
    opaque: Mapping[str, str]
    emitted: dict[bool, Emitted] = field(default_factory=dict)
    watched: frozenset[str] = frozenset()
    guarded: set[str] = field(default_factory=set)
    looped: frozenset[str] = frozenset()
    has_run: bool = False
    order: int = 1
    expenses: Mapping[str, str] = field(default_factory=dict)
    policy: Policy = AUTO

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was warned of when compiling."""
        return (*self.facts.warnings, *self.expenses.values())

    def guard(self, inputs: Mapping[str, Tensor]) -> None:
        """Judge what functions hide from watched inputs that require a gradient, which no example did."""
        for name in self.watched:
            if name not in self.guarded and needs_gradient(inputs[name]):
                if torch.compiler.is_compiling():
                    raise GraphError(
                        f"input '{name}' requires a gradient for the first time in torch.compile: run the "
                        "program once before it is compiled, on inputs that do"
                    )
                found = self.facts.hidden_from([name])
                if found.faults:
                    raise GraphError("\n".join(found.faults))
                warn(found.warnings, self.facts.hidden.warnings)
                self.guarded.add(name)

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

    def fit(self, ir: IR, inputs: Mapping[str, Tensor]) -> None:
        """Hold what was found out on the example against plates of other sizes; emit anew if need be."""
        if _shapes(inputs) == _shapes(self.facts.inputs):
            return
        check_sizes(ir, self.facts, inputs)
        modes = {pair for emitted in self.emitted.values() for pair in emitted.lowered.used_modes}
        found = disagreeing(ir, inputs, modes, self.facts.influence.stochastic) - self.looped
        if found:
            self.looped |= found
            self.emitted.clear()

    def _emit(self, program: nn.Module, *, gradients: bool) -> Emitted:
        if gradients not in self.emitted:
            constants = program.get_submodule("constants")
            lowered = lower(
                self.facts,
                self.choices,
                samples=self.samples,
                keep=self.keep,
                controls=self.controls,
                constants=dict(constants.named_buffers()),
                looped=self.looped,
                gradients=gradients,
                order=self.order,
            )
            for name, tensor in lowered.constants.items():
                if not hasattr(constants, name):
                    constants.register_buffer(name, tensor, persistent=False)
            module = fx.GraphModule(program, lowered.graph)
            run = type(module).forward
            run.__globals__.update(unwrapped(run.__globals__))
            self.emitted[gradients] = Emitted(lowered, module, run, run.__code__.co_filename)
        return self.emitted[gradients]


def _shapes(inputs: Mapping[str, Any]) -> dict[str, list[torch.Size]]:
    """Return the shapes of the tensors of every input."""
    return {name: [tensor.shape for tensor in tensors(value)] for name, value in inputs.items()}


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
    noise: Scheme = None,
    warned: Container[str] = (),
    order: int = 1,
) -> Prepared:
    """Run the pipeline: gather and check facts, choose estimators, make their controls; emit later.

    ``noise`` tells how noise is drawn across replicates, and ``order`` how often the loss can be
    differentiated. Warnings in ``warned`` are not repeated.
    """
    if samples is not None and ir.given:
        raise GraphError(
            f"samples={samples}: the value of '{ir.given[0]}' was drawn once, elsewhere. Draw several there, "
            "and declare a plate for them"
        )
    facts = checked(gather(ir, inputs), warned)
    coupled = schemes(ir, noise, samples)
    check_coupled(facts, coupled)
    choices = choose(facts, policy, samples, allow_biased=allow_biased, order=order, coupled=coupled)
    wanted = match(ir, policy)
    better = divided(facts, wanted, choices, samples) if order == 1 else {}
    if better:
        ir, policy, told = apart(ir, better), {**wanted, **better}, facts.warnings
        facts = checked(gather(ir, inputs), told)
        choices = choose(facts, policy, samples, allow_biased=allow_biased, coupled=coupled)
    check_branches(facts, choices)
    dear = expenses(facts, choices, samples)
    warn(dear.values(), warned, EvaluationWarning)
    known = controlled(facts, choices, samples, controls)
    opaque = _opaque(facts, known, choices)
    randomness = _randomness(facts, choices, samples, inputs)
    return Prepared(
        ir,
        facts,
        choices,
        samples,
        keep,
        known,
        dict(inputs),
        randomness,
        opaque,
        watched=facts.hidden.watched,
        order=order,
        expenses=dear,
        policy=policy,
    )


def _randomness(
    facts: Facts, choices: Mapping[str, Choice], samples: int | None, inputs: Mapping[str, Tensor]
) -> Randomness:
    """Return the noise of runs, drawn where the parameters and inputs are."""
    ir = facts.ir
    for name, choice in choices.items():
        if "base" in choice.asks.fresh and name not in facts.noise:
            raise EstimatorError(
                f"{choice.estimator.name} asks for fresh base noise of '{name}' ({ir[name].where}), and a "
                f"{facts.trace.densities[name].law.family} has no base noise: ask for the kind 'uniform' or "
                "'normal', or draw values of your own from site.distribution(site.parameters)"
            )
    return Randomness(
        ir,
        samples,
        {name: spec for name, spec in facts.noise.items() if name not in ir.given},
        {name: facts.trace.event_shape(ir, name) for name in ir.samples},
        {name: tuple(_spec(facts, name, kind) for kind in c.fresh) for name, c in choices.items()},
        next((held.device for held in (*ir.store.tensors.values(), *tensors(dict(inputs)))), None),
        frozenset(name for name, choice in choices.items() if choice.through is not None),
        _coupling(facts, choices, samples),
        {key: redrawn for name, choice in choices.items() for key, redrawn in _redrawn(facts, name, choice)},
        tuple(
            NoiseSpec(block_key(view.key), "uniform", (), torch.float32)
            for name, choice in choices.items()
            for view in views(facts, name, choice)
            if view.choice.asks.block is not None
        ),
    )


def _redrawn(facts: Facts, name: str, choice: Choice) -> Iterator[tuple[str, tuple[NoiseSpec, int]]]:
    """Yield the noise from which what is below a node is drawn anew, and how often."""
    for view in views(facts, name, choice):
        if view.choice.asks.redraws:
            for other in drawn_below(view.facts, name):
                if other in facts.noise:
                    yield redrawn_key(view.key, other), (facts.noise[other], view.choice.asks.redraws)


def _coupling(facts: Facts, choices: Mapping[str, Choice], samples: int | None) -> Coupling | None:
    """Return how noise is coupled across replicates, or None where all is independent."""
    coupled = {name: choice.coupled for name, choice in choices.items() if choice.coupled is not None}
    if samples is None or not coupled:
        return None
    return coupling(coupled, facts.noise, facts.ir.layout, samples)


def _spec(facts: Facts, name: str, kind: str) -> NoiseSpec:
    """Return what an estimator draws: noise as that of the node, or in the shape of its value."""
    if kind == "base":
        return facts.noise[name]
    return NoiseSpec(name, kind, facts.trace.event_shape(facts.ir, name), facts.trace.densities[name].dtype)


def _opaque(
    facts: Facts, controls: Mapping[str, Controlled], choices: Mapping[str, Choice]
) -> dict[str, str]:
    """Return what calls an ``autograd.Function`` where control variates need two derivatives, by node."""
    networks = {name: "its network" for name, known in controls.items() if known.is_opaque}
    functions = {
        other: f"its function, which the control variate of '{name}' evaluates,"
        for name, choice in choices.items()
        for view in views(facts, name, choice)
        if view.choice.asks.relaxed
        for other in view.facts.relaxation(name).opaque
    }
    return {**networks, **functions}
