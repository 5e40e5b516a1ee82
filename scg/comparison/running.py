"""Running: gradients of many runs of a program, and the seconds that one takes of each of several."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from statistics import median
from typing import Any

import torch
from torch import Tensor

from scg.noise import substream
from scg.program.program import Program
from scg.verification.draws import controls_still, drawer
from scg.verification.noises import plain
from scg.verification.stream import stream

CHUNK, WARM = 256, 3


def gradients(
    program: Program, inputs: Mapping[str, Any], names: Sequence[str], *, draws: int, seed: int
) -> Iterator[Tensor]:
    """Yield the gradients [n, entries] of so many runs, independent of each other."""
    generator = torch.Generator().manual_seed(substream(seed, "gradients") % 2**63)
    draw = stream(program, program._prepared_for(inputs), inputs, generator, plain)
    own = drawer(program, inputs, names, draw(4).noise)
    size = min(CHUNK, own.chunk)
    for start in range(0, draws, size):
        yield own(draw(min(size, draws - start)).noise).cpu()


def seconds(
    programs: Mapping[str, Program], inputs: Mapping[str, Any], *, repeats: int, seed: int
) -> dict[str, float]:
    """Return the seconds of the processor that a run of each takes, forward and backward: the median of some.

    The programs take turns, so that a machine which is slow for a while is so for all of them. The backward
    is that of a step of training: it reaches what estimators learn as well.
    """
    found = dict[str, list[float]]()
    with ExitStack() as stack:
        for program in programs.values():
            stack.enter_context(controls_still(program))
        stack.enter_context(torch.enable_grad())
        for turn in range(WARM + repeats):
            for name, program in programs.items():
                live = [p for p in program.parameters() if p.requires_grad]
                start = time.process_time()
                loss = program(seed=substream(seed, f"time {turn}"), **inputs).loss
                torch.autograd.grad(loss, live, allow_unused=True)
                found.setdefault(name, []).append(time.process_time() - start)
    return {name: median(several[WARM:]) for name, several in found.items()}
