"""Prove: right programs are proved or certified, wrong ones fail with a counterexample that can be run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal

import scg
from scg.examples import SCHULMAN
from scg.program.program import Program
from tests.proving import graphs
from tests.selection import EVERYTHING

GREEDY = scg.Score(baseline="self-critical")
AVERAGE = scg.Score(baseline="moving-average")
LOCAL = scg.Enumerate(local=True)
SUMMED = {"schulman_1": "enumerate", "schulman_3": {"x": "enumerate"}}
LOCALLY = {"schulman_1": LOCAL, "schulman_3": {"x": LOCAL}}
PROVED: list[tuple[Callable[[], scg.Graph], Any, int | None]] = [
    *((make, "score", None) for make in SCHULMAN),
    *((make, GREEDY, None) for make in SCHULMAN),
    *((make, AVERAGE, None) for make in SCHULMAN),
    *((make, SUMMED[make.__name__], None) for make in SCHULMAN if make.__name__ in SUMMED),
    *((make, LOCALLY[make.__name__], None) for make in SCHULMAN if make.__name__ in LOCALLY),
    *((SCHULMAN[k], "reparam", None) for k in (1, 3, 4)),
    (SCHULMAN[0], "disarm", None),
    (SCHULMAN[2], {"x": "disarm", "y": "score"}, None),
    (SCHULMAN[0], scg.Score(baseline="leave-one-out"), 2),
    (SCHULMAN[1], scg.Score(baseline="leave-one-out"), 2),
    *((graphs.chain, policy, None) for policy in ("score", GREEDY, LOCAL, "enumerate", "disarm")),
    (graphs.chain, {"b1": "score", "b2": "enumerate"}, None),
    (graphs.chain, {"b1": "enumerate", "b2": "score"}, None),
    *((graphs.diamond, {"b": above, "z": "reparam"}, None) for above in ("score", "enumerate", LOCAL)),
    (graphs.diamond, "score", None),
    *((graphs.coins, policy, None) for policy in ("score", "enumerate", LOCAL, GREEDY)),
    *((graphs.choice, policy, None) for policy in ("score", "enumerate", LOCAL, GREEDY)),
    (graphs.hot, "score", None),
    *((graphs.batch, policy, None) for policy in ("score", "enumerate")),
    (lambda: graphs.batch("sum", 0.9), "score", None),
    *((graphs.mixed, policy, None) for policy in ("score", "enumerate", LOCAL)),
    *((graphs.probable, policy, None) for policy in ("score", {"b": "enumerate", "z": "reparam"})),
    (graphs.toy, scg.REBAR(temperature=0.5), None),
    (graphs.toy, scg.REBAR(temperature=1.0, tune=False), None),
]
"""Graphs, policies and replicates whose emitted arithmetic is proved right."""
SHORT = PROVED if EVERYTHING else [row for row in PROVED[::3] if row[1] != "disarm"]


def program(make: Callable[[], scg.Graph], policy: Any, samples: int | None = None) -> Program:
    torch.manual_seed(0)
    return scg.compile(make(), policy, samples=samples, allow_biased=True)


@pytest.mark.parametrize(("make", "policy", "samples"), SHORT)
def test_the_emitted_arithmetic_is_proved(make: Any, policy: Any, samples: int | None) -> None:
    proof = scg.prove(program(make, policy, samples))
    assert proof.standing == "proved", proof
    assert proof.counterexample is None


CERTIFIED: list[tuple[Callable[[], scg.Graph], Any, float]] = [
    (graphs.downstream, {"z": "score", "b": "rebar"}, 1e-9),
    (graphs.stepped, "score", 1e-4),
]
LONG: list[tuple[Callable[[], scg.Graph], Any, float]] = [
    (graphs.toy, "relax", 1e-10),
    (graphs.diamond, {"b": "rebar", "z": "reparam"}, 1e-10),
    (graphs.hot, "rebar", 1e-6),
    (graphs.chain, "rebar", 1e-10),
    (graphs.chain, {"b1": "rebar", "b2": "relax"}, 1e-6),
]


@pytest.mark.parametrize(("make", "policy", "within"), CERTIFIED + (LONG if EVERYTHING else []))
def test_what_has_no_closed_form_is_certified(make: Any, policy: Any, within: float) -> None:
    proof = scg.prove(program(make, policy), points=2 if EVERYTHING else 1)
    assert proof.standing == "certified", proof
    measured = next(step for step in proof.steps if step.standing == "certified")
    assert float(measured.how.rpartition("within ")[2]) <= within, proof
    assert proof.reasons


@pytest.mark.parametrize("make", [graphs.toy, *([graphs.hot] if EVERYTHING else [])])
def test_the_scheme_of_control_variates_is_proved_for_every_one(make: Any) -> None:
    proof = scg.prove(program(make, "relax"), points=0)
    claims = [step for step in proof.steps if "for every differentiable c" in step.claim]
    assert [step.standing for step in claims] == ["proved"], proof


@dataclass(frozen=True)
class Scaled(scg.Cut):
    """The score, times a number."""

    name: ClassVar[str] = "scaled"

    factor: float = 0.8

    def refuses(self, facts: scg.NodeFacts) -> scg.Refusal | None:
        return None

    def gradient(self, site: scg.Site) -> dict[str, Tensor]:
        return {name: self.factor * part for name, part in site.score(site.value, site.credit).items()}


@dataclass(frozen=True)
class Greedy(scg.Scored):
    """A baseline that reads what its node influences: half of its own credit."""

    name: ClassVar[str] = "own-credit"

    def refuses(self, facts: scg.NodeFacts) -> scg.Refusal | None:
        return None

    def baseline(self, site: scg.Site) -> Tensor:
        return 0.5 * site.credit


@dataclass(frozen=True)
class Rough(scg.Through):
    """The value passes on attached, also where the cost is a step of it."""

    name: ClassVar[str] = "rough"

    def refuses(self, facts: scg.NodeFacts) -> scg.Refusal | None:
        return None


WRONG: list[tuple[Callable[[], scg.Graph], Any, str]] = [
    (graphs.toy, Scaled(), "b"),
    (graphs.chain, {"b1": Greedy(), "b2": "score"}, "b1"),
    (graphs.stepped, Rough(), "z"),
]
if EVERYTHING:
    WRONG += [
        (graphs.chain, {"b1": "score", "b2": Scaled()}, "b2"),
        (graphs.diamond, {"b": Scaled(), "z": "reparam"}, "b"),
        (graphs.batch, Greedy(), "b"),
        (graphs.hot, Scaled(), "k"),
    ]


@pytest.mark.parametrize(("make", "policy", "node"), WRONG)
def test_a_wrong_program_fails_with_numbers_that_runs_have(make: Any, policy: Any, node: str) -> None:
    wrong = program(make, policy)
    proof = scg.prove(wrong, points=1)
    assert proof.standing == "failed", proof
    assert not proof
    found = proof.counterexample
    assert found is not None
    assert found.node == node
    mean, error = averaged(wrong, found)
    assert abs(mean - found.emitted) < 5 * error + 1e-9, (mean, error, found)
    assert abs(exact(make, found) - found.exact) < 1e-6, found
    assert abs(found.emitted - found.exact) > 5 * error, "too few runs to tell the two numbers apart"
    assert node in str(proof)


def test_two_per_cent_are_seen() -> None:
    proof = scg.prove(program(graphs.toy, Scaled(0.98)), points=0)
    assert proof.counterexample is not None
    assert abs(proof.counterexample.emitted / proof.counterexample.exact - 0.98) < 1e-9


def averaged(wrong: Program, found: scg.Counterexample, draws: int = 160_000) -> tuple[float, float]:
    """Return the mean of the entry over runs, at the parameters of a counterexample, and its error."""
    held = {name: p.detach() for name, p in wrong.named_parameters()}
    live = dict(found.parameters)
    generator, noise = torch.Generator().manual_seed(1), {}
    for name, value in wrong.draw_noise(0, **wrong._ir.store.examples).items():
        draw = torch.randn if _kind(wrong, name) == "normal" else torch.rand
        noise[name] = draw((draws, *value.shape), generator=generator, dtype=value.dtype)

    def loss(live: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> Tensor:
        given = {**wrong._ir.store.examples, "noise": noise}
        out: Tensor = torch.func.functional_call(wrong, {**held, **live}, kwargs=given).loss
        return out

    gradient = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(live, noise)[found.parameter]
    entry = gradient[(slice(None), *found.index)]
    return float(entry.mean()), float(entry.std() / draws**0.5)


def _kind(wrong: Program, name: str) -> str:
    given = wrong._ir.store.examples
    groups = wrong._prepared_for(given).randomness.layouts(given, gradients=True).groups
    return next(str(spec.kind) for spec, names in groups if name in names)


def exact(make: Callable[[], scg.Graph], found: scg.Counterexample) -> float:
    """Return the exact gradient at the parameters of a counterexample; the step's by its own formula."""
    if make is graphs.stepped:
        m = found.parameters["m"]
        return 1.3 * float(torch.exp(-m * m / 2) / (2 * torch.pi) ** 0.5)
    g = make()
    with torch.no_grad():
        for name, parameter in g.named_parameters():
            parameter.copy_(found.parameters[name])
    return float(scg.exact_gradient(g, points=40)[found.parameter][found.index])


