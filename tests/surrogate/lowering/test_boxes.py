"""Losses of higher order: the mean over all noise of each derivative is that of the exact objective."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Laplace, Normal

import scg
from scg.estimators.parts.memory import Memory
from tests.selection import EVERYTHING

ORDER = 3
X = torch.tensor([0.6, -1.1], dtype=torch.double)
WAY = torch.tensor([0.8, -0.5, 0.3], dtype=torch.double)
"""Derivatives are taken along one direction."""


def parameter(g: scg.Graph) -> scg.Node:
    return g.param("w", torch.tensor([0.4, -0.7, 0.2], dtype=torch.double))


def single() -> scg.Graph:
    """A cost of a bit and of the parameter."""
    g = scg.Graph()
    w = parameter(g)
    b = g.sample("b", Bernoulli, logits=g.det("h_b", lambda w: w[0] * w[1] + w[2], w))
    g.cost("c", lambda b, w: b * (1 - w[0]) ** 2 + (1 - b) * torch.exp(w[1]), b, w)
    return g


def chain() -> scg.Graph:
    """Three bits in a row, costs on the way, and a log-probability among them."""
    g = scg.Graph()
    w = parameter(g)
    a = g.sample("a", Bernoulli, logits=g.det("h_a", lambda w: w[0], w))
    b = g.sample("b", Bernoulli, logits=g.det("h_b", lambda a, w: a * w[1] - 0.3 * w[0], a, w))
    c = g.sample("c", Bernoulli, logits=g.det("h_c", lambda a, b, w: b * w[2] - a * w[0], a, b, w))
    g.cost("one", lambda a, w: (a - 0.3) ** 2 * w[2], a, w)
    g.cost("two", lambda b, c: b + 2 * c * b - c, b, c)
    g.cost("log", g.log_prob(c) * 0.4)
    return g


def coins(**options: Any) -> Callable[[], scg.Graph]:
    """Two layers in a plate, and a cost of each element."""

    def make() -> scg.Graph:
        g = scg.Graph()
        g.plate("batch", **options)
        x, w = g.input("x", plates="batch", example=X), parameter(g)
        a = g.sample("a", Bernoulli, logits=g.det("h_a", lambda x, w: x * w[0] + w[1], x, w))
        b = g.sample("b", Bernoulli, logits=g.det("h_b", lambda a, w: a * w[2] - w[0], a, w))
        g.cost("c", lambda a, b, w: (a - 0.4 * b) ** 2 * w[1] + b, a, b, w)
        return g

    return make


def joined(reduce: str) -> Callable[[], scg.Graph]:
    """A cost that joins the elements of a plate, beside one that does not."""

    def make() -> scg.Graph:
        g = scg.Graph()
        g.plate("batch", reduce=reduce)
        x, w = g.input("x", plates="batch", example=X), parameter(g)
        b = g.sample("b", Bernoulli, logits=g.det("h_b", lambda x, w: x * w[0] + w[1], x, w))
        g.cost("all", lambda b, w: (b.sum(-1) - 0.7) ** 2 * w[2], b, w, plates=())
        g.cost("each", (b - 0.2) ** 2)
        return g

    return make


def steps() -> scg.Graph:
    """Steps with a discount, of which each pays for itself and those before it."""
    g = scg.Graph()
    g.plate("time", reduce="sum", ordered=True, discount=0.7)
    x, w = g.input("x", plates="time", example=X), parameter(g)
    b = g.sample("b", Bernoulli, logits=g.det("h_b", lambda x, w: x * w[0] + w[1], x, w))
    g.cost("c", lambda b: torch.cumsum(b, -1) ** 2, b)
    return g


def pair() -> scg.Graph:
    """An event of two bits."""
    g = scg.Graph()
    w = parameter(g)
    b = g.sample("b", Bernoulli, logits=g.det("h_b", lambda w: torch.stack((w[0], w[1] * w[2])), w))
    g.cost("c", lambda b, w: (b[..., 0] - b[..., 1] * w[0]) ** 2 + b[..., 1], b, w)
    return g


def derivatives(loss: Tensor, w: Tensor, order: int = ORDER) -> Tensor:
    """The derivatives of a loss along one way, from the first on."""
    found = []
    for count in range(order):
        if not loss.requires_grad:
            found.append(torch.zeros((), dtype=torch.double))
            continue
        (gradient,) = torch.autograd.grad(loss, w, create_graph=count + 1 < order, materialize_grads=True)
        loss = (gradient * WAY).sum()
        found.append(loss.detach())
    return torch.stack(found)


def cells(program: scg.Program, given: dict[str, Tensor]) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """Noise in every cell between thresholds of bits, with the width of the cell.

    Thresholds are the probabilities of 0 given any values of the bits above.
    """
    noise = program.draw_noise(0, **given)
    places = [(name, index) for name, value in noise.items() for index in range(value.numel())]

    def set_to(numbers: tuple[float, ...]) -> dict[str, Tensor]:
        for (name, index), number in zip(places, numbers, strict=True):
            noise[name].view(-1)[index] = number
        return noise

    edges: list[set[float]] = [{0.0, 1.0} for _ in places]
    for bits in itertools.product((1e-12, 1 - 1e-12), repeat=len(places)):
        kept = program(noise=set_to(bits), **given).kept
        for (name, index), found in zip(places, edges, strict=True):
            found.add(float(torch.sigmoid(-kept[f"h_{name}"].expand(noise[name].shape).reshape(-1)[index])))
    ends = [sorted(found) for found in edges]
    for several in itertools.product(*(itertools.pairwise(found) for found in ends)):
        width = math.prod(high - low for low, high in several)
        yield width, set_to(tuple((low + high) / 2 for low, high in several))


def mean(make: Callable[[], scg.Graph], policy: Any, samples: int | None = None) -> tuple[Tensor, Tensor]:
    """The mean derivatives of a program, and those of the exact objective."""
    g = make()
    given, kept = dict(g.freeze().store.examples), [f"h_{name}" for name in g.freeze().samples]
    program = scg.compile(g, policy, order=ORDER, samples=samples, keep=kept).eval()
    for module in program.controls.modules():
        if isinstance(module, Memory):
            module.first, module.mass = torch.tensor(0.9).double(), torch.tensor(1.0).double()
    total = torch.zeros(ORDER, dtype=torch.double)
    for width, noise in cells(program, given):
        loss: Any = program(noise=noise, **given).loss
        total = total + width * derivatives(loss, program.get_parameter("w"))
    exact = make()
    return total, derivatives(scg.exact_objective(exact, **given), exact["w"].value)


GRAPHS = [
    single,
    chain,
    coins(),
    coins(reduce="sum"),
    joined("mean"),
    joined("sum"),
    steps,
    pair,
]
IDS = ["single", "chain", "mean", "sum", "joined-mean", "joined-sum", "steps", "pair"]

AVERAGE = scg.Score(baseline="moving-average")


@pytest.mark.parametrize("make", GRAPHS, ids=IDS)
@pytest.mark.parametrize("policy", ["score", AVERAGE, "enumerate"], ids=["plain", "average", "enumerate"])
def test_the_mean_of_every_derivative_is_exact(make: Callable[[], scg.Graph], policy: Any) -> None:
    found, wanted = mean(make, policy)
    assert torch.allclose(found, wanted, rtol=1e-8, atol=1e-10)


def line() -> scg.Graph:
    """Four bits in a row, of which the costs read the last ones alone."""
    g = scg.Graph()
    w = parameter(g)
    a = g.sample("a", Bernoulli, logits=g.det("h_a", lambda w: w[0] * w[1], w))
    b = g.sample("b", Bernoulli, logits=g.det("h_b", lambda a, w: a * w[1] - 0.3 * w[0], a, w))
    c = g.sample("c", Bernoulli, logits=g.det("h_c", lambda b, w: b * w[2] - 0.2, b, w))
    d = g.sample("d", Bernoulli, logits=g.det("h_d", lambda c, w: c * w[0] + 0.4 * w[2], c, w))
    g.cost("one", lambda d, w: (d - 0.3) ** 2 * w[1], d, w)
    g.cost("two", lambda b, c: b * c, b, c)
    return g


@pytest.mark.parametrize("scored", ["b", "c", "ac", "bd"])
@pytest.mark.parametrize("estimator", ["score", AVERAGE], ids=["plain", "average"])
def test_costs_need_not_have_the_branches_of_what_is_scored_above(scored: str, estimator: Any) -> None:
    found, wanted = mean(line, {"*": "enumerate", **dict.fromkeys(scored, estimator)})
    assert torch.allclose(found, wanted, rtol=1e-8)


def called(value: Any) -> str:
    return str(getattr(value, "__name__", value))


OTHERS = [scg.Score(baseline="leave-one-out"), scg.Score(baseline="self-critical"), "score"]
REPLICATED = [
    *((make, policy) for make in (single, pair) for policy in OTHERS),
    *((chain, policy) for policy in (OTHERS if EVERYTHING else OTHERS[1:2])),
]


@pytest.mark.parametrize(
    ("make", "policy"), REPLICATED, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_it_is_with_replicates(make: Callable[[], scg.Graph], policy: Any) -> None:
    found, wanted = mean(make, policy, samples=2)
    assert torch.allclose(found, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("make", [coins(), joined("mean"), steps], ids=["mean", "joined", "steps"])
def test_a_baseline_at_the_mode_is_right_in_plates(make: Callable[[], scg.Graph]) -> None:
    found, wanted = mean(make, scg.Score(baseline="self-critical"))
    assert torch.allclose(found, wanted, rtol=1e-8, atol=1e-10)


def test_elements_of_a_plate_are_compared() -> None:
    found, wanted = mean(coins(), scg.Score(baseline=scg.LeaveOneOut("batch")))
    assert torch.allclose(found, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("exact", ["a", "b", "c"])
@pytest.mark.parametrize("other", ["score", AVERAGE], ids=["plain", "average"])
def test_enumerated_nodes_stand_above_between_and_below(exact: str, other: Any) -> None:
    found, wanted = mean(chain, {"*": other, exact: "enumerate"})
    assert torch.allclose(found, wanted, rtol=1e-8, atol=1e-10)


def test_the_figures_of_a_bit() -> None:
    """E 3z, z of a Bernoulli with logit 0.3."""

    def make() -> scg.Graph:
        g = scg.Graph()
        g.cost("c", 3 * g.sample("b", Bernoulli, logits=g.param("w", torch.tensor(0.3).double())))
        return g

    program = scg.compile(make(), "score", order=2)
    w, p = program.get_parameter("w"), torch.tensor(0.3).double().sigmoid()
    total = torch.zeros(2, dtype=torch.double)
    for mass, number in ((1 - p, 1e-12), (p, 1 - 1e-12)):
        loss: Any = program(noise={"b": torch.tensor(number, dtype=torch.double)}).loss
        (first,) = torch.autograd.grad(loss, w, create_graph=True)
        (second,) = torch.autograd.grad(first, w)
        total = total + mass * torch.stack((first.detach(), second))
    assert torch.allclose(total, torch.tensor([0.733375, -0.109189]).double(), atol=5e-7)


@pytest.mark.parametrize("make", GRAPHS, ids=IDS)
def test_the_loss_has_the_value_of_the_objective(make: Callable[[], scg.Graph]) -> None:
    given = dict(make().freeze().store.examples)
    one, other = (scg.compile(make(), "score", order=order)(seed=3, **given) for order in (1, 2))
    assert torch.equal(one.loss.detach(), other.loss.detach())


@pytest.mark.parametrize("make", GRAPHS, ids=IDS)
@pytest.mark.parametrize("policy", ["score", AVERAGE], ids=["plain", "average"])
def test_the_first_derivative_is_that_of_order_1(make: Callable[[], scg.Graph], policy: Any) -> None:
    """In every run, where no node is above another; else what is above counts in the baseline alone."""
    given, found = dict(make().freeze().store.examples), []
    for order in (1, 2):
        program = scg.compile(make(), policy, order=order)
        for seed in range(2):
            program.zero_grad()
            program(seed=seed, **given).loss.backward()
        found.append(program.get_parameter("w").grad)
    assert torch.allclose(found[0], found[1], rtol=1e-10, atol=1e-14)


class TestReparameterised:
    @staticmethod
    def graph() -> scg.Graph:
        """A normal above a bit and below one, with costs of the second degree in what is integrated."""
        g = scg.Graph()
        w = parameter(g)
        b = g.sample("b", Bernoulli, logits=g.det("h", lambda w: w[0] * 2, w))
        z = g.sample(
            "z",
            Normal,
            g.det("m", lambda b, w: w[1] * b + w[0], b, w),
            g.det("s", lambda w: torch.exp(w[2]), w),
        )
        d = g.sample("d", Bernoulli, logits=g.det("k", lambda z, w: torch.tanh(z) * w[1], z, w))
        g.cost("c", lambda z, d, w: torch.sin(z) * w[0] + d * z, z, d, w)
        return g

    def test_the_mean_is_exact(self) -> None:
        """Over bits by enumeration, over the normal by quadrature."""
        g = self.graph()
        for name in ("b", "d"):
            g.det(f"log_{name}", lambda p: p * 1.0, g.log_prob(g[name]))
        policy = {"b": "score", "z": "reparam", "d": AVERAGE}
        program = scg.compile(g, policy, order=ORDER, keep=["log_b", "log_d"]).eval()
        points, weights = hermite(14)
        total, noise = torch.zeros(ORDER, dtype=torch.double), program.draw_noise(0)
        for x, weight in zip(points, weights, strict=True):
            for bits in itertools.product((1e-12, 1 - 1e-12), repeat=2):
                for name, number in zip(("b", "d"), bits, strict=True):
                    noise[name].fill_(number)
                noise["z"].fill_(x)
                estimate: Any = program(noise=noise)
                log = estimate.kept["log_b"] + estimate.kept["log_d"]
                total = total + weight * log.exp() * derivatives(estimate.loss, program.get_parameter("w"))
        w = torch.tensor([0.4, -0.7, 0.2], dtype=torch.double).requires_grad_()
        objective = torch.zeros((), dtype=torch.double)
        for bit in (0.0, 1.0):
            mass = torch.sigmoid(w[0] * 2) if bit else torch.sigmoid(-w[0] * 2)
            z = w[1] * bit + w[0] + torch.exp(w[2]) * points
            value = torch.sin(z) * w[0] + torch.sigmoid(torch.tanh(z) * w[1]) * z
            objective = objective + mass * (weights * value).sum()
        assert torch.allclose(total, derivatives(objective, w), rtol=1e-9)

    @pytest.mark.parametrize(
        "bent", [torch.relu, torch.abs, lambda z: z.clamp(-1, 1), lambda z: torch.relu(z - 2.0)]
    )
    def test_a_kink_is_refused(self, bent: Any) -> None:
        """The second derivative of E relu(z) is a density, and that of relu is 0."""
        g = scg.Graph()
        g.cost("c", g.det("v", bent, g.sample("z", Normal, g.param("w", 0.3), 1.0)))
        scg.compile(g, "reparam")
        with pytest.raises(
            scg.EstimatorError, match="reparam cannot estimate 'z' with order=2: the path z .* bends"
        ):
            scg.compile(g, "reparam", order=2)
        scg.compile(g, "score", order=2)

    def test_a_kink_further_down_is_refused_at_its_order(self) -> None:
        g = scg.Graph()
        z = g.sample("z", Normal, g.param("w", 0.3), 1.0)
        g.cost("c", g.det("v", lambda z: torch.where(z > 0, z**2, z**3), z))
        scg.compile(g, "reparam", order=2)
        with pytest.raises(scg.EstimatorError, match="derivative 2 jumps"):
            scg.compile(g, "reparam", order=3)

    def test_what_is_declared_is_believed(self) -> None:
        g = scg.Graph()
        z = g.sample("z", Normal, g.param("w", 0.3), 1.0)
        g.cost("c", g.det("v", torch.nn.Softplus(), z, differentiable=True))
        scg.compile(g, "reparam", order=4)


def hermite(count: int) -> tuple[Tensor, Tensor]:
    """The points and weights at which polynomials of a standard normal are averaged exactly."""
    off = torch.arange(1, count, dtype=torch.double).sqrt().diag_embed(1)
    points, vectors = torch.linalg.eigh(off + off.mT)
    return points, vectors[0] ** 2


def test_a_density_with_a_kink_is_refused() -> None:
    g = scg.Graph()
    g.cost("c", g.sample("z", Laplace, g.param("w", 0.3), 1.0) ** 2)
    scg.compile(g, "reparam", order=2)
    with pytest.raises(scg.EstimatorError, match="the density of a Laplace bends in 'loc'"):
        scg.compile(g, "score", order=2)


@pytest.mark.parametrize(
    "policy",
    [
        "disarm",
        "local",
        "rebar",
        "relax",
        scg.Score(normalise=True),
        scg.Score(baseline=torch.nn.Linear(1, 1), context="w"),
        scg.Parts({"c": "score"}),
    ],
    ids=str,
)
def test_what_is_right_to_first_order_is_refused_with_what_serves(policy: Any) -> None:
    g = scg.Graph()
    g.cost("c", g.sample("b", Bernoulli, logits=g.param("w", torch.zeros(1)[0])) ** 2)
    with pytest.raises(
        scg.EstimatorError, match=r"cannot estimate 'b' with order=2: .*(use|leave it out|one estimator)"
    ):
        scg.compile(g, policy, order=2)


def test_automatic_choice_takes_what_is_right_to_the_order() -> None:
    g = scg.Graph()
    w = g.param("w", torch.zeros(8))
    b = g.sample("b", Bernoulli, logits=w)
    z = g.sample("z", Normal, b, 1.0)
    g.cost("c", lambda b: (b.sum(-1) - 1.0) ** 2, b)
    g.cost("d", g.det("v", torch.relu, z).sum(-1))
    names = [{node: how.name for node, how in scg.compile(g, order=order).policy.items()} for order in (1, 2)]
    assert names == [{"b": "rebar", "z": "reparam"}, {"b": "score", "z": "score"}]


@pytest.mark.parametrize("order", [0, -1, 1.0, True, None])
def test_an_order_is_a_whole_number(order: Any) -> None:
    with pytest.raises(scg.GraphError, match="give a whole number"):
        scg.compile(single(), "score", order=order)


def test_choices_are_boxed_too() -> None:
    g = scg.Graph()
    w = parameter(g)
    k = g.sample("k", Categorical, logits=g.det("h", lambda w: torch.stack((w[0], w[1] * w[2], w[2])), w))
    g.cost("c", lambda k, w: (k - 0.3) ** 2 * w[0], k, w)
    program = scg.compile(g, "score", order=ORDER)
    logits = torch.tensor([0.4, -0.14, 0.2]).double()
    total = torch.zeros(ORDER, dtype=torch.double)
    for index, mass in enumerate(logits.softmax(-1)):
        noise = torch.full((3,), 1e-9, dtype=torch.double).index_fill(0, torch.tensor(index), 1 - 1e-9)
        loss: Any = program(noise={"k": noise}).loss
        total = total + mass * derivatives(loss, program.get_parameter("w"))
    wanted = derivatives(scg.exact_objective(g), g["w"].value)
    assert torch.allclose(total, wanted, rtol=1e-9)
