"""Made values: the lines in which an estimator gives the value of its node."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from scg.estimators.protocol.facts import Axis
from scg.estimators.protocol.kinds import Through
from scg.estimators.protocol.site import Provided, Site
from scg.laws import Law, Relaxable
from scg.nodes.records import Sample
from scg.surrogate.lowering.emitter import Part
from scg.surrogate.lowering.noises import base_noise, noise_of, standard_noise
from scg.surrogate.lowering.parameters import parameters
from scg.surrogate.lowering.plan import Labels
from scg.surrogate.lowering.worlds import World
from scg.surrogate.runtime.ops import first_order
from scg.surrogate.runtime.randomness import fresh_key


def made_value(world: World, record: Sample, axes: Labels, through: Through) -> fx.Node:
    """Append a value that an estimator makes, with what it asks for besides the noise, and what it learns."""
    name, plan, emitter = record.name, world.plan, world.emitter
    view = next(view for view in plan.views(name) if view.choice.estimator is through)
    law, lead = world.trace.densities[name].law, tuple(map(plan.axis, axes + plan.ir.layout[name]))
    part, asks, extra = f"{view.label}_{through.name}_value", view.choice.asks, dict[str, Any]()
    noise = [noise_of(world, record, axes)]
    if isinstance(law, Relaxable) and plan.choices[name].asks.standard:
        noise.append(standard_noise(world, name, axes))
    if asks.fresh:
        extra["fresh"] = tuple(
            base_noise(world, name, fresh_key(name, index), f"{name}_fresh_{index + 1}", axes)
            for index in range(view.fresh, view.fresh + len(asks.fresh))
        )
    if view.key in plan.controls:
        extra["controls"] = world.held(f"controls.{view.key}")
    made = plan.watch.detail(part, partial(drawn_by, through, law, lead))
    shown = emitter.shown(f"{through.name}_value", (name,), made)
    value = emitter.call(shown, parameters(world, record, axes), *noise, name=world.called(name), **extra)
    return emitter.part(value, Part(name, part, view.key))


def drawn_by(
    estimator: Through,
    law: Law,
    axes: tuple[Axis, ...],
    parameters: dict[str, Tensor],
    noise: Tensor,
    standard: Tensor | None = None,
    fresh: tuple[Tensor, ...] = (),
    controls: nn.Module | None = None,
) -> Tensor:
    """Return the value that an estimator makes of attached parameters and noise.

    One that is biased has no right derivative beyond the first.
    """
    sized = tuple(axis._replace(size=size) for axis, size in zip(axes, noise.shape, strict=False))
    training = controls is not None and controls.training
    provided = Provided(standard=standard, fresh=fresh)
    site = Site(law, parameters, noise, sized, provided, controls=controls, training=training)
    value = estimator.value(site)
    return value if estimator.unbiased else first_order(value)


def seen_by(estimator: Through, law: Law, controls: nn.Module) -> None:
    """Let an estimator that made a value remember the run."""
    none = torch.empty(0)
    estimator.remember(Site(law, {}, none, (), Provided(), controls=controls, training=controls.training))
