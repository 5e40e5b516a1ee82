"""Peak memory: of the tensors of a step, and of a function in a process of its own."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

MEGABYTE = 2**20


def peak_of_step(step: Callable[[], object], device: str = "cpu") -> float:
    """Return the most megabytes of tensors that were alive at once during a step, besides those before it."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / MEGABYTE
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak / MEGABYTE


def peak_of_process(fn: Callable[..., object], *arguments: Any) -> float:
    """Return by how many megabytes a new process grows while it runs ``fn(*arguments)``."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_growth, (fn, arguments))


def _growth(fn: Callable[..., Callable[[], object]], arguments: tuple[Any, ...]) -> float:
    run = fn(*arguments)
    before = _resident()
    run()
    return max(_resident() - before, 0.0)


def _resident() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        # What getrusage tells on Linux includes the process that started this one.
        told = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(told["VmHWM"].split()[0]) * 1024 / MEGABYTE
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGABYTE
