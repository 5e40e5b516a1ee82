"""What was found: one figure for each contender of a contest, written and read as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Spread


@dataclass(frozen=True)
class Figure:
    """The seconds of a step, or the error.

    ``ratio`` is that to the step by hand, and ``over`` what it takes more, in the same rounds; ``facts`` are
    other numbers.
    """

    problem: str
    case: str
    size: int | None
    contender: str
    seconds: Spread | None = None
    ratio: Spread | None = None
    over: Spread | None = None
    rounds: int = 0
    error: str | None = None
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, int | None, str]:
        """What tells figures apart."""
        return self.problem, self.case, self.size, self.contender


@dataclass(frozen=True)
class Results:
    """The figures of a run, and the machine."""

    machine: dict[str, Any]
    figures: tuple[Figure, ...]


def machine(device: str) -> dict[str, Any]:
    """Describe what the figures were found on."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "date": date.today().isoformat(),
    }


def cpu_model() -> str:
    """The processor's name where the system tells it."""
    told = Path("/proc/cpuinfo")
    if told.exists():
        for line in told.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write(results: Results, path: Path) -> None:
    """Write results as JSON."""
    text = json.dumps(asdict(results), indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> Results:
    """Read what ``write`` wrote."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return Results(found["machine"], tuple(_figure(each) for each in found["figures"]))


def _figure(found: dict[str, Any]) -> Figure:
    spreads = {name: Spread(**found[name]) if found[name] else None for name in ("seconds", "ratio", "over")}
    return Figure(**{**found, **spreads})


def of_problem(figures: Sequence[Figure]) -> dict[str, list[Figure]]:
    """Group figures by problem, in their order."""
    groups: dict[str, list[Figure]] = {}
    for figure in figures:
        groups.setdefault(figure.problem, []).append(figure)
    return groups
