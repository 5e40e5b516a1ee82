"""Replicates of the toy problem, from 1 to 4,096: what one pass costs as they grow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.contest import Contest, Settings
from benchmarks.problems import toy

SIZES, FEW = (1, 4, 16, 64, 256, 1024, 4096), (1, 1024)


def contests(settings: Settings) -> Iterator[Contest]:
    """One contest for every number of replicates under score, REBAR and RELAX."""
    for row in toy.ROWS:
        if row.name in ("score", "rebar", "relax"):
            for count in FEW if settings.quick else SIZES:
                found = toy.contest(row, count, replace(settings, compiled=False))
                yield replace(found, problem="replicates", size=count)
