"""Programs whose replicates draw noise together: what is right, what is refused, and what it is worth."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal, Poisson

import scg
from scg.errors import EstimatorError, PolicyError
from tests.support.integrate import worlds


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def chain() -> scg.Graph:
    """Two bits, the second below the first, and a cost that neither can be averaged out of."""
    g = scg.Graph()
    theta, phi = g.param("theta", torch.tensor(0.4)), g.param("phi", torch.tensor(-0.7))
    a = g.sample("a", Bernoulli, logits=theta)
    b = g.sample("b", Bernoulli, logits=phi + 1.5 * a)
    g.cost("loss", lambda a, b: (a + 2 * b - 0.6) ** 2 + a * b, a, b)
    return g


def turned(world: Mapping[str, Tensor], names: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: 1 - value if name in names else value for name, value in world.items()}


def expected(
    g: scg.Graph, policy: Any, coupled: tuple[str, ...], samples: int, **options: Any
) -> dict[str, Tensor]:
    """Return the mean gradient over all noise, exactly; that of ``coupled`` nodes comes in pairs."""
    program = scg.compile(g, policy, samples=samples, noise=dict.fromkeys(coupled, "antithetic"), **options)
    ir = g.freeze()
    every = list(worlds(ir, {}, 2, mirrored=True))
    own = {tuple(float(v) for n, v in world.items() if n not in coupled): 0.0 for _, world in every}
    for weight, world in every:
        own[tuple(float(v) for n, v in world.items() if n not in coupled)] += weight
    total = {name: torch.zeros_like(p) for name, p in g.named_parameters()}
    free = [name for name in ir.samples if name not in coupled]
    for firsts in itertools.product(every, repeat=samples // 2):
        for others in itertools.product(own.items(), repeat=samples // 2):
            weight, rows = 1.0, []
            partners = []
            for (mass, world), (values, share) in zip(firsts, others, strict=True):
                weight *= mass * share
                rows.append(world)
                again = dict(zip(free, map(torch.tensor, values), strict=True))
                partners.append({**turned(world, coupled), **again})
            noise = {name: torch.stack([row[name] for row in rows + partners]) for name in ir.samples}
            for p in g.parameters():
                p.grad = None
            program(noise=noise).loss.backward()
            for name, p in g.named_parameters():
                total[name] += weight * (torch.zeros_like(p) if p.grad is None else p.grad)
    return total


LEFT_OUT = scg.Score(baseline="leave-one-out")
PLAIN = ["score", "disarm", "local", "enumerate"]


@pytest.mark.parametrize("name", PLAIN)
def test_estimators_that_compare_nothing_are_exact_under_antithetic_noise(name: str) -> None:
    g = chain()
    found, exact = expected(g, name, ("a", "b"), 2), scg.exact_gradient(g)
    assert all(torch.allclose(found[key], exact[key], rtol=0, atol=1e-12) for key in exact)


@pytest.mark.parametrize("coupled", [("a",), ("b",)])
def test_leave_one_out_is_exact_above_and_below_a_node_that_is_coupled(coupled: tuple[str, ...]) -> None:
    g = chain()
    policy = {name: "score" if name in coupled else LEFT_OUT for name in ("a", "b")}
    found, exact = expected(g, policy, coupled, 2), scg.exact_gradient(g)
    assert all(torch.allclose(found[key], exact[key], rtol=0, atol=1e-12) for key in exact)


def test_leave_one_out_leaves_out_pairs_and_is_exact() -> None:
    g = chain()
    found, exact = expected(g, LEFT_OUT, ("a", "b"), 4), scg.exact_gradient(g)
    assert all(torch.allclose(found[key], exact[key], rtol=0, atol=1e-12) for key in exact)


def test_leave_one_out_that_keeps_partners_is_biased(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the exact tests are able to see."""

    def kept(values: Tensor, dim: int = 0, *, pairs: bool = False) -> Tensor:
        return (values.sum(dim, keepdim=True) - values) / (values.shape[dim] - 1)

    monkeypatch.setattr("scg.estimators.parts.baselines.left_out", kept)
    g = chain()
    found, exact = expected(g, LEFT_OUT, ("a", "b"), 4), scg.exact_gradient(g)
    assert float((found["theta"] - exact["theta"]).abs()) > 0.01


