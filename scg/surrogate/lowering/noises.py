"""Noise: the lines that read what the values of nodes are drawn from, and what estimators draw besides."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from scg.laws import Law, Relaxable
from scg.nodes.records import Sample
from scg.surrogate.lowering import elsewhere
from scg.surrogate.lowering.parameters import parameters
from scg.surrogate.lowering.plan import NOISE, POINTS, REPLICATES, Labels
from scg.surrogate.lowering.worlds import World
from scg.surrogate.runtime.ops import replay
from scg.surrogate.runtime.randomness import fresh_key, redrawn_key


def law_op(world: World, law: Law, label: str, fn: Any, *key: Any) -> Any:
    """Return a function of a law under the name it has in emitted code."""
    shown = f"{law.family}_{label}"
    return world.emitter.shown(shown, (law, *key), world.plan.watch.part(shown, fn))


def standard_noise(world: World, name: str, axes: Labels) -> fx.Node:
    """Return what is added to the location of a discrete node, aligned to leading ``axes``."""
    if name in world.plan.ir.given:
        return _recovered(world, name, axes)
    root, entry = world.root, _own_key(world, name)
    key = f"#standard:{entry}"
    if key not in root.values:
        law = world.plan.facts.trace.densities[name].law
        assert isinstance(law, Relaxable)
        made = law_op(root, law, "standard", law.standard)
        noise = root.value(_entry(root, entry, world.called(f"{name}_noise")))
        root.values[key] = root.emitter.call(made, noise, name=world.called(f"{name}_standard"))
    return _aligned_noise(world, name, key, axes)


def _own_key(world: World, name: str) -> str:
    """Return the entry of the noise argument that a node is drawn from in a world."""
    return name if world.redraws is None else redrawn_key(world.redraws, name)


def noise_of(world: World, record: Sample, axes: Labels) -> fx.Node:
    """Return the noise of a node, aligned to leading ``axes``.

    It is drawn here where it is the value.
    """
    name, plan, emitter = record.name, world.plan, world.emitter
    law, plates = world.trace.densities[name].law, plan.ir.layout[name]
    if record.value is not None:
        return _recovered(world, name, axes)
    if law.noise == "value":
        if name in world.values:
            return world.values[name]
        given = parameters(world, record, axes)
        sizes = [plan.samples if axis == REPLICATES else 1 for axis in axes]
        lead = [*sizes, *(world.size(plate) for plate in plates)]
        key = f"{name}{world.stream}"
        inner = world.trace.densities[name].inner
        op = law_op(
            world,
            law,
            "replay",
            lambda noise, key, given, lead, inner: replay(noise, key, law, given, lead, inner),
        )
        line = world.called(f"{name}_noise")
        return emitter.placed(name, emitter.call(op, world.value(NOISE), key, given, lead, inner, name=line))
    label = f"{name}_noise" if world.redraws is None else world.called(f"{name}_noise")
    return base_noise(world, name, _own_key(world, name), label, axes)


def _recovered(world: World, name: str, axes: Labels) -> fx.Node:
    """Return the noise that a value drawn elsewhere is the draw of, or the value where nothing reads it."""
    root, choice = world.root, world.plan.choices[name]
    record = root.plan.ir[name]
    assert isinstance(record, Sample)
    fresh = None
    if choice.recovers:
        key = fresh_key(name, len(choice.asks.fresh))
        fresh = base_noise(root, name, key, f"{name}_recovering", root.axes_of(name))
    elif world.trace.densities[name].law.noise != "value":
        return world.value(name)
    line = elsewhere.recovered(root, record, parameters(root, record, root.axes_of(name)), fresh)
    plates = world.plan.ir.layout[name]
    have = root.axes_of(name) + plates
    return world.aligned(world.capture(line, have), have, axes + plates)


def base_noise(world: World, name: str, key: str, label: str, axes: Labels) -> fx.Node:
    """Return one entry of the noise argument, in the shape of a node's noise, aligned to leading ``axes``."""
    return _aligned_noise(world, name, _entry(world.root, key, label), axes)


def _entry(root: World, key: str, label: str) -> str:
    """Read one entry of the noise argument as it is, once, and return the key of the value."""
    found = f"#noise:{key}"
    if found not in root.values:
        root.values[found] = root.emitter.call(operator.getitem, root.value(NOISE), key, name=label)
    return found


def _aligned_noise(world: World, name: str, key: str, axes: Labels) -> fx.Node:
    plan = world.plan
    plates = plan.ir.layout[name]
    points = () if world.redraws is None else (POINTS,)
    have = (*points, *((REPLICATES,) if plan.samples is not None else ()), *plates)
    return world.aligned(world.capture(world.root.value(key), have), have, axes + plates)
