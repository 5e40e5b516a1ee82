"""What every estimator owes besides the gradient: finite extremes, linearity, the same values, no leaks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, OneHotCategorical

import scg
from scg.oracle import exact_gradient
from tests.contract import shapes
from tests.contract.instances import INSTANCES, Instance, Net
from tests.contract.judge import gap, warmed
from tests.contract.shapes import Kinds
from tests.contract.test_alone import facts
from tests.contract.test_pairs import ENDS, FEW, End, Make, policy
from tests.selection import by_turns
from tests.support.integrate import integrated_gradient

FINITE = [end.instance for end in ENDS if end.law == "bernoulli"]
finite = pytest.mark.parametrize("instance", FINITE, ids=str)
unread = pytest.mark.parametrize(
    "instance",
    [
        instance
        for instance in INSTANCES.values()
        if instance.name != "score+module"
        and instance.claims(facts("categorical-logits", instance.samples))
        and instance.claims(facts("onehot-logits", instance.samples))
    ],
    ids=str,
)
"""Those at rows of logits; without the network, which wants a scalar to read."""


def compiled(shape: shapes.Shape, end: End, samples: int | None = None) -> scg.Program:
    chosen = policy(shape, end.instance, end.instance, sibling=False)
    return scg.compile(shape.graph, chosen, samples=samples or end.instance.samples)


def gradient(graph: scg.Graph, program: scg.Program, seed: int) -> dict[str, Tensor]:
    for parameter in graph.parameters():
        parameter.grad = None
    program(noise=seed).loss.backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in graph.named_parameters()}


def weighed(value: Tensor) -> Tensor:
    several = (value.double() - 0.3) ** 2 * torch.arange(1.0, 1.0 + value.numel(), dtype=torch.float64).view(
        value.shape
    )
    return several.sum()


def lone(dist: type, **parameters: Tensor) -> scg.Graph:
    """eta -> (v) -> cost, for one distribution parameter eta."""
    g = scg.Graph()
    v = g.sample("v", dist, **{key: g.param(key, value) for key, value in parameters.items()})
    g.cost("cost", weighed, v)
    return g


EXTREME = [
    pytest.param(dist, logits, id=f"{dist.__name__}-{logits[0]:.0f}")
    for dist in (Categorical, OneHotCategorical)
    for logits in ([40.0, -40.0, 0.0], [-40.0, 40.0, 39.0])
]


@pytest.mark.parametrize("logits", [40.0, -40.0])
@finite
def test_extreme_logits_are_exact(instance: Instance, logits: float) -> None:
    g = lone(Bernoulli, logits=torch.tensor(logits).double())
    program = scg.compile(g, instance.make("logits"), samples=instance.samples)
    if instance.exact:
        found = integrated_gradient(g, warmed(program), samples=instance.samples, mirrored=instance.mirrored)
        assert found["logits"].isfinite() and gap(found, exact_gradient(g)) < 1e-12
    else:
        assert abs(float(gradient(g, program, 0)["logits"])) < 1e-9


@pytest.mark.parametrize(("dist", "logits"), EXTREME)
@unread
def test_extreme_rows_of_logits_are_finite_and_right(
    instance: Instance, dist: type, logits: list[float]
) -> None:
    """An outcome that never happens has no gradient; where one is certain, none has."""
    g = lone(dist, logits=torch.tensor(logits).double())
    program = scg.compile(g, instance.make(None), samples=instance.samples)
    for seed in range(5):
        found = gradient(g, program, seed)["logits"]
        assert found.isfinite().all() and abs(float(found[logits.index(-40.0)])) < 1e-12
        if instance.does_sum(dist.__name__):
            assert torch.allclose(found, exact_gradient(g)["logits"], atol=1e-12)
        if 0.0 in logits:
            assert float(found.abs().max()) < 1e-9


@pytest.mark.parametrize("probs", [0.0, 1.0])
@finite
def test_certain_outcomes_have_a_finite_zero_or_the_exact_value(instance: Instance, probs: float) -> None:
    g = lone(Bernoulli, probs=torch.tensor(probs).double())
    program = scg.compile(g, instance.make("probs"), samples=instance.samples)
    found = gradient(g, program, 0)["probs"]
    exact = exact_gradient(g)["probs"]
    assert exact == pytest.approx(0.4)
    assert float(found) == pytest.approx(float(exact) if instance.does_sum("Bernoulli") else 0.0, abs=1e-12)


@pytest.mark.parametrize("probs", [(0.0, 0.4, 0.6), (1.0, 0.0, 0.0)], ids=str)
@unread
def test_impossible_outcomes_stay_finite(instance: Instance, probs: tuple[float, ...]) -> None:
    g = lone(OneHotCategorical, probs=torch.tensor(probs).double())
    program = scg.compile(g, instance.make(None), samples=instance.samples)
    for seed in range(10):
        found = gradient(g, program, seed)["probs"]
        assert found.isfinite().all()
        if instance.does_sum("OneHotCategorical"):
            assert torch.allclose(found, exact_gradient(g)["probs"], atol=1e-12)


def scaled(factor: float, kinds: Kinds) -> shapes.Shape:
    draft = shapes.Draft(kinds)
    a, b = draft.param("a", 0.3), draft.param("b", -0.2)
    x = draft.upper("x", a)
    y = draft.lower("y", b + 0.7 * x)
    draft.g.cost("cost", lambda x, y: factor * shapes.low(x, y), x, y)
    return draft.shape()


LINEAR = [end for end in ENDS if end.instance.name != "score+module" and end.instance.rank is None]
"""Without networks, which do not grow with the cost as they are."""
SCALED = ("score+normalise", "nvil")
"""What divides by a deviation of the past."""


@pytest.mark.parametrize("end", LINEAR, ids=str)
def test_ten_times_the_cost_is_ten_times_the_gradient(end: End) -> None:
    once, tenfold = (scaled(factor, Kinds(end.law, end.law)) for factor in (1.0, 10.0))
    programs = [compiled(shape, end) for shape in (once, tenfold)]
    for seed in range(4):
        one, ten = (
            gradient(shape.graph, program, seed)
            for shape, program in zip((once, tenfold), programs, strict=True)
        )
        if end.instance.name in SCALED and seed:
            continue
        assert gap({name: 10 * part for name, part in one.items()}, ten) < 1e-9


@pytest.mark.parametrize(
    ("make", "samples"),
    by_turns([shapes.fork, shapes.aligned_and_aggregate, shapes.diamond, shapes.ordered], [None, 3]),
)
def test_swapping_estimators_changes_no_value(make: Make, samples: int | None) -> None:
    seen = {}
    for end in ENDS:
        kinds = Kinds(end.law, end.law)
        if end.instance.samples is not None and samples is None:
            continue
        program = compiled(make(kinds), end, samples)
        noise = program.draw_noise(7)
        one = program(noise=noise)
        first = seen.setdefault(end.law, one)
        assert one.loss.equal(first.loss), end
        for found, expected in ((one.costs, first.costs), (one.samples, first.samples)):
            assert found.keys() == expected.keys()
            assert all(found[name].equal(expected[name]) for name in expected), end
        with torch.no_grad():
            bare = program(noise=noise)
        assert all(bare.samples[name].equal(first.samples[name]) for name in first.samples), end
    assert len(seen) == len({end.law for end in ENDS})


@pytest.mark.parametrize("make", [shapes.chain, shapes.fork, shapes.join, shapes.diamond, shapes.ordered])
def test_enumerating_everything_has_no_variance(make: Make) -> None:
    shape = make(Kinds("bernoulli", "bernoulli"))
    program = scg.compile(shape.graph, "enumerate")
    first, expected = gradient(shape.graph, program, 0), exact_gradient(shape.graph)
    assert gap(first, expected) < 1e-12
    assert all(gap(gradient(shape.graph, program, seed), first) < 1e-14 for seed in range(1, 8))


def test_local_enumeration_of_the_last_node_has_no_variance_of_its_own() -> None:
    g = lone(Bernoulli, logits=torch.tensor([0.3, -0.8]).double())
    program = scg.compile(g, scg.Enumerate(local=True))
    assert all(gap(gradient(g, program, seed), exact_gradient(g)) < 1e-12 for seed in range(8))


@pytest.mark.parametrize("end", [end for end in FEW if end.instance.samples is None], ids=str)
def test_gradients_stay_within_what_a_node_influences(end: End) -> None:
    """In kept plates, the gradient of one element does not depend on the noise of another."""
    shape = shapes.plated(Kinds(end.law, end.law))
    program = warmed(compiled(shape, end))
    parameter = dict(shape.graph.named_parameters())["a"]

    def first(noise: dict[str, Tensor]) -> Tensor:
        parameter.grad = None
        program(noise=noise).loss.backward()
        assert parameter.grad is not None
        return parameter.grad[0]

    for seed in range(6):
        noise, other = program.draw_noise(seed), program.draw_noise(seed + 100)
        mingled = {name: torch.stack((noise[name][0], other[name][1])) for name in noise}
        assert first(noise) == pytest.approx(float(first(mingled)), abs=1e-14)


def memory(program: scg.Program) -> list[Tensor]:
    return [buffer.clone() for buffer in program.controls.buffers()]


REMEMBERING = [
    name for name, item in INSTANCES.items() if name in ("score+moving-average", "score+normalise", "nvil")
]


@pytest.mark.parametrize("name", REMEMBERING)
def test_memory_changes_after_use_and_in_training_only(name: str) -> None:
    shape = shapes.chain(Kinds("bernoulli", "bernoulli"))
    end = End(INSTANCES[name], "bernoulli")
    program, plain = compiled(shape, end), scg.compile(shape.graph, "score")
    empty = memory(program)
    program.eval()
    gradient(shape.graph, program, 0)
    assert all(map(torch.equal, memory(program), empty))
    program.train()
    with torch.no_grad():
        program(noise=0)
    assert all(map(torch.equal, memory(program), empty))
    # The first estimate is made before anything is remembered.
    expected = gradient(shape.graph, plain, 1)
    assert gap(gradient(shape.graph, program, 1), expected) < 1e-14
    assert not any(map(torch.equal, memory(program), empty))
    if name == "score+moving-average":
        assert gap(gradient(shape.graph, program, 1), expected) > 1e-6


def test_the_past_is_remembered_once_beside_a_network() -> None:
    g = scg.Graph()
    theta = g.param("theta", torch.tensor(0.3).double())
    g.cost("cost", 2.0 + g.sample("b", Bernoulli, logits=theta))
    several = scg.MovingAverage() + scg.Net(Net(), context="theta"), scg.Net(Net(), context="theta")
    program, alone = (scg.compile(g, scg.Score(baseline=baseline)) for baseline in several)
    # The first estimate is made before anything is remembered.
    assert gap(gradient(g, program, 0), gradient(g, alone, 0)) < 1e-14
    for seed in range(1, 4):
        assert float(program.controls["b"].mass) == pytest.approx(1 - 0.9**seed)
        gradient(g, program, seed)


def test_the_average_of_the_past_is_subtracted_as_it_was() -> None:
    """By hand: (f - b) dlog p, where b is the weighted mean of what came before."""
    g = scg.Graph()
    theta = g.param("theta", torch.tensor(0.3).double())
    b = g.sample("b", Bernoulli, logits=theta)
    g.cost("cost", 2.0 + b)
    program = scg.compile(g, scg.Score(baseline="moving-average"))
    chance, past, weight = 1 / (1 + math.exp(-0.3)), 0.0, 0.0
    for seed in range(6):
        program.train()
        gradient(g, program, seed)
        cost = float(program.eval()(noise=seed).loss.detach())
        past, weight = 0.9 * past + 0.1 * cost, 0.9 * weight + 0.1
        drawn = float(program(noise=50 + seed).samples["b"])
        expected = (2.0 + drawn - past / weight) * (drawn - chance)
        assert float(gradient(g, program, 50 + seed)["theta"]) == pytest.approx(expected, abs=1e-6)


def test_normalising_divides_by_the_deviation_of_the_past() -> None:
    """Where the credit of the past deviates by more than 1, one node's gradient is scaled, and no more."""
    g = scg.Graph()
    theta = g.param("theta", torch.tensor(0.3).double())
    b = g.sample("b", Bernoulli, logits=theta)
    g.cost("cost", 8.0 * b)
    program = warmed(scg.compile(g, scg.Score(normalise=True)))
    program.train()
    for seed in range(10):
        program(noise=seed)
    program.eval()
    deviation = float(program.controls["b"].deviation())
    past = torch.tensor([float(program(noise=seed).loss.detach()) for seed in (*range(3), *range(10))])
    weights = 0.9 ** torch.arange(len(past)).flip(0)
    mean = (weights * past).sum() / weights.sum()
    variance = (weights * (past - mean) ** 2).sum() / weights.sum()
    assert deviation > 1.5 and deviation == pytest.approx(float(variance.sqrt()), abs=1e-5)
    found = integrated_gradient(g, program)["theta"] * deviation
    assert float(found) == pytest.approx(float(exact_gradient(g)["theta"]), abs=1e-6)
