"""Gates: factors that are 0 in an example and not in a run, as nodes, and what they are worth exactly."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical

import scg
from tests.truth.building import Fn, value

DISTINCT = 5
"""Elements of an input that differ; more are these again, so that few are enough for their mean."""
Plates = tuple[str, ...]
Outcomes = list[tuple[Tensor | float, tuple[Tensor, ...]]]


def itself(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Gate:
    """Nodes that ``declare(g, size, dtype, plates)`` adds, and their factor; ``awake`` is of parameters.

    What is random has ``plates``, an input has the plate "batch" in ``size`` elements.
    ``inputs(size, dtype)`` are those of a run, and ``outcomes(g, inputs)`` all values of the nodes that a
    run may give, with their probabilities.
    """

    declare: Callable[..., tuple[scg.Node, ...]]
    factor: Fn
    awake: Mapping[str, Any]
    outcomes: Callable[[scg.Graph, Mapping[str, Tensor]], Outcomes]
    inputs: Callable[[int, torch.dtype], dict[str, Tensor]] = lambda size, dtype: {}
    is_plated: bool = False

    def wake(self, g: scg.Graph) -> None:
        """Give the parameters of the gate the values at which it is open."""
        with torch.no_grad():
            for name, values in self.awake.items():
                g[name].value.copy_(torch.as_tensor(values))


def of_parameter(start: float, awake: float, factor: Fn = itself) -> Gate:
    def declare(g: scg.Graph, size: int, dtype: torch.dtype, drawn: Plates = ()) -> tuple[scg.Node, ...]:
        return (g.param("gate", torch.tensor(start, dtype=dtype)),)

    return Gate(declare, factor, {"gate": awake}, lambda g, inputs: [(1.0, (value(g, "gate"),))])


def of_input(start: float, low: float, high: float, factor: Fn = itself, *, plated: bool = True) -> Gate:
    def declare(g: scg.Graph, size: int, dtype: torch.dtype, drawn: Plates = ()) -> tuple[scg.Node, ...]:
        plates = ("batch",) if plated else ()
        return (
            g.input("x", plates=plates, example=torch.full((size,) if plated else (), start, dtype=dtype)),
        )

    def inputs(size: int, dtype: torch.dtype) -> dict[str, Tensor]:
        if not plated:
            return {"x": torch.tensor(high, dtype=dtype)}
        several = min(size, DISTINCT)
        return {"x": torch.linspace(low, high, several, dtype=dtype).repeat(size // several)}

    return Gate(declare, factor, {}, lambda g, given: [(1.0, (given["x"],))], inputs, plated)


def of_bits(count: int, start: float, awake: float) -> Gate:
    names = [f"l{index}" for index in range(count)]

    def declare(g: scg.Graph, size: int, dtype: torch.dtype, drawn: Plates = ()) -> tuple[scg.Node, ...]:
        logits = [g.param(name, torch.tensor(start, dtype=dtype)) for name in names]
        return tuple(g.sample(f"b{i}", Bernoulli, logits=part, plates=drawn) for i, part in enumerate(logits))

    def outcomes(g: scg.Graph, inputs: Mapping[str, Tensor]) -> Outcomes:
        p = torch.stack([value(g, name) for name in names]).sigmoid()
        found: Outcomes = []
        for bits in itertools.product((0.0, 1.0), repeat=count):
            b = torch.tensor(bits, dtype=p.dtype)
            found.append((torch.where(b > 0, p, 1 - p).prod(), tuple(b.unbind())))
        return found

    return Gate(
        declare,
        lambda *b: torch.stack(torch.broadcast_tensors(*b)).prod(0),
        dict.fromkeys(names, awake),
        outcomes,
    )


def of_class() -> Gate:
    def declare(g: scg.Graph, size: int, dtype: torch.dtype, drawn: Plates = ()) -> tuple[scg.Node, ...]:
        logits = g.param("k_logits", torch.tensor([2.0, 2.0, -5.0], dtype=dtype))
        return (g.sample("k", Categorical, logits=logits, plates=drawn),)

    def outcomes(g: scg.Graph, inputs: Mapping[str, Tensor]) -> Outcomes:
        return [(p, (torch.tensor(k),)) for k, p in enumerate(value(g, "k_logits").softmax(-1))]

    def factor(k: Tensor) -> Tensor:
        return (k == 2).to(torch.float32)

    return Gate(declare, factor, {"k_logits": [0.1, -0.2, 0.8]}, outcomes)


GATES: dict[str, Gate] = {
    "a parameter at 0": of_parameter(0.0, 1.4),
    "the square of a parameter at 0": of_parameter(0.0, 1.1, torch.square),
    "a vanishing exponential": of_parameter(-60.0, 0.3, torch.exp),
    "a rectified parameter": of_parameter(-1.0, 1.2, torch.relu),
    "an input of zeros": of_input(0.0, 0.6, 1.6),
    "an input below a threshold": of_input(1.0, 5.7, 6.5, lambda x: torch.relu(x - 5)),
    "an input below a step": of_input(1.0, 5.7, 6.5, lambda x: 1.2 * (x > 5).to(x.dtype)),
    "one number, 0": of_input(0.0, 1.3, 1.3, plated=False),
    "a bit that is rare": of_bits(1, -6.0, 0.6),
    "two bits that are rare": of_bits(2, -3.5, 1.2),
    "a class that is rare": of_class(),
}


def head(*columns: Tensor) -> Tensor:
    """Return 1 where the first of several numbers is the largest."""
    return (torch.stack(columns, -1).argmax(-1) == 0).to(columns[0].dtype)


JUMPS: dict[str, Fn] = {
    "comparison": lambda z: (z > 0.2).to(z.dtype),
    "where": lambda z: torch.where(z < 0.1, torch.full_like(z, -0.7), torch.full_like(z, 0.6)),
    "sign": torch.sign,
    "sgn": torch.sgn,
    "heaviside": lambda z: torch.heaviside(z, torch.ones_like(z)),
    "floor": torch.floor,
    "ceil": lambda z: torch.ceil(z / 1.5),
    "round": lambda z: torch.round(z + 0.3),
    "trunc": lambda z: torch.trunc(1.4 * z),
    "frac": lambda z: torch.frac(z),
    "remainder": lambda z: torch.remainder(z, 1.3),
    "fmod": lambda z: torch.fmod(z, 0.9),
    "atan2": lambda z: torch.atan2(z, torch.full_like(z, -0.8)),
    "copysign": lambda z: torch.copysign(torch.full_like(z, 0.8), z),
    "argmax": lambda z: head(z, torch.full_like(z, 0.3), -z),
    "one-hot of argmax": lambda z: torch.nn.functional.one_hot(torch.stack([z, -z], -1).argmax(-1), 2)[
        ..., 0
    ].to(z.dtype),
    "bucketize": lambda z: torch.bucketize(z, torch.tensor([-0.4, 0.5], dtype=z.dtype)).to(z.dtype),
    "signbit": lambda z: torch.signbit(z).to(z.dtype),
    "integer": lambda z: (1.5 * z).long().to(z.dtype),
    "mask": lambda z: (z * z + 1.0) * torch.gt(z, 0),
    "masked_fill": lambda z: (0.3 * z).masked_fill(z > 0.5, 1.0),
    "straight through": lambda z: z + (torch.sign(z) - z).detach(),
    "nan_to_num of a root": lambda z: torch.nan_to_num(torch.sqrt(z)),
    "nan_to_num of a logarithm": lambda z: torch.nan_to_num(torch.log(z), nan=-1.0).clamp(-3.0, 3.0),
    "threshold": lambda z: torch.nn.functional.threshold(z, 0.4, -0.5),
    "hardshrink": lambda z: torch.nn.functional.hardshrink(z, 0.6),
    "detach": lambda z: z * torch.sigmoid(2 * z).detach(),
    "no_grad": lambda z: z * torch.no_grad()(torch.cos)(z),
}
"""Functions, element by element, through which a gradient by autograd is wrong."""

BEHIND: dict[str, Callable[[Fn, Fn], Fn]] = {
    "times": lambda factor, jump: lambda z, *gate: factor(*gate) * jump(z),
    "beside": lambda factor, jump: lambda z, *gate: 0.3 * z + factor(*gate) * jump(z),
    "squared": lambda factor, jump: lambda z, *gate: (0.2 * z + factor(*gate) * jump(z) - 0.4) ** 2,
    "inside": lambda factor, jump: lambda z, *gate: jump(factor(*gate) * z + 0.05),
    "by lerp": lambda factor, jump: lambda z, *gate: torch.lerp(0.2 * z, jump(z), factor(*gate).to(z.dtype)),
    "divided": lambda factor, jump: lambda z, *gate: factor(*gate) * jump(z) / (1 + factor(*gate) ** 2),
}
"""Ways to put a function behind a gate."""
