"""Generators of random numbers, left as they were."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def steady_generators(devices: Sequence[torch.device] | None = None) -> Iterator[None]:
    """Leave the generators of torch (on all devices), of Python and of NumPy, if in use, as they were."""
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=devices))
        stack.callback(random.setstate, random.getstate())
        if (numpy := sys.modules.get("numpy")) is not None:
            stack.callback(numpy.random.set_state, numpy.random.get_state())
        yield
