"""The history: what a loop logged, a row for each step, and as comma-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from scg.errors import RunError

Row = dict[str, Any]
"""Numbers by name, and lists of numbers for what has several values: one for each run of a plate."""


def read(name: str, value: Any) -> float | list[float]:
    """Return a value as what is kept of it: a number, or a list of numbers.

    >>> read("loss", torch.tensor(0.5)), read("losses", torch.tensor([1.0, 2.0]))
    (0.5, [1.0, 2.0])
    """
    found = torch.as_tensor(value).detach().double().cpu()
    if found.dim() > 1:
        raise RunError(f"log takes numbers and [n] tensors: '{name}' has the shape {[*found.shape]}")
    numbers: float | list[float] = found.tolist()
    return numbers


def columns(rows: Sequence[Row], name: str) -> tuple[Tensor, Tensor]:
    """Return the steps at which something was logged, and what that was: [rows] or [rows, n]."""
    having = [row for row in rows if name in row]
    steps = torch.tensor([row["step"] for row in having])
    return steps, torch.tensor([row[name] for row in having], dtype=torch.float64)


def as_csv(parts: Mapping[str, Sequence[Row]]) -> bytes:
    """Return the rows of all loops as comma-separated values, whose first column names the loop.

    A list has a column for each of its numbers: ``loss.0``, ``loss.1``.
    """
    flat = [{"part": name, **_flat(row)} for name, rows in parts.items() for row in rows]
    titles = [*dict.fromkeys(title for row in flat for title in row)]
    sink = io.StringIO()
    table = csv.DictWriter(sink, titles, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(flat)
    return sink.getvalue().encode()


def _flat(row: Row) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, list):
            found |= {f"{name}.{index}": number for index, number in enumerate(value)}
        else:
            found[name] = value
    return found
