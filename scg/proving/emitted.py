"""What a program emits, as mathematics: the gradient that one run leaves, in parameters and noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sympy as sp
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from scg.algebra.arrays import Array, flat, symbols
from scg.algebra.believing import POINTS, agree
from scg.algebra.paths import Path
from scg.algebra.reading import read
from scg.algebra.tracing import Traced, traced, unchecked
from scg.errors import UnreadableError
from scg.nodes.ir import CAPTURED
from scg.program.program import Program

CONTROLS = "controls."
POISSON = "poisson"
"""The kind of noise that is the value of a Poisson variable, taken to be drawn as its law says."""

SIGNS = {
    "uniform": {"positive": True},
    "normal": {"real": True},
    POISSON: {"integer": True, "nonnegative": True},
}
"""What is known of symbols of noise, by its kind."""


@dataclass(frozen=True, eq=False)
class Emitted:
    """The gradient that a run leaves in the ``live`` parameters of a program on fixed inputs.

    ``state`` is what estimators hold, whatever it is; ``noise`` is an example, and ``kinds`` says what of.
    """

    program: Program
    inputs: Mapping[str, Any]
    live: Mapping[str, Tensor]
    state: Mapping[str, Tensor]
    noise: Mapping[str, Tensor]
    kinds: Mapping[str, str]

    def gradient(
        self, live: Mapping[str, Tensor], state: Mapping[str, Tensor], noise: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the gradients [n, ...] of many runs under noise [n, ...]."""

        def loss(live: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> Tensor:
            given = {**self.inputs, "noise": noise}
            found: Tensor = functional_call(self.program, {**state, **live}, kwargs=given).loss
            return found

        many = vmap(grad(loss), in_dims=(None, 0), randomness="different")
        with unchecked():
            found: dict[str, Tensor] = many(dict(live), dict(noise))
        return found


@dataclass(frozen=True, eq=False)
class Reading:
    """A traced gradient, with the symbols of what it is in."""

    graph: Traced
    live: Mapping[str, Array]
    state: Mapping[str, Array]
    noise: Mapping[str, Array]
    kinds: Mapping[sp.Symbol, str]

    def on(self, path: Path) -> list[sp.Expr]:
        """Return the gradient on a path, an expression for every entry of every parameter."""
        arrays = [*self.live.values(), *self.state.values(), *self.noise.values()]
        return [entry for found in read(self.graph, arrays, path) for entry in flat(found)]


def emitted(program: Program, inputs: Mapping[str, Any]) -> Emitted:
    """Return what a prepared program emits on inputs."""
    given = {name: {**program._ir.store.examples, **inputs}[name] for name in program._ir.inputs}
    program(noise=0, **given)  # the first run of a kind is checked line by line, which is not traced
    prepared = program._prepared_for(given)
    if prepared.randomness.coupling is not None:
        raise UnreadableError("replicates draw noise together (noise=), and means are over independent noise")
    several = dict(program.named_parameters())
    live = {
        name: p.detach() for name, p in several.items() if not name.startswith(CONTROLS) and p.requires_grad
    }
    captured = [name for name in live if name.startswith(f"{CAPTURED}.")]
    if captured:
        raise UnreadableError(
            f"'{captured[0]}' is captured by a function, which nothing can give another value: "
            "give it to the node as a parent"
        )
    buffers = {name: b for name, b in program.named_buffers() if name.startswith(CONTROLS)}
    state = {name: p.detach() for name, p in several.items() if name.startswith(CONTROLS)}
    state.update({name: b.detach() for name, b in buffers.items() if b.is_floating_point()})
    noise = dict(program.draw_noise(0, **given))
    groups = prepared.randomness.layouts(given, gradients=True).groups
    kinds = {name: spec.kind for spec, names in groups for name in names}
    laws = {name: density.law.family for name, density in prepared.facts.trace.densities.items()}
    kinds.update({name: POISSON for name in noise if name not in kinds and laws.get(name) == "Poisson"})
    values = [name for name in noise if name not in kinds]
    if values:
        raise UnreadableError(
            f"sample '{values[0]}' has no base noise: it is drawn by torch, and nothing is known of how"
        )
    return Emitted(program, given, live, state, noise, kinds)


def reading(what: Emitted) -> Reading:
    """Trace the gradient of a run, with its backward pass."""
    one = {name: value[None] for name, value in what.noise.items()}
    graph = traced(what.gradient, dict(what.live), dict(what.state), one, what="the program")
    live, state = (
        {name: symbols(name, tuple(value.shape), real=True) for name, value in several.items()}
        for several in (what.live, what.state)
    )
    noise, kinds = {}, {}
    for name, value in what.noise.items():
        noise[name] = symbols(f"{name}_", tuple(value.shape), **SIGNS[what.kinds[name]])
        kinds.update(dict.fromkeys(flat(noise[name]), what.kinds[name]))
        noise[name] = noise[name].moved(lambda places: places.unsqueeze(0))
    found = Reading(graph, live, state, noise, kinds)
    _believe(what, found)
    return found


def _believe(what: Emitted, found: Reading) -> None:
    """Hold the gradient that was read against that of runs, at other noise."""
    generator = torch.Generator().manual_seed(0)
    single = any(value.dtype != torch.float64 for value in what.live.values())
    for _ in range(POINTS):
        drawn = {}
        for name, value in what.noise.items():
            shape = (1, *value.shape)
            if what.kinds[name] == POISSON:
                drawn[name] = torch.poisson(torch.full(shape, 1.5), generator=generator).to(value)
                continue
            draw = torch.rand if what.kinds[name] == "uniform" else torch.randn
            drawn[name] = draw(shape, generator=generator).to(value)
        at: dict[sp.Symbol, sp.Expr] = {}
        for arrays, tensors in ((found.live, what.live), (found.state, what.state), (found.noise, drawn)):
            for name, own in arrays.items():
                numbers = tensors[name].double().reshape(-1).tolist()
                at.update({s: sp.Float(v, 17) for s, v in zip(flat(own), numbers, strict=True)})
        gradient = what.gradient(what.live, what.state, drawn)
        values = [v for name in what.live for v in gradient[name].double().reshape(-1).tolist()]
        read = [expr.xreplace(at) for expr in found.on(Path(point=at))]
        agree("the gradient of a run", read, values, single)
        agree("the gradient that a run leaves by itself", read, _left(what, drawn), single)


def _left(what: Emitted, drawn: Mapping[str, Tensor]) -> list[float]:
    """Return the gradient of a run as users have it, without a transform."""
    one = {name: value[0] for name, value in drawn.items()}
    with torch.enable_grad():
        several = [what.program.get_parameter(name) for name in what.live]
        loss = what.program(noise=one, **what.inputs).loss + sum(0 * one.sum() for one in several)
        found = torch.autograd.grad(loss, several)
    return [v for slope in found for v in slope.double().reshape(-1).tolist()]