def test_a_program_is_left_as_it_was() -> None:
    made = program(graphs.toy, AVERAGE)
    made(seed=0).loss.backward()
    before = copy.deepcopy(made.state_dict())
    gradient = made.get_parameter("theta").grad
    assert gradient is not None
    kept = gradient.clone()
    state = torch.get_rng_state()
    scg.prove(made)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    assert torch.equal(gradient, kept)


def test_a_proof_prints_and_is_latex() -> None:
    proof = scg.prove(program(graphs.toy, "score"))
    assert str(proof).startswith("proved: ")
    assert "theta < 1000" in str(proof)
    assert r"\begin{enumerate}" in proof.latex()
    assert bool(proof)


def numpy_cost() -> scg.Graph:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("t", graphs.number(0.4)))
    g.cost("c", g.det("f", lambda b: torch.as_tensor((b.numpy() - 0.3) ** 2), b, differentiable=False))
    return g


def looked_at() -> scg.Graph:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("t", graphs.number(0.4)))
    g.cost("c", g.det("f", lambda b: b * 2 if float(b) > 0 else b - 1, b, differentiable=False))
    return g


@pytest.mark.parametrize("make", [numpy_cost, looked_at])
def test_what_cannot_be_read_is_assumed_and_named(make: Any) -> None:
    proof = scg.prove(program(make, "score"))
    assert proof.standing == "assumed", proof
    assert not proof
    assert any("'c'" in reason or "'f'" in reason for reason in proof.reasons), proof
    assert "scg.verify" in str(proof)