def test_control_variates_are_unbiased_under_coupled_noise() -> None:
    g = scg.Graph()
    a = g.sample("a", Bernoulli, logits=g.param("theta", torch.tensor([0.4, -0.3])))
    g.cost("loss", lambda a: (a.sum(-1) - 0.45) ** 2, a)
    for noise in ("antithetic", "sobol"):
        for policy in ("rebar", "relax"):
            program = scg.compile(g, policy, samples=4, noise=noise)
            assert scg.verify(program, resolution=0.05).verdict == "unbiased"


def test_verify_sees_what_coupled_noise_makes_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    g = chain()
    program = scg.compile(g, LEFT_OUT, samples=4, noise="antithetic")
    assert scg.verify(program, resolution=0.05).verdict == "unbiased"
    monkeypatch.setattr(
        "scg.estimators.parts.baselines.left_out",
        lambda values, dim, **_: (values.sum(dim, keepdim=True) - values) / (values.shape[dim] - 1),
    )
    program = scg.compile(g, LEFT_OUT, samples=4, noise="antithetic")
    assert scg.verify(program, resolution=0.05).verdict == "biased"


def smooth() -> scg.Graph:
    g = scg.Graph()
    mean, log = g.param("mean", torch.linspace(-0.5, 0.5, 10)), g.param("log", torch.zeros(10))
    z = g.sample("z", Normal, mean, log.exp())
    g.cost(
        "loss", lambda z: torch.sin(z).sum(-1) + torch.exp(z.sum(-1) / 10) + (z * z.roll(1, -1)).sum(-1), z
    )
    return g


def spread(g: scg.Graph, noise: str | None, samples: int, runs: int = 100) -> tuple[Tensor, Tensor]:
    """Return the mean gradient of runs, and its variance summed over entries."""
    program = scg.compile(g, "reparam", samples=samples, noise=noise)
    rows = []
    for seed in range(runs):
        for p in g.parameters():
            p.grad = None
        program(seed=seed).loss.backward()
        rows.append(torch.cat([p.grad for p in g.parameters() if p.grad is not None]))
    several = torch.stack(rows)
    return several.mean(0), several.var(0).sum()


def test_a_sequence_lowers_the_variance_of_a_smooth_problem_tenfold() -> None:
    g = smooth()
    mean, plain = spread(g, None, 256)
    found, variance = spread(g, "sobol", 256)
    assert float(plain / variance) > 20
    error = math.sqrt(float(plain) / 100)
    assert float((found - mean).norm()) < 4 * error


def test_pairs_make_odd_parts_exact() -> None:
    g = scg.Graph()
    z = g.sample("z", Normal, g.param("mean", 0.3), 1.0)
    g.cost("loss", z**2)
    program = scg.compile(g, "reparam", samples=2, noise="antithetic")
    program(seed=4).loss.backward()
    assert g["mean"].value.grad == pytest.approx(0.6, abs=1e-14)


@pytest.mark.parametrize("noise", ["antithetic", "sobol"])
@pytest.mark.parametrize("law", [Normal, Bernoulli])
def test_noise_is_what_is_drawn_and_gives_the_same_run_again(noise: str, law: Any) -> None:
    g = scg.Graph()
    x = g.input("x", torch.zeros(3), plates="batch")
    theta = g.param("theta", torch.zeros(2))
    at = x[..., None] + theta
    z = g.sample("z", law, at, 1.0) if law is Normal else g.sample("z", law, logits=at)
    g.cost("loss", lambda z: z.sum(-1) ** 2, z)
    program = scg.compile(g, "score", samples=4, noise=noise)
    given = program.draw_noise(7, x=torch.zeros(5))
    assert given["z"].shape == (4, 5, 2)
    drawn = program(seed=7, x=torch.zeros(5))
    assert program(noise=given, x=torch.zeros(5)).loss == drawn.loss
    assert program(seed=7, x=torch.zeros(5)).loss == drawn.loss
    turned = -given["z"][:2] if law is Normal else 1 - given["z"][:2]
    assert torch.equal(given["z"][2:], turned) == (noise == "antithetic")
    assert not torch.equal(given["z"][:, 0], given["z"][:, 1])
    other = scg.compile(g, "score", samples=4).draw_noise(7, x=torch.zeros(5))
    assert torch.equal(other["z"][:2], given["z"][:2]) == (noise == "antithetic")


