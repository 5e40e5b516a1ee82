"""REBAR in VAEs of 1 to 4 layers: evaluations as explained and as counted, and memory over score's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from benchmarks.contest import SCG, Contest, Job, Settings, by_program
from benchmarks.memory import peak_of_step
from benchmarks.problems import vae

LAYERS = (1, 2, 3, 4)


def contests(settings: Settings) -> Iterator[Contest]:
    """One contest for every number of layers under score and REBAR."""
    for row in vae.ROWS:
        if row.name in ("score", "rebar"):
            for layers in LAYERS[:2] if settings.quick else LAYERS:
                found = vae.contest(replace(row, peers={}), layers, replace(settings, compiled=False))
                measure = partial(facts, row, layers, settings.device)
                yield replace(found, problem="layers", size=layers, measure=measure)


def facts(row: vae.Row, layers: int, device: str, name: str, job: Job, seconds: float) -> dict[str, float]:
    """Peak memory of a step besides gradients; for REBAR of scg also evaluations, and memory over score's."""
    found = {"peak MB": peak_of_step(job.step, device)}
    if row.name == "rebar" and name == SCG:
        score, (model, x) = vae.ROWS[0], vae.model_of(row, layers, device)
        plain = by_program(vae.program_of(score, model, x), {"x": x})
        plain.step()
        found["peak over score's"] = found["peak MB"] / peak_of_step(plain.step, device)
        found["evaluations explained"] = explained(row, layers, device)
        found["evaluations counted"] = counted(row, layers, device)
    return found


def explained(row: vae.Row, layers: int, device: str) -> float:
    """Evaluations of layers as ``explain`` tells them: once each, and again for every node at or below."""
    text = vae.program_of(row, *vae.model_of(row, layers, device)).explain()
    each = [int(count) for count in re.findall(r"; (\d+) evaluations? below", text)]
    return sum(1 + sum(count - 1 for count in each[: layer + 1]) for layer in range(layers))


def counted(row: vae.Row, layers: int, device: str) -> float:
    """Batches that decoders are given in one step."""
    model, x = vae.model_of(row, layers, device)
    program = vae.program_of(row, model, x)
    program(x=x)
    rows = 0

    def count(module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
        nonlocal rows
        rows += result[..., 0].numel()

    hooks = [decoder.register_forward_hook(count) for decoder in model.decoders]
    program(x=x).loss.backward()
    for hook in hooks:
        hook.remove()
    return rows / len(x)
