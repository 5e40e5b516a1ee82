"""Draws and densities: the lines of stochastic nodes and of log-probabilities."""

from __future__ import annotations

from functools import partial

from torch import Tensor, fx

from scg.estimators.protocol.kinds import Through
from scg.evaluation.calls import user_function
from scg.laws import Law, Relaxable
from scg.nodes.plates import positions, trimmed
from scg.nodes.records import LogProb, Sample
from scg.surrogate.lowering import elsewhere
from scg.surrogate.lowering.made import made_value
from scg.surrogate.lowering.noises import law_op, noise_of, standard_noise
from scg.surrogate.lowering.parameters import parameters
from scg.surrogate.lowering.plan import REPLICATES, Labels
from scg.surrogate.lowering.worlds import World
from scg.surrogate.runtime.ops import log_prob, relaxed_draw


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
    is_value = through is not None or law.pathwise is None
    if through is not None and type(through).value is not Through.value:
        value = made_value(world, record, axes, through)
    else:
        is_standard = isinstance(law, Relaxable) and plan.choices[name].asks.standard
        noise = standard_noise(world, name, axes) if is_standard else noise_of(world, record, axes)
        if isinstance(law, Relaxable) and is_standard:
            draw = law_op(world, law, "draw_standard", law.draw_standard)
        else:
            draw = law_op(world, law, "draw", law.drawer(density.parameters))
        line = world.called(name if is_value else f"{name}_drawn")
        value = world.emitter.call(draw, given, noise, name=line)
    world.draws[value.name] = (name, law)
    if not is_value:
        value = world.emitter.method("detach", value, name=world.called(name))
    world.values[name], world.axes[name] = value, axes


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


def own_axes(world: World, record: Sample) -> Labels:
    """Return the added axes of a draw: those of its parameters, and the replicates."""
    axes = world.union(record.arguments.names)
    if world.plan.samples is None:
        return axes
    return world.plan.ordered((*axes, REPLICATES))


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
        lead = density_axes(world.outer, name) + world.plan.ir.layout[name]
        return world.capture(own_log_prob(world.outer, name), lead)
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
