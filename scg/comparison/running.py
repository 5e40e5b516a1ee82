"""Running: gradients of many runs of a program, and the seconds that one takes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from scg.noise import substream
from scg.program.program import Program
from scg.verification.draws import drawer
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


def seconds(program: Program, inputs: Mapping[str, Any], *, repeats: int, seed: int) -> float:
    """Return the seconds of the processor that a run takes, forward and backward: the median of some.

    The backward is that of a step of training: it reaches what estimators learn as well.
    """
    live = [p for p in program.parameters() if p.requires_grad]
    found = []
    for repeat in range(WARM + repeats):
        start = time.process_time()
        loss = program(seed=substream(seed, f"time {repeat}"), **inputs).loss
        torch.autograd.grad(loss, live, allow_unused=True)
        found.append(time.process_time() - start)
    return median(found[WARM:])
