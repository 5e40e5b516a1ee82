"""Programs whose law, operation, network or draw is not what the example made of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import (
    AffineTransform,
    Bernoulli,
    Binomial,
    Categorical,
    Distribution,
    Laplace,
    Normal,
    TransformedDistribution,
    constraints,
)
from torch.func import functional_call

import scg
from tests.truth.building import Fn, Module, double, value
from tests.truth.exact import normals
from tests.truth.judge import Case, Inputs
from tests.truth.table import SCORES, lookup

LOW, HIGH = 2.0, 6.0
"""A number in the example, and the one that the program is run with."""
ONLINE = double(LOW)


class Shifted(Distribution):
    """A Normal with an argument that ``arg_constraints`` does not name."""

    arg_constraints = {"loc": constraints.real}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Tensor, shift: Any = 0.0, validate_args: bool | None = None) -> None:
        self.loc, self.shift = loc, shift
        super().__init__(loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Shifted:
        return Shifted(self.loc.expand(batch_shape), self.shift)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.loc + self.shift + torch.randn(self._extended_shape(sample_shape), dtype=self.loc.dtype)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.rsample(sample_shape).detach()

    def log_prob(self, value: Tensor) -> Tensor:
        return Normal(self.loc + self.shift, 1.0).log_prob(value)


def counted(dist: Fn, policy: Any = "auto") -> Case:
    """A Binomial of p whose count is an input: ``dist(n, p)``."""

    def make() -> scg.Graph:
        g = scg.Graph()
        n = g.input("n", example=double(LOW))
        g.cost("c", g.sample("k", dist, n, g.det("p", torch.sigmoid, g.param("l", double(0.4)))))
        return g

    return Case(make, lambda g: HIGH * value(g, "l").sigmoid(), lambda g: {"n": double(HIGH)}, policy)


def sampled_count(policy: Any = "auto") -> Case:
    """A Binomial whose count is drawn."""

    def make() -> scg.Graph:
        g = scg.Graph()
        k = g.sample("k", Categorical, logits=g.param("w", double([0.1, 0.5, 1.5])))
        p = g.det("p", torch.sigmoid, g.param("l", double(0.4)))
        g.cost("c", g.sample("m", Binomial, total_count=3 * k, probs=p))
        return g

    def objective(g: scg.Graph) -> Tensor:
        return 3 * value(g, "w").softmax(-1) @ double([0.0, 1.0, 2.0]) * value(g, "l").sigmoid()

    return Case(make, objective, policy=policy)


def switched(dist: Fn, squared: Fn, example: float, run: float, policy: Any = "auto") -> Case:
    """A factory ``dist(s, n)`` that makes another law at another n; ``squared(s)`` is then E z**2."""

    def make() -> scg.Graph:
        g = scg.Graph()
        n = g.input("n", example=double(example))
        g.cost("c", g.sample("z", dist, g.param("s", double(0.8)), n) ** 2)
        return g

    return Case(make, lambda g: squared(value(g, "s")), lambda g: {"n": double(run)}, policy)


def annealed(policy: Any = "auto") -> Case:
    """A number that a closure reads, in a transform, which is another after compiling."""
    state = {"scale": 1.0}

    def make() -> scg.Graph:
        g = scg.Graph()

        def dist(mu: Tensor) -> Distribution:
            return TransformedDistribution(Normal(mu, 0.5), [AffineTransform(0.3, state["scale"])])

        g.cost("c", g.sample("z", dist, g.param("mu", double(0.7))) ** 2)
        return g

    def wake(g: scg.Graph) -> Inputs:
        state["scale"] = 2.5
        return {}

    def objective(g: scg.Graph) -> Tensor:
        return (0.3 + 2.5 * value(g, "mu")) ** 2 + (2.5 * 0.5) ** 2

    return Case(make, objective, wake, policy)


def operation(fn: Fn, example: float = 0.0, *, node: bool = False, policy: Any = "auto") -> Case:
    """An operation on a Normal, as a function or on the node itself, that is run elsewhere than it is shown."""

    def make() -> scg.Graph:
        g = scg.Graph()
        at = g.input("at", example=double(example))
        z = g.sample("z", Normal, loc=at + g.param("mu", double(0.3)), scale=0.4)
        g.cost("c", fn(z) if node else g.det("h", fn, z))
        return g

    def objective(g: scg.Graph) -> Tensor:
        values, weights = normals(value(g, "mu")[None], double(0.4))
        return weights @ fn(values[:, 0])

    return Case(make, objective, lambda g: {"at": double(0.0)}, policy)


def captured_control(policy: Fn, layer: type[nn.Module] = nn.Linear) -> Case:
    """A module that a closure captures, and that is given as a network of the estimator as well."""
    torch.manual_seed(3)
    net = layer(1, 1).double()

    def make() -> scg.Graph:
        g = scg.Graph()
        z = g.sample("z", Normal, loc=g.param("mu", double([0.5])), scale=0.6)
        g.cost("c", lambda h: (h - 0.5) ** 2, g.det("h", lambda z: net(z)[..., 0], z))
        return g

    def objective(g: scg.Graph) -> Tensor:
        mean = net(value(g, "mu"))[..., 0]
        weight = next(net.parameters())
        return (mean - 0.5) ** 2 + 0.36 * weight.square().sum()

    return Case(make, objective, policy={"z": policy(net)}, captured=list(net.parameters()))


class Asleep(nn.Module):
    """A control network that starts at 0, and crosses the plate or jumps once it has learned."""

    def __init__(self, fn: Fn) -> None:
        super().__init__()
        self.fn = fn
        self.scale = nn.Parameter(double(0.0))

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.scale * self.fn(z)
        return out


def sleeping_control(fn: Fn, law: str, make_policy: Fn) -> Case:
    net = Asleep(fn)

    def make() -> scg.Graph:
        g = scg.Graph()
        x = g.input("x", plates="batch", example=torch.ones(4).double())
        l = x * g.param("l", double(0.4))
        drawn = {"logits": l} if law == "bernoulli" else {"loc": l, "scale": 0.8}
        z = g.sample("z", Bernoulli if law == "bernoulli" else Normal, **drawn)
        g.cost("c", (z - 0.1) ** 2)
        return g

    def wake(g: scg.Graph) -> Inputs:
        with torch.no_grad():
            net.scale.fill_(2.0)
        return {"x": torch.ones(3).double()}

    def objective(g: scg.Graph) -> Tensor:
        l = value(g, "l")
        return l.sigmoid() * 0.8 + 0.01 if law == "bernoulli" else (l - 0.1) ** 2 + 0.64

    return Case(make, objective, wake, make_policy(net))


def hidden(forward: Fn, expected: Fn) -> Case:
    """A cost that is a module, whose forward draws from a law of its weight; ``expected(w, x)``."""

    def make() -> scg.Graph:
        g = scg.Graph()
        x = g.input("x", plates="batch", example=double([0.2, 1.0, -0.7]))
        g.cost("loss", Module(forward, w=0.6), x)
        return g

    x = double([0.4, -1.0, 0.8, 0.1])

    def objective(g: scg.Graph) -> Tensor:
        (w,) = g.parameters()
        mean: Tensor = expected(w, x).mean()
        return mean

    return Case(make, objective, lambda g: {"x": x})


def relaxed_below() -> Case:
    """A function with ``relaxed=`` that reads a Categorical below a relaxed Categorical."""
    table = double([[0.2, -0.5, 0.9], [1.0, 0.1, -0.3], [-0.8, 0.6, 0.4]])

    def make() -> scg.Graph:
        g = scg.Graph()
        j = g.sample("j", Categorical, logits=g.param("w", double([0.4, -0.2, 0.1])))
        logits = g.det("logits", lambda j: table[j], j, relaxed=lambda p: p @ table)
        k = g.sample("k", Categorical, logits=logits)
        g.cost("c", lambda h: (h - 0.7) ** 2, lookup(g, "h", k))
        return g

    def objective(g: scg.Graph) -> Tensor:
        return value(g, "w").softmax(-1) @ table.softmax(-1) @ (SCORES - 0.7) ** 2

    return Case(make, objective, policy="rebar", must_work=True)


def dictionary(samples: int | None, effort: int, call: Fn) -> Case:
    """The weights of a network as a dict of nodes: ``call(net)(weights, x)``."""
    net = nn.Sequential(nn.Linear(1, 1)).double()

    def make() -> scg.Graph:
        g = scg.Graph()
        x = g.input("x", plates="batch", example=torch.ones(4, 1).double())
        w = g.sample("w", Normal, loc=g.param("mu", double([[0.7]])), scale=0.3)
        weights = {"0.weight": w, "0.bias": g.param("bias", double([0.2]))}
        g.cost("c", lambda out: (out[..., 0] - 1.0) ** 2, g.det("out", call(net), weights, (x,)))
        return g

    x = double([[0.5], [2.0], [-1.0]])

    def objective(g: scg.Graph) -> Tensor:
        mean = x @ value(g, "mu") + value(g, "bias") - 1
        return (mean**2 + 0.09 * x**2).mean()

    return Case(make, objective, lambda g: {"x": x}, samples=samples, effort=effort, must_work=True)


def bernoulli_or_not(s: Tensor, n: Tensor) -> Distribution:
    return Normal(0 * s, s) if bool(n > 0) else Laplace(0 * s, s)


CASES: dict[str, Callable[[], Case]] = {
    "a count that is drawn": sampled_count,
    "a count that is drawn, score": lambda: sampled_count("score"),
    "a count that is drawn, enumerated": lambda: sampled_count("enumerate"),
    "a count that is an input": lambda: counted(lambda n, p: Binomial(total_count=n, probs=p)),
    "a count that is an input, score": lambda: counted(lambda n, p: Binomial(n, p), "score"),
    "a count made an integer": lambda: counted(lambda n, p: Binomial(int(n), probs=p)),
    "another class": lambda: switched(bernoulli_or_not, lambda s: 2 * s**2, 1.0, -1.0),
    "another class, score": lambda: switched(bernoulli_or_not, lambda s: 2 * s**2, 1.0, -1.0, "score"),
    "an annealed transform": annealed,
    "an annealed transform, score": lambda: annealed("score"),
    "a law of one's own": lambda: switched(Shifted, lambda s: (s + 1.5) ** 2 + 1, 0.0, 1.5),
    "a law of one's own, score": lambda: switched(Shifted, lambda s: (s + 1.5) ** 2 + 1, 0.0, 1.5, "score"),
    "atan2 of nodes": lambda: operation(lambda z: torch.atan2(z, double(-1.0)), node=True),
    "atan2 of nodes, shown elsewhere": lambda: operation(
        lambda z: torch.atan2(z, double(-1.0)), 5.0, node=True
    ),
    "atan2, shown elsewhere": lambda: operation(lambda z: torch.atan2(z, torch.full_like(z, -0.5)), 5.0),
    "copysign, shown elsewhere": lambda: operation(lambda z: torch.copysign(torch.full_like(z, 0.7), z), 5.0),
    "copysign of nodes, shown elsewhere": lambda: operation(
        lambda z: torch.copysign(double(0.7), z), 5.0, node=True
    ),
    "nan_to_num of a root, automatic": lambda: operation(lambda z: torch.nan_to_num(torch.sqrt(z)), 3.0),
    "nan_to_num of a root, reparam": lambda: operation(
        lambda z: torch.nan_to_num(torch.sqrt(z)), policy="reparam"
    ),
    "nan_to_num of a root of nodes": lambda: operation(
        lambda z: torch.nan_to_num(torch.sqrt(z)), 3.0, node=True
    ),
    "a captured baseline": lambda: captured_control(lambda net: scg.Score(baseline=net, context="mu")),
    "a captured control network": lambda: captured_control(lambda net: scg.LAX(net=net)),
    "a control network that crosses later": lambda: sleeping_control(
        lambda z: z * z.mean(-1, keepdim=True), "normal", lambda net: scg.LAX(net=net)
    ),
    "a control network that jumps later": lambda: sleeping_control(
        lambda z: (z > 0.5).to(z.dtype) * z, "normal", lambda net: scg.LAX(net=net)
    ),
    "a relaxed control network that jumps later": lambda: sleeping_control(
        lambda z: torch.sign(z), "bernoulli", lambda net: scg.RELAX(net=net)
    ),
    "a draw in a cost": lambda: hidden(
        lambda w, x: (Bernoulli(torch.sigmoid(w * x)).sample() - 0.3) ** 2,
        lambda w, x: 0.09 + 0.4 * torch.sigmoid(w * x),
    ),
    "torch.bernoulli in a cost": lambda: hidden(
        lambda w, x: torch.bernoulli(torch.sigmoid(w * x)) + w**2, lambda w, x: torch.sigmoid(w * x) + w**2
    ),
    "a comparison with rand in a cost": lambda: hidden(
        lambda w, x: (torch.rand_like(x) < torch.sigmoid(w * x)).double(), lambda w, x: torch.sigmoid(w * x)
    ),
    "a Categorical in a cost": lambda: hidden(
        lambda w, x: SCORES[Categorical(logits=F.pad((w * x)[..., None], (0, 2))).sample()],
        lambda w, x: F.pad((w * x)[..., None], (0, 2)).softmax(-1) @ SCORES,
    ),
    "multinomial in a cost": lambda: hidden(
        lambda w, x: SCORES[torch.multinomial(F.pad((w * x)[..., None], (0, 2)).softmax(-1), 1)[..., 0]],
        lambda w, x: F.pad((w * x)[..., None], (0, 2)).softmax(-1) @ SCORES,
    ),
    "poisson in a cost": lambda: hidden(
        lambda w, x: torch.poisson(torch.exp(w * x)), lambda w, x: torch.exp(w * x)
    ),
    "a sample of a Normal in a cost": lambda: hidden(
        lambda w, x: Normal(w * x, 0.5).sample() ** 2, lambda w, x: (w * x) ** 2 + 0.25
    ),
    "relaxed= below a relaxed Categorical": relaxed_below,
    "a dict of nodes": lambda: dictionary(None, 64, lambda net: functools.partial(functional_call, net)),
    "a dict of nodes in a function": lambda: dictionary(
        None, 64, lambda net: lambda weights, args: functional_call(net, weights, args)
    ),
    "a dict of nodes, replicates": lambda: dictionary(
        1024, 1, lambda net: functools.partial(functional_call, net)
    ),
}
