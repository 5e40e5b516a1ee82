"""Draws and densities: the lines of stochastic nodes and of log-probabilities."""

from __future__ import annotations

import operator
from functools import partial
from typing import Any

from torch import Tensor, fx

from scg.estimators.protocol.facts import Axis
from scg.estimators.protocol.kinds import Through
from scg.estimators.protocol.site import Provided, Site
from scg.evaluation.calls import user_function
from scg.laws import Law, Relaxable
from scg.nodes.plates import positions, trimmed
from scg.nodes.records import LogProb, Sample
from scg.surrogate.lowering import elsewhere
from scg.surrogate.lowering.emitter import Part
from scg.surrogate.lowering.parameters import parameters
from scg.surrogate.lowering.plan import NOISE, REPLICATES, Labels
from scg.surrogate.lowering.worlds import World
from scg.surrogate.runtime.ops import log_prob, relaxed_draw, replay
from scg.surrogate.runtime.randomness import fresh_key


def law_op(world: World, law: Law, label: str, fn: Any, *key: Any) -> Any:
    """Return a function of a law under the name it has in emitted code."""
    shown = f"{law.family}_{label}"
    return world.emitter.shown(shown, (law, *key), world.plan.watch.part(shown, fn))


def sample(world: World, record: Sample) -> None:
    """Append the draw of a stochastic node from its noise, attached only where its estimator says so."""
    name, plan = record.name, world.plan
    density = world.trace.densities[name]
    law, axes = density.law, own_axes(world, record)
    if record.value is not None:
        elsewhere.given(world, record, parameters(world, record, world.axes_of(record.value)))
        return
    given = parameters(world, record, axes)
    if world.temperature is not None:
        _relaxed(world, record, axes, given)
        return
    through = plan.choices[name].through if world.is_program else None
    is_standard = isinstance(law, Relaxable) and plan.choices[name].asks.standard
    noise = [standard_noise(world, name, axes) if is_standard else noise_of(world, record, axes)]
    if through is not None and type(through).value is not Through.value:
        lead = tuple(plan.axis(label) for label in axes + plan.ir.layout[name])
        made = partial(drawn_by, through, law, lead)
        label = f"{through.name}_value"
        draw = world.emitter.shown(label, (name,), plan.watch.detail(f"{name}_{label}", made))
        noise = [noise_of(world, record, axes), *(noise if is_standard else ())]
    elif is_standard:
        assert isinstance(law, Relaxable)
        draw = law_op(world, law, "draw_standard", law.draw_standard)
    else:
        draw = law_op(world, law, "draw", law.drawer(density.parameters))
    is_value = through is not None or law.pathwise is None
    line = world.called(name if is_value else f"{name}_drawn")
    value = world.emitter.call(draw, given, *noise, name=line)
    if through is not None and type(through).value is not Through.value:
        world.emitter.part(value, Part(name, f"{name}_{through.name}_value"))
    world.draws[value.name] = (name, law)
    if not is_value:
        value = world.emitter.method("detach", value, name=world.called(name))
    world.values[name], world.axes[name] = value, axes


def standard_noise(world: World, name: str, axes: Labels) -> fx.Node:
    """Return what is added to the location of a discrete node, aligned to leading ``axes``."""
    if name in world.plan.ir.given:
        return _recovered(world, name, axes)
    root, key = world.root, f"#standard:{name}"
    if key not in root.values:
        law = world.plan.facts.trace.densities[name].law
        assert isinstance(law, Relaxable)
        made = law_op(root, law, "standard", law.standard)
        noise = root.value(_entry(root, name, f"{name}_noise"))
        root.values[key] = root.emitter.call(made, noise, name=f"{name}_standard")
    return _aligned_noise(world, name, key, axes)


def _relaxed(world: World, record: Sample, axes: Labels, given: dict[str, fx.Node]) -> None:
    """Append a draw that is attached: relaxed where the node is discrete."""
    name = record.name
    law, line = world.trace.densities[name].law, world.called(name)
    if isinstance(law, Relaxable):
        noise = standard_noise(world, name, axes)
        soft = law_op(world, law, "relaxed", partial(relaxed_draw, law))
        world.values[name] = world.emitter.call(soft, given, noise, world.temperature, name=line)
    else:
        noise = noise_of(world, record, axes)
        draw = law_op(world, law, "draw", law.draw)
        world.values[name] = world.emitter.call(draw, given, noise, name=line)
    world.axes[name] = axes


