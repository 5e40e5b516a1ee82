"""Rollouts of a run: simulated before it, or given as noise to be replayed."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, SupportsIndex

import torch

from scg.errors import GraphError
from scg.evaluation.simulating import filled_in, rescored, simulate
from scg.laws import sum_event
from scg.nodes.ir import IR
from scg.nodes.played import Played
from scg.nodes.trees import placed_leaves
from scg.surrogate.runtime.randomness import Noise

ROUNDING, LARGE, ERRORS = 1e-3, 0.1, 5.0
"""Log-ratios below the first are rounding; above the second they are told of whatever their mean."""

Given = SupportsIndex | Mapping[str, Any] | None


def records(
    ir: IR, live: Callable[[], IR], inputs: Mapping[str, Any], seed: SupportsIndex | None
) -> dict[str, Played]:
    """Simulate every rollout whose record is not among the inputs already, and return the records by node.

    ``live`` gives the graph with what the program holds now.
    """
    missing = [name for name in ir.simulations if not _is_filled(ir, inputs, name)]
    if missing and torch.compiler.is_compiling():
        raise GraphError(
            f"torch.compile cannot trace the simulator of rollout '{missing[0]}': compile with "
            "program.compile(), which simulates outside, or pass noise=program.draw_noise(seed)"
        )
    number = None if seed is None else operator.index(seed)
    return {name: simulate(live(), inputs, name, number) for name in missing}


def recorded(
    ir: IR, live: Callable[[], IR], inputs: Mapping[str, Any], noise: Given, seed: SupportsIndex | None
) -> tuple[dict[str, Any], Given]:
    """Return inputs with the records of all rollouts, of the noise where it has some, and the other noise."""
    given, rest = _parted(ir, noise)
    filled = dict(inputs)
    for name, record in given.items():
        filled.update(filled_in(ir, filled, name, record))
    number = noise if isinstance(noise, SupportsIndex) else seed
    for name, record in records(ir, live, filled, number).items():
        filled.update(filled_in(ir, filled, name, record))
    return filled, rest


def differs(ir: IR, inputs: Mapping[str, Any], name: str) -> str | None:
    """Say that the log-probability of recorded actions is not that which the policy gives them now.

    Rounding is not told, nor what averages out: log-ratios count whose mean is beyond ``ERRORS`` standard
    errors, or that are large.
    """
    record, simulation = ir[name], ir.simulations[name]
    key = simulation.inputs.get("log_prob")
    if not isinstance(key, str) or getattr(record, "behaviour", None) is not None:
        return None
    log = rescored(ir, inputs, name) - sum_event(inputs[key], len(ir.layout[name]))
    mask = simulation.inputs.get("mask")
    log = (log if mask is None else log[inputs[mask] != 0]).flatten().double()
    if not len(log):
        return None
    size, mean = float(log.square().mean().sqrt()), float(log.mean())
    error = float(log.std(correction=0)) / len(log) ** 0.5
    if not size > ROUNDING or (abs(mean) <= ERRORS * error and size < LARGE):
        return None
    return (
        f"rollout '{name}' ({record.where}): the recorded log-probabilities of its actions are not those "
        f"that its policy gives them now: log-ratios have mean {mean:.3g} and size {size:.3g}. Dropout, "
        'another precision or an older policy do that; behaviour="log_prob" counts the ratios'
    )


def _parted(ir: IR, noise: Given) -> tuple[dict[str, Any], Given]:
    """Part noise into records and the rest; a record of the only rollout may be given as it is."""
    noise = noise.to_dict() if noise is not None and hasattr(noise, "to_dict") else noise
    if not isinstance(noise, Mapping) or not ir.simulations:
        return {}, noise
    only, simulation = next(iter(ir.simulations.items()))
    if not set(simulation.inputs).isdisjoint(noise) and not {*ir.samples}.intersection(noise):
        return {only: noise}, None
    given = {name: noise[name] for name in ir.simulations if name in noise}
    others = {name: value for name, value in noise.items() if name not in given}
    if isinstance(noise, Noise) and noise.has_seed:
        return given, Noise(others, noise.seed)
    is_all = not others and set(ir.samples) <= {*given, *ir.given}
    return given, None if is_all else others


def _is_filled(ir: IR, inputs: Mapping[str, Any], name: str) -> bool:
    """Say whether the record of a rollout is among the inputs; refuse a part of one."""
    wanted = [leaf for _, leaf in placed_leaves(name, dict(ir.simulations[name].inputs))]
    lacks = [input_name for input_name in wanted if input_name not in inputs]
    if lacks and len(lacks) < len(wanted):
        raise GraphError(
            f"rollout '{name}': '{lacks[0]}' is not among the inputs, which have a part of its record: give "
            "all of it, as noise={...} with its keys, or none and it is simulated"
        )
    return not lacks
