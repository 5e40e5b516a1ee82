"""The five graphs: drawn, compiled, and their estimates held against exact gradients."""

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

from scg.demo.page import Code, Picture, Stop
from scg.errors import EstimatorError
from scg.examples import SCHULMAN
from scg.graph import Graph
from scg.markdown import table
from scg.oracle import exact_gradient
from scg.program.program import Program
from scg.program.program import compile as compiled
from scg.progress import Progress

POLICIES = ("score", "auto", "reparam", "enumerate")
RUNS, REPLICATES = 64, 1024
SHOWN = "score"
"""The policy whose program is drawn: it is the estimator that Schulman et al. derive."""
TOLD = (
    "The five stochastic computation graphs of Schulman et al. (2015), Figure 1. Circles are drawn, "
    "squares are computed, filled squares are costs. A policy gives every random variable an estimator, and "
    "the compiler emits a torch program whose loss.backward() leaves an unbiased estimate of the "
    "gradient: on average it has to be the exact one."
)
COMMAND = """import scg
from scg.examples import schulman_3
g = schulman_3()
g.draw("schulman_3.svg")
print(scg.exact_gradient(g))
program = scg.compile(g, policy="score")
print(program.code)
program(seed=0).loss.backward()"""
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


def five_graphs(out: Path, *, seed: int = 1) -> Stop:
    """Draw every graph, with its program beside it, and hold its estimates against exact gradients."""
    rows: list[Row] = []
    shown: list[tuple[Picture, Code]] = []
    start = time.perf_counter()
    for index, build in enumerate(SCHULMAN):
        begun = time.perf_counter()
        graph = build()
        rows += compared(graph, seed=seed)
        shown.append(_drawn(graph, out, (build.__doc__ or "").splitlines()[0].removeprefix("Declare ")))
        took = time.perf_counter() - begun
        Progress().finish(f"[{index + 1}/{len(SCHULMAN)}] {graph.name}: {took:.1f} s")
    text = formatted(rows)
    (out / "gradients.md").write_text(text + "\n", encoding="utf-8")
    pictures, programs = zip(*shown, strict=True)
    tables = (
        f"{text}\n\n{RUNS * REPLICATES} draws for each estimate; z is how many standard errors it is off."
    )
    return Stop("Five graphs", TOLD, COMMAND, tables, pictures, programs, time.perf_counter() - start)


def _drawn(graph: Graph, out: Path, told: str) -> tuple[Picture, Code]:
    """Draw a graph, alone and with its program beside it, and return both for the page."""
    code = compiled(graph, policy=SHOWN).code
    drawing, picture = (out / f"{graph.name}.{suffix}" for suffix in ("svg", "png"))
    graph.draw(drawing)
    graph.draw(picture)
    picture.write_bytes(beside(picture, code))
    return Picture(drawing, f"{graph.name}: {told}"), Code(
        f"{graph.name}: program.code, policy {SHOWN!r}", code
    )


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