@pytest.mark.parametrize("noise", ["antithetic", "sobol"])
def test_torch_compile_draws_the_same(noise: str) -> None:
    program = scg.compile(smooth(), "reparam", samples=8, noise=noise)
    whole = torch.compile(program, fullgraph=True, backend="aot_eager")
    for seed in (3, 4):
        assert torch.allclose(whole(seed=seed).loss, program(seed=seed).loss, rtol=1e-12)
    assert whole().loss != whole().loss


@pytest.mark.parametrize("noise", ["antithetic", "sobol"])
def test_without_a_seed_the_generator_of_torch_decides(noise: str) -> None:
    program = scg.compile(smooth(), "reparam", samples=8, noise=noise)
    torch.manual_seed(1)
    one, other = program().loss, program().loss
    torch.manual_seed(1)
    assert one != other and one == program().loss


def test_noise_is_given_by_node() -> None:
    g = chain()
    program = scg.compile(g, "score", samples=4, noise={"*": "independent", "b": "antithetic"})
    drawn = program.draw_noise(0)
    assert torch.equal(drawn["b"][2:], 1 - drawn["b"][:2]) and not torch.equal(
        drawn["a"][2:], 1 - drawn["a"][:2]
    )
    told = program.explain().splitlines()
    assert told[told.index("    noise: replicates in antithetic pairs") - 1].startswith("b:")


def test_automatic_choice_compares_no_replicates_that_are_coupled() -> None:
    g = scg.Graph()
    z = g.sample("z", Normal, g.param("mean", 0.3), 1.0)
    g.cost("loss", (z > 0).double())
    for samples, noise, memory in ((4, "antithetic", False), (2, "antithetic", True), (4, "sobol", True)):
        found = scg.compile(g, samples=samples, noise=noise).policy["z"]
        assert isinstance(found, scg.Score) and found.kept.remembers == memory


def poisson() -> scg.Graph:
    g = scg.Graph()
    g.cost("loss", g.sample("n", Poisson, g.param("rate", 2.0)))
    return g


WRONG: list[tuple[Callable[[], scg.Graph], dict[str, Any], type[Exception], str]] = [
    (chain, {"noise": "sobol"}, PolicyError, "compile with samples=2 or more"),
    (chain, {"noise": "antithetic", "samples": 3}, PolicyError, "'a': antithetic .* samples=3 is odd"),
    (
        chain,
        {"noise": "halton", "samples": 4},
        PolicyError,
        "'antithetic', 'sobol', 'independent', not 'halton'",
    ),
    (chain, {"noise": {"c": "sobol"}, "samples": 4}, PolicyError, "key 'c' .* nodes are a, b"),
    (chain, {"noise": 3, "samples": 4}, PolicyError, "not a int"),
    (poisson, {"noise": "sobol", "samples": 4}, EstimatorError, '\'n\' .* a Poisson .* "n" as "independent"'),
    (
        chain,
        {"noise": "sobol", "samples": 4, "policy": LEFT_OUT},
        EstimatorError,
        "own noise is coupled .*moving-average",
    ),
    (
        chain,
        {"noise": "antithetic", "samples": 2, "policy": LEFT_OUT},
        EstimatorError,
        "there is no other pair: compile with samples=4",
    ),
]


@pytest.mark.parametrize(("made", "options", "kind", "told"), WRONG)
def test_what_cannot_be_coupled_is_refused(
    made: Callable[[], scg.Graph], options: dict[str, Any], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        scg.compile(made(), **options)


def test_more_numbers_than_a_sequence_has_are_refused() -> None:
    g = scg.Graph()
    z = g.sample("z", Normal, g.param("mean", torch.zeros(21202)), 1.0)
    g.cost("loss", (z**2).sum(-1))
    with pytest.raises(EstimatorError, match="z draw 21202 numbers .* 21201 dimensions"):
        scg.compile(g, samples=2, noise="sobol")


def test_no_proof_and_no_variance_is_of_independent_noise() -> None:
    g = chain()
    program = scg.compile(g, "score", samples=2, noise="antithetic")
    assert scg.prove(program).standing == "assumed"
    with pytest.raises(scg.UnreadableError, match="draw noise together"):
        scg.symbolic.variance(program)
