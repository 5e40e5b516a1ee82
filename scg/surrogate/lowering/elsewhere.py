"""Lines of values drawn elsewhere: the value, which elements exist, and the noise."""

from __future__ import annotations

from functools import partial

from torch import Tensor, fx

from scg.evaluation.elsewhere import bounds_of, existing, filled, filled_value, kept_of, selected, taken
from scg.laws import Law
from scg.nodes.records import Record, Sample
from scg.surrogate.lowering.plan import Labels
from scg.surrogate.lowering.worlds import World


def exists(world: World, record: Record, axes: Labels) -> fx.Node | None:
    """Return which elements of a sample exist, aligned to leading ``axes`` and its plates; None is all."""
    return existing_along(world, record, axes + world.plan.ir.layout[record.name])


def existing_along(world: World, record: Record, lead: Labels) -> fx.Node | None:
    """Return which elements of a sample exist, aligned to leading dimensions that have its plates."""
    if not isinstance(record, Sample) or record.exists is None:
        return None
    key = f"#exists:{record.name}:{','.join(lead)}"
    if key not in world.values:
        mask = world.aligned(world.value(record.exists), world.lead(record.exists), lead)
        shown = world.emitter.shown("existing", None, existing)
        line = world.emitter.call(shown, mask, name=world.called(f"{record.name}_exists"))
        world.values[key] = world.emitter.placed(record.name, line)
    return world.values[key]


def of_existing(world: World, record: Record, value: fx.Node, axes: Labels) -> fx.Node:
    """Append a value [*axes, *plates, ...] with that of an element that exists where one does not."""
    found = exists(world, record, axes)
    if found is None:
        return value
    return world.emitter.call(world.emitter.shown("filled", None, filled), value, found, name=value.name)


def kept(world: World, record: Record, value: fx.Node, lead: Labels) -> fx.Node:
    """Append a value [*lead] with 0 for elements of a sample that do not exist."""
    found = existing_along(world, record, lead)
    if found is None:
        return value
    shown = world.emitter.shown("kept", None, kept_of)
    return world.emitter.call(shown, value, found, name=value.name)


def keep_existing(world: World, record: Record) -> None:
    """Put 0 in the place of elements of a cost that do not exist."""
    name, ir = record.name, world.plan.ir
    masks = ir.masks.get(name, ())
    if not masks:
        return
    lead = world.lead(name)
    several = [world.aligned(world.value(mask), world.lead(mask), lead) for mask in masks]
    shown = world.emitter.shown("selected", None, selected)
    world.values[name] = world.emitter.call(shown, world.values[name], *several, name=world.called(name))
    repeating = world.repeating.get(name, frozenset())
    world.repeating[name] = repeating.difference(*(ir.layout[mask] for mask in masks))


def given(world: World, record: Sample, parameters: dict[str, fx.Node]) -> None:
    """Append a value that was drawn elsewhere, as one of a law with these parameters."""
    assert record.value is not None
    name, density = record.name, world.trace.densities[record.name]
    law, dtype = density.law, world.trace.values[name].dtype
    axes = world.axes_of(record.value)
    value = world.aligned(
        world.value(record.value), world.lead(record.value), axes + world.plan.ir.layout[name]
    )
    found = exists(world, record, axes)
    if found is not None:
        shown = world.emitter.shown("filled_value", None, filled_value)
        value = world.emitter.call(shown, value, found, name=value.name)
    bounds = bounds_of(law, density.parameters)
    shown = world.emitter.shown("given", None, taken)
    line = world.emitter.call(shown, parameters, value, dtype, bounds, name=world.called(name))
    world.emitter.placed(name, line)
    world.draws[line.name] = (name, law)
    world.values[name], world.axes[name] = line, axes


def recovered(world: World, record: Sample, given: dict[str, fx.Node], fresh: fx.Node | None) -> fx.Node:
    """Return the noise that a value drawn elsewhere is the draw of."""
    name, root = record.name, world.root
    law = world.trace.densities[name].law
    key = f"#recovered:{name}"
    if key not in root.values:
        shown = root.emitter.shown(f"{law.family}_recovered", (law,), partial(_recovered, law))
        line = root.emitter.call(shown, given, root.value(name), fresh, name=f"{name}_noise")
        root.values[key] = root.emitter.placed(name, line)
    return root.values[key]


def _recovered(law: Law, parameters: dict[str, Tensor], value: Tensor, fresh: Tensor | None) -> Tensor:
    held = {key: leaf.detach() for key, leaf in parameters.items()}
    return law.recovered(held, value, value if fresh is None else fresh)