def drawn_by(
    estimator: Through,
    law: Law,
    axes: tuple[Axis, ...],
    parameters: dict[str, Tensor],
    noise: Tensor,
    standard: Tensor | None = None,
) -> Tensor:
    """Return the value that an estimator makes of attached parameters and noise."""
    sized = tuple(axis._replace(size=size) for axis, size in zip(axes, noise.shape, strict=False))
    return estimator.value(Site(law, parameters, noise, sized, Provided(standard=standard)))


def own_axes(world: World, record: Sample) -> Labels:
    """Return the added axes of a draw: those of its parameters, and the replicates."""
    axes = world.union(record.arguments.names)
    if world.plan.samples is None:
        return axes
    return world.plan.ordered((*axes, REPLICATES))


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
    return base_noise(world, name, name, f"{name}_noise", axes)


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
    return world.aligned(world.capture(line), root.axes_of(name) + plates, axes + plates)


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
    have = ((REPLICATES,) if plan.samples is not None else ()) + plates
    return world.aligned(world.value(key), have, axes + plates)


def log_probability(world: World, record: LogProb) -> None:
    """Append a log-probability node; that of a sample node is shared with its estimator."""
    name, ir = record.name, world.plan.ir
    if record.of is not None:
        world.values[name] = own_log_prob(world, record.of)
        world.axes[name] = density_axes(world, record.of)
        owner = ir[record.of]
        assert isinstance(owner, Sample)
        world.repeating[name] = _repeated(world, owner, record.of)
        return
    density = world.trace.densities[name]
    axes = world.union(record.parents)
    given = parameters(world, record, axes)
    have, carried = ir.layout[record.value], world.axes_of(record.value)
    value = world.lean(record.value)
    if have or carried:
        rank = world.trace.values[record.value].dim() - len(have) - density.law.value_rank
        missing = (None,) * max(density.inner - rank, 0)
        plates = positions(have, ir.layout[name])
        lead = (*positions(carried, axes), *plates) if carried else plates
        value = world.emitter.index(value, trimmed((*lead, *missing)))
    line = _log_prob(world, density.law, axes + ir.layout[name], given, value, name)
    world.values[name] = elsewhere.kept(world, ir[record.value], line, axes + ir.layout[name])
    world.axes[name] = axes
    world.repeating[name] = _repeated(world, record, record.value)


def own_log_prob(world: World, name: str) -> fx.Node:
    """Return log p of a sample's value in this world, emitted once."""
    if name in world.log_probs:
        return world.log_probs[name]
    if name not in world.values and world.outer is not None:
        return world.capture(own_log_prob(world.outer, name))
    record = world.plan.ir[name]
    assert isinstance(record, Sample)
    law = world.trace.densities[name].law
    axes, plates = density_axes(world, name), world.plan.ir.layout[name]
    given = parameters(world, record, axes)
    if world.is_program and world.plan.choices[name].asks.detached:
        given = {key: world.emitter.method("detach", leaf, name=leaf.name) for key, leaf in given.items()}
    value = world.aligned(world.lean(name), world.lead(name), axes + plates)
    line = _log_prob(world, law, axes + plates, given, value, f"{name}_log_prob")
    world.log_probs[name] = elsewhere.kept(world, record, world.emitter.placed(name, line), axes + plates)
    return world.log_probs[name]


def _repeated(world: World, record: Sample | LogProb, value: str) -> frozenset[str]:
    """Return the plates along which the log-probability of a value repeats; factories see parents in full."""
    names = record.arguments.names
    if user_function(record) is None:
        return world.all_repeat((value, *names))
    return world.repeats(value).difference(*(world.plan.ir.layout[name] for name in names))


def density_axes(world: World, name: str) -> Labels:
    """Return the added axes of a sample's density: those of its value and those of its parameters."""
    return world.union((name, *world.plan.ir[name].arguments.names))


def _log_prob(
    world: World, law: Law, lead: Labels, given: dict[str, fx.Node], value: fx.Node, name: str
) -> fx.Node:
    count = len(lead)

    def summed(parameters: dict[str, Tensor], value: Tensor) -> Tensor:
        return log_prob(law, count, parameters, value)

    return world.emitter.call(
        law_op(world, law, "log_prob", summed, count), given, value, name=world.called(name)
    )
