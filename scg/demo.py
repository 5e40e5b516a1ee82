"""The demonstration: the toy experiment, small, and the graphs of ``scg.examples`` with their gradients."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scg.errors import EstimatorError
from scg.examples import SCHULMAN
from scg.experiments.toy.command import toy
from scg.graph import Graph
from scg.markdown import table
from scg.oracle import exact_gradient
from scg.program.program import Program
from scg.program.program import compile as compiled
from scg.progress import Progress

POLICIES = ("score", "auto", "reparam", "enumerate")
RUNS, REPLICATES = 64, 1024
T, STEPS = 0.45, 3000
"""The size of the toy experiment here: what tells the policies apart soonest."""
SHOWN = "score"
"""The policy whose program is drawn: it is the estimator that Schulman et al. derive."""
DPI, SIZE, LEADING, GAP = 200, 7.5, 1.25, 0.25


@dataclass(frozen=True)
class Row:
    """The estimate of one parameter's gradient under one policy."""

    graph: str
    parameter: str
    policy: str
    estimators: str
    exact: float
    mean: float
    error: float

    @property
    def z(self) -> float:
        """The distance from the exact gradient in standard errors, 0 within rounding of it."""
        distance = self.mean - self.exact
        rounding = 8 * torch.finfo(torch.float32).eps * max(1.0, abs(self.exact))
        if abs(distance) <= rounding:
            return 0.0
        return distance / self.error if self.error else math.copysign(math.inf, distance)


def demo(out: Path, *, seed: int = 1, overwrite: bool = False) -> str:
    """Write drawings, programs and tables into ``out``, and return the tables."""
    experiment = toy(out, ts=(T,), steps=STEPS, seed=seed, overwrite=overwrite)
    rows: list[Row] = []
    for index, build in enumerate(SCHULMAN):
        start = time.perf_counter()
        graph = build()
        rows += compared(graph, seed=seed)
        graph.draw(out / f"{graph.name}.svg")
        picture = out / f"{graph.name}.png"
        graph.draw(picture)
        picture.write_bytes(beside(picture, compiled(graph, policy=SHOWN).code))
        took = time.perf_counter() - start
        Progress().finish(f"[{index + 1}/{len(SCHULMAN)}] {graph.name}: {took:.1f} s")
    text = formatted(rows)
    (out / "gradients.md").write_text(text + "\n", encoding="utf-8")
    draws = f"{RUNS * REPLICATES} draws for each estimate. Pictures and this table are in {out}."
    return f"{experiment}\n\n{text}\n\n{draws}"


def compared(graph: Graph, *, seed: int = 1) -> Iterator[Row]:
    """Yield a row for each parameter of a graph under each policy that does not refuse it."""
    exact = exact_gradient(graph)
    for policy in POLICIES:
        try:
            program = compiled(graph, policy=policy, samples=REPLICATES)
        except EstimatorError:
            continue
        estimators = ", ".join(f"{name}: {choice.name}" for name, choice in program.policy.items())
        for name, draws in gradients(graph, program, seed=seed).items():
            error = float(draws.std() / math.sqrt(RUNS))
            yield Row(graph.name, name, policy, estimators, float(exact[name]), float(draws.mean()), error)


def gradients(graph: Graph, program: Program, *, seed: int) -> Mapping[str, Tensor]:
    """Return ``RUNS`` independent estimates of the gradient in each parameter, leaving ``.grad`` alone."""
    parameters, inputs = dict(graph.named_parameters()), graph.freeze().store.examples
    draws: dict[str, list[Tensor]] = {name: [] for name in parameters}
    for run in range(RUNS):
        loss = program(seed=seed * RUNS + run, **inputs).loss
        for name, gradient in zip(parameters, torch.autograd.grad(loss, [*parameters.values()]), strict=True):
            draws[name].append(gradient.double())
    return {name: torch.stack(several) for name, several in draws.items()}


def formatted(rows: Sequence[Row]) -> str:
    """Return rows as an aligned Markdown table."""
    titles = ("graph", "parameter", "policy", "estimators", "exact", "mean", "std. error", "z")
    six = "{:.6f}".format
    cells = [
        (r.graph, r.parameter, r.policy, r.estimators, *map(six, (r.exact, r.mean, r.error)), f"{r.z:+.2f}")
        for r in rows
    ]
    return table(titles, "<<<<>>>>", cells)


def beside(picture: Path, code: str) -> bytes:
    """Return a PNG of a picture with the text of a program on its right; needs matplotlib."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    pixels = imread(picture)
    lines = code.strip().splitlines()
    tall, wide = pixels.shape[0] / DPI, pixels.shape[1] / DPI
    width = wide + GAP + max(map(len, lines)) * 0.61 * SIZE / 72 + GAP
    height = max(tall, (len(lines) + 2) * LEADING * SIZE / 72)
    with rc_context({"font.monospace": ["DejaVu Sans Mono"], "text.parse_math": False}):
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        figure.figimage(pixels, yo=(height - tall) * DPI / 2)
        look: dict[str, Any] = {
            "family": "monospace",
            "fontsize": SIZE,
            "linespacing": LEADING,
            "va": "center",
        }
        figure.text((wide + GAP) / width, 0.5, "\n".join(lines), **look)
        sink = io.BytesIO()
        figure.savefig(sink, format="png", dpi=DPI, metadata={"Software": None})
    return sink.getvalue()
