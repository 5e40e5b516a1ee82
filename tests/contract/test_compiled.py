"""Programs under torch.compile give what they give eagerly, from the same noise, and nothing is left out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import scg
from scg.estimators.registry import registry
from tests.contract.instances import INSTANCES, Instance, stirred
from tests.contract.nodes import MAKERS, Maker
from tests.contract.test_alone import CLAIMED, alone, named
from tests.selection import EVERYTHING, covering

OF_KNOWN_PARTS = (
    "rebar+warm rebar+leave-one-out relax+net relax+wrong relax+wrong-row lax+wrong lax+wrong-row "
    "lax+leave-one-out score+moving-average score+normalise"
).split()
"""Options whose programs have the lines of others with other numbers, or are compiled in other tests."""

BRANCHING_MODES = (
    "student-t",
    "fisher-snedecor",
    "continuous-bernoulli-probs",
    "kumaraswamy",
    "beta",
    "dirichlet",
)
"""Whose mode, that self-critical training asks for, is found by branches on values in torch."""


def torch_can(instance: Instance, maker: Maker) -> bool:
    """Whether torch compiles its own distribution: the density of a Wishart branches on values too."""
    is_greedy = instance.name == "score+self-critical"
    return maker.name != "wishart" and not (is_greedy and maker.name in BRANCHING_MODES)


POSSIBLE = [pair for pair in CLAIMED if torch_can(*pair)]


def chosen() -> Iterator[tuple[Instance, Maker]]:
    """Yield options at one distribution each, and estimators at another than inductor has them at below."""
    for name in INSTANCES:
        pairs = [pair for pair in POSSIBLE if pair[0].name == name]
        if pairs and name in registry():
            yield pairs[len(pairs) // 2]
        elif pairs and name not in OF_KNOWN_PARTS:
            yield pairs[0]


PAIRS = POSSIBLE if EVERYTHING else list(chosen())


pytestmark = pytest.mark.usefixtures("compiling")


def outcome(program: scg.Program, call: object, noise: dict[str, Tensor]) -> dict[str, Tensor]:
    program.zero_grad()
    estimate = call(noise=noise)
    estimate.loss.backward()
    found = {name: p.grad for name, p in program.named_parameters() if p.grad is not None}
    return {**found, "loss": estimate.loss.detach()}


@named(PAIRS)
def test_compiled_and_eager_agree(instance: Instance, maker: Maker) -> None:
    """All at all distributions under HYPOTHESIS_PROFILE=fuzz."""
    program = stirred(scg.compile(alone(maker), instance.make("theta"), samples=instance.samples)).eval()
    noise = program.draw_noise(7)
    expected = outcome(program, program, noise)
    found = outcome(
        program, torch.compile(program, fullgraph=True, backend="aot_eager" if EVERYTHING else "eager"), noise
    )
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-9, atol=1e-12), name


FIRST = [
    next(pair for pair in POSSIBLE if pair[0].name == name)
    for name in reversed(INSTANCES)
    if name in registry()
]


def kind(pair: tuple[Instance, Maker]) -> type | None:
    """Return the kind of an estimator: how its lines are made."""
    several = (scg.Scored, scg.Cut, scg.Through, scg.Branched)
    return next((each for each in several if issubclass(registry()[pair[0].name], each)), None)


@named(covering(FIRST, kind))
def test_inductor_and_eager_agree(instance: Instance, maker: Maker) -> None:
    """One estimator of each kind, and all under HYPOTHESIS_PROFILE=fuzz, the whole program in one graph."""
    program = stirred(scg.compile(alone(maker), instance.make("theta"), samples=instance.samples)).eval()
    noise = program.draw_noise(7)
    expected = outcome(program, program, noise)
    found = outcome(program, torch.compile(program, fullgraph=True, backend="inductor"), noise)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-9, atol=1e-12), name


def test_what_torch_cannot_compile_is_named() -> None:
    program = scg.compile(alone(MAKERS["wishart"]), "score").compile(backend="aot_eager")
    noise = program.draw_noise(7)
    program(noise=noise)
    with pytest.raises(scg.CompileError, match=r"torch\.compile cannot take node 'v'.*branching"):
        program(noise=noise)
