"""Running simulators: once, without gradients, on values of what they read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from scg.errors import GraphError, ScgError
from scg.evaluation.densities import make_density
from scg.evaluation.elsewhere import filled_value, of_existing, present
from scg.evaluation.invoke import callable_of
from scg.evaluation.probing import spread, undisturbed
from scg.evaluation.trace import Trace, valued
from scg.laws import sum_event
from scg.nodes import trees
from scg.nodes.arguments import Arguments
from scg.nodes.ir import IR
from scg.nodes.played import filling, played
from scg.nodes.records import Function, Sample
from scg.noise import start_generators, substream


def filled_in(ir: IR, inputs: Mapping[str, Any], name: str, found: Any) -> dict[str, Tensor]:
    """Return the inputs that a record of a rollout fills in."""
    simulation = ir.simulations[name]
    return filling(name, simulation.inputs, played(name, found, ir.layout[name]))


def simulate(ir: IR, inputs: Mapping[str, Any], name: str, seed: int | None = None) -> Any:
    """Return what the simulator of a rollout records in a run on these inputs."""
    simulation = ir.simulations[name]
    return run(ir, inputs, name, simulation.simulate, simulation.policy, simulation.arguments, seed)


def run(
    ir: IR,
    inputs: Mapping[str, Any],
    name: str,
    simulator: Callable[..., Any],
    policy: Function,
    arguments: Arguments,
    seed: int | None = None,
) -> Any:
    """Call a simulator for a rollout; with a seed, what it draws from torch is a function of that."""
    values = settled(ir, inputs, arguments.names)
    args, _ = arguments.substitute(values.__getitem__)
    options = {} if seed is None or not _takes_seed(simulator) else {"seed": seed}
    with torch.no_grad(), nullcontext() if seed is None else torch.random.fork_rng():
        if seed is not None:
            start_generators(substream(seed, name))
        try:
            return simulator(callable_of(ir, policy), *args, **options)
        except ScgError:
            raise
        except Exception as error:
            raise GraphError(
                f"rollout '{name}': its simulator raised {type(error).__name__}: {error}"
            ) from error


def rescored(ir: IR, inputs: Mapping[str, Any], name: str) -> Tensor:
    """Return log p(value) of a value drawn elsewhere by the law of its node now, for elements that exist.

    Generators and buffers of modules are left as they were.
    """
    record = ir[name]
    assert isinstance(record, Sample) and record.value is not None
    trace = Trace(settled(ir, inputs, record.parents))
    with undisturbed(ir.store.modules):
        density = make_density(ir, trace.values, record, record.dist)
        density = of_existing(ir, trace.values, record, density)
        value = trace.values[record.value]
        if record.exists is not None:
            value = filled_value(value, present(ir, trace.values, record, record.exists))
        log = density.law.log_prob(dict(density.parameters), value)
    return sum_event(log, len(ir.layout[name]))


def settled(ir: IR, inputs: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the values of nodes that nothing stochastic is above, detached; nothing is left behind."""
    if not names:
        return {}
    wanted = set(names)
    for record in reversed(list(ir.records())):
        if record.name in wanted:
            wanted.update(record.parents)
    trace = Trace(sizes=_sizes(ir, inputs, wanted))
    with undisturbed(ir.store.modules):
        for record in ir.records():
            if record.name in wanted:
                trace.values[record.name] = valued(ir, trace, record, inputs, spread)
    return {name: trees.tree_map_only(Tensor, Tensor.detach, trace.values[name]) for name in names}


def _sizes(ir: IR, inputs: Mapping[str, Any], names: set[str]) -> dict[str, int]:
    """Return the sizes of the plates that some nodes have; those of the record are not known yet."""
    sizes = {name: plate.size for name, plate in ir.plates.items() if plate.size is not None}
    leaves = {name: inputs[name] if name in inputs else ir.store.tensors.get(name) for name in names}
    for name, value in leaves.items():
        for leaf in trees.tensors(value):
            sizes.update(zip(ir.layout[name], leaf.shape, strict=False))
    return sizes


def _takes_seed(simulator: Callable[..., Any]) -> bool:
    """Say whether a simulator has an argument ``seed``."""
    try:
        return "seed" in inspect.signature(simulator).parameters
    except (TypeError, ValueError):
        return False