def test_a_graph_over_the_limit_is_assumed_and_says_so() -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("l", torch.zeros(16, dtype=torch.float64)))
    g.cost("c", lambda b: b.sum() ** 2, b)
    proof = scg.prove(scg.compile(g, "score"))
    assert proof.standing == "assumed"
    assert any("1024" in reason for reason in proof.reasons), proof


def test_bad_input_is_refused_by_name() -> None:
    with pytest.raises(scg.GraphError, match="takes a program"):
        scg.prove(graphs.toy())  # type: ignore[arg-type]
    g = scg.Graph()
    x = g.input("x")
    b = g.sample("b", Bernoulli, logits=g.param("t", graphs.number(0.4)) * x)
    g.cost("c", b * x)
    with pytest.raises(scg.GraphError, match="input 'x' is missing"):
        scg.prove(scg.compile(g, "score"))
    assert scg.prove(scg.compile(g, "score"), x=graphs.number(0.5)).standing == "proved"
    for points in (-1, 0.5, True):
        with pytest.raises(scg.GraphError, match="points="):
            scg.prove(program(graphs.toy, "score"), points=points)  # type: ignore[arg-type]
    made = program(graphs.toy, "score")
    made.get_parameter("theta").requires_grad_(False)
    with pytest.raises(scg.GraphError, match="no parameter of the graph requires a gradient"):
        scg.prove(made)


def test_a_captured_parameter_is_named() -> None:
    free = torch.nn.Parameter(graphs.number(0.4))
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("t", graphs.number(0.4)))
    g.cost("c", g.det("f", lambda b: b * free, b))
    proof = scg.prove(scg.compile(g, "score"))
    assert proof.standing == "assumed"
    assert "free" in str(proof)


def test_a_parameter_without_influence_has_gradient_0() -> None:
    g = scg.Graph()
    g.param("idle", graphs.number(0.1))
    z = g.sample("z", Normal, g.param("m", graphs.number(0.4)), 1.0)
    g.cost("c", z**2)
    assert scg.prove(scg.compile(g, "reparam")).standing == "proved"
