"""Streams: the noise of many runs of a program, as many as are asked for at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import networkx as nx
import torch

from scg.evaluation.densities import Density
from scg.evaluation.probing import spread, undisturbed
from scg.evaluation.trace import evaluate
from scg.nodes.ir import IR
from scg.noise import NoiseSpec
from scg.program.prepare import Prepared
from scg.program.program import Program
from scg.verification.noises import Tilted, coupled, free, tilted

Specs = Mapping[str, NoiseSpec]


def stream(
    program: Program,
    prepared: Prepared,
    inputs: Mapping[str, Any],
    generator: torch.Generator,
    first: Callable[[Specs, int, torch.Generator], Tilted] = tilted,
) -> Callable[[int], Tilted]:
    """Return what draws the noise of so many runs, which for some laws is the value; base noise by ``first``.

    Nodes of those that lie below others are drawn in the runs: they depend on what is above, in every branch.
    """
    ir, specs = replace(program._ir, store=program._live_store()), specs_of(prepared, inputs)
    coupling = prepared.randomness.coupling
    apart = free(specs, coupling)
    drawn_first = [name for name in ir.samples if nx.ancestors(ir.dag, name).isdisjoint(ir.samples)]
    valued = [name for name in drawn_first if name not in specs]
    densities = _densities(ir, inputs) if valued else {}
    shapes = prepared.randomness.shapes(inputs)
    device = prepared.randomness.device

    def draw(count: int) -> Tilted:
        drawn = first(apart, count, generator)
        whole = coupled(drawn.noise, specs, coupling, count, generator)
        noise = {name: value.to(device) for name, value in whole.items()}
        with torch.random.fork_rng(enabled=bool(valued)), torch.no_grad():
            if valued:
                torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            for name in valued:
                law, shape = densities[name].law, (count, *shapes[name])
                batch = torch.Size(shape[: len(shape) - law.value_rank])
                noise[name] = law.sample(dict(densities[name].parameters), batch)
        return Tilted(noise, drawn.weights)

    return draw


def specs_of(prepared: Prepared, inputs: Mapping[str, Any]) -> dict[str, NoiseSpec]:
    """Return the noise that a run on these inputs needs, by name."""
    groups = prepared.randomness.layouts(inputs, gradients=True).groups
    return {name: spec for spec, names in groups for name in names}


def _densities(ir: IR, inputs: Mapping[str, Any]) -> Mapping[str, Density]:
    """Return the densities of nodes in one evaluation on these inputs; parents may have any values."""
    with undisturbed(ir.store.modules):
        return evaluate(ir, inputs, spread).densities
