"""Timing contenders in turns: rounds in random order, in one process, with the collector off."""

from __future__ import annotations

import gc
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from benchmarks.contest import Build, Job

WARM_UP, FEWEST, SLOW = 3, 5, 1.0
IN_A_ROW = 3
"""Steps in a turn, as steps follow each other in training; the last of them is timed."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Budget:
    """When to stop: after ``rounds``, or after ``seconds`` and a few rounds.

    A contender that takes longer than ``build`` seconds to be built, or ``limit`` for its first steps or
    any other, is left out.
    """

    rounds: int = 200
    seconds: float = 4.0
    build: float = 120.0
    limit: float = 10.0


@dataclass(frozen=True)
class Spread:
    """The median and the quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """The spread of at least two values, or of one."""
        if len(values) == 1:
            return cls(*values * 3)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Timed:
    """What became of a contender: its job and the seconds of a step in every round, or why there are none."""

    job: Job | None = None
    seconds: tuple[float, ...] = ()
    error: str | None = None


class OverTheLimitError(BaseException):
    """A contender took too long to start; not an ``Exception``, which contenders may catch."""


def race(
    contenders: Mapping[str, Build], budget: Budget, tell: Tell, device: str = "cpu"
) -> dict[str, Timed]:
    """Build and warm up every contender, then time those that run in rounds of random order."""
    jobs: dict[str, Job] = {}
    found: dict[str, Timed] = {}
    for name, build in contenders.items():
        tell(f"starting {name}")
        try:
            with limited(budget.build):
                job = build()
            with limited(budget.limit):
                warm_up(job)
            jobs[name] = job
        except OverTheLimitError as error:
            found[name] = Timed(error=str(error))
        except Exception as error:  # noqa: BLE001 - whatever a contender raises is its result
            found[name] = Timed(error=f"crashed: {first_line(error)}")
    times: dict[str, list[float]] = {name: [] for name in jobs}
    start = time.perf_counter()
    with collector_off():
        for round_ in range(budget.rounds):
            if round_ >= FEWEST and time.perf_counter() - start > budget.seconds:
                break
            for name in random.sample(list(jobs), len(jobs)):
                try:
                    with limited(budget.limit):
                        times[name].append(clocked(jobs[name], device))
                except OverTheLimitError as error:
                    found[name] = Timed(error=str(error))
                    del jobs[name]
            tell(f"round {round_ + 1}")
            gc.collect()
    found.update({name: Timed(job, tuple(times[name])) for name, job in jobs.items()})
    return {name: found[name] for name in contenders}


def warm_up(job: Job) -> None:
    """Run the first steps, fewer where they are slow."""
    start = time.perf_counter()
    for _ in range(WARM_UP):
        job.clear()
        job.step()
        if time.perf_counter() - start > SLOW:
            return


def clocked(job: Job, device: str) -> float:
    """Return the seconds of the last of a few steps, of one where they are slow."""
    before = time.perf_counter()
    for _ in range(IN_A_ROW - 1):
        if time.perf_counter() - before < SLOW:
            job.clear()
            job.step()
    job.clear()
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    job.step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compared(mine: Timed, theirs: Timed, how: Callable[[float, float], float]) -> Spread:
    """The spread of a comparison within the same rounds."""
    return Spread.of([how(a, b) for a, b in zip(mine.seconds, theirs.seconds, strict=True)])


def first_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    message = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise ``OverTheLimitError`` in the main thread after some seconds, where signals allow it."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise OverTheLimitError(f"over the limit of {seconds:g} s")

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


@contextmanager
def collector_off() -> Iterator[None]:
    """Collect only when asked, and then not what there was before."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
