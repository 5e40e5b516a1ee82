"""Types: what a user mistypes is seen by mypy, and what is right is not."""

from __future__ import annotations

from pathlib import Path

import pytest

PROGRAM = """
import torch
import scg
from torch.distributions import Bernoulli

g = scg.Graph()
g.plate("batch", reduce="{reduce}")
b = g.sample("b", Bernoulli, logits=g.param("w", 0.1), plates="batch")
g.cost("c", (b - 0.3) ** 2)
program = scg.compile(g, scg.Score(baseline="{baseline}"), samples=2)
estimate = program(seed=0)
estimate.{loss}.backward()
print(program.{explain}())
"""
RIGHT = {"reduce": "sum", "baseline": "leave-one-out", "loss": "loss", "explain": "explain"}
WRONG = {"reduce": "average", "baseline": "leave-one-in", "loss": "losss", "explain": "explian"}


def test_mypy_sees_what_is_mistyped(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    names = {"right": RIGHT, **{name: {**RIGHT, name: word} for name, word in WRONG.items()}}
    for name, words in names.items():
        (tmp_path / f"{name}_.py").write_text(PROGRAM.format(**words))
    cache = Path(__file__).parents[2] / ".mypy_cache"  # which ``mypy scg`` has filled
    files = [str(path) for path in tmp_path.glob("*.py")]
    told, _, _ = api.run(["--strict", "--no-error-summary", "--cache-dir", str(cache), *files])
    lines = told.splitlines()
    for name in names:
        own = [line for line in lines if f"{name}_.py:" in line and ": error:" in line]
        assert bool(own) == (name != "right"), (name, told)
