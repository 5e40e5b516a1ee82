"""Parameters of laws: the lines that lay them out for a value with leading axes."""

from __future__ import annotations

import operator

from torch import fx

from scg.evaluation.calls import user_function
from scg.laws import bind
from scg.nodes.arguments import Ref
from scg.nodes.plates import positions, trimmed
from scg.nodes.records import LogProb, Record, Sample
from scg.surrogate.lowering import elsewhere
from scg.surrogate.lowering.plan import Labels
from scg.surrogate.lowering.worlds import World


def parameters(world: World, record: Sample | LogProb, axes: Labels) -> dict[str, fx.Node]:
    """Return the parameters of a node's law, laid out for a value with leading ``axes``, emitted once."""
    key = (record.name, axes)
    if key not in world.parameters:
        made = _arguments if user_function(record) is None else _manufactured
        world.parameters[key] = made(world, record, axes)
    return world.parameters[key]


def _arguments(world: World, record: Sample | LogProb, axes: Labels) -> dict[str, fx.Node]:
    """Take the parameters of a distribution class from the node's arguments."""
    assert record.dist is not None
    density = world.trace.densities[record.name]
    arguments = bind(record.dist.call, record.arguments.args, record.arguments.kwargs)  # type: ignore[arg-type]
    found = {}
    for key in density.law.parameters:
        template = arguments.get(key)
        if isinstance(template, Ref):
            lead = (world.axes_of(template.name), world.plan.ir.layout[template.name])
            found[key] = _laid_out(world, record, key, world.lean(template.name), lead, axes)
        else:
            found[key] = world.held(f"constants.{world.plan.constant(key, density.parameters[key])}")
    return found


def _manufactured(world: World, record: Sample | LogProb, axes: Labels) -> dict[str, fx.Node]:
    """Call a factory of distributions and take apart what it returns."""
    assert record.dist is not None
    density = world.trace.densities[record.name]
    carried = world.union(record.arguments.names)
    maker = world.home(record.arguments.names)
    key = f"#made:{record.name}"
    if key not in maker.values:
        maker.values[key] = maker.apply(record, record.dist, carried, f"{record.name}_law", maker.value)
    plates = world.plan.ir.layout[record.name]
    found = {}
    for key_ in density.law.parameters:
        label = maker.called(f"{record.name}_{key_.replace('.', '_')}")
        made = maker.emitter.call(operator.getitem, maker.values[key], key_, name=label)
        lead = (carried, plates if density.plated[key_] else ())
        value = world.capture(made, carried + lead[1])
        found[key_] = _laid_out(world, record, key_, value, lead, axes)
    return found


def _laid_out(
    world: World, record: Record, key: str, value: fx.Node, lead: tuple[Labels, Labels], axes: Labels
) -> fx.Node:
    """Give a parameter size-1 dimensions for the axes, plates and event dimensions that it lacks."""
    carried, have = lead
    density = world.trace.densities[record.name]
    if density.short[key]:
        value = world.emitter.index(value, (..., *(None,) * density.short[key]))
    if not carried and not have:
        return value
    missing = density.missing[key]
    plates = positions(have, world.plan.ir.layout[record.name])
    front = (*positions(carried, axes), *plates) if carried else plates
    laid = world.emitter.index(value, trimmed((*front, *(None,) * missing)))
    return elsewhere.of_existing(world, record, laid, axes if carried else ())
