"""Programs with networks that wake, draws inside functions, relaxed functions and dicts of nodes."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Normal,
)
from torch.func import functional_call

import scg
from tests.truth.building import Fn, Module, double, value
from tests.truth.judge import Case, Inputs
from tests.truth.table import SCORES, lookup


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
        theta = x * g.param("l", double(0.4))
        drawn = {"logits": theta} if law == "bernoulli" else {"loc": theta, "scale": 0.8}
        z = g.sample("z", Bernoulli if law == "bernoulli" else Normal, **drawn)
        g.cost("c", (z - 0.1) ** 2)
        return g

    def wake(g: scg.Graph) -> Inputs:
        with torch.no_grad():
            net.scale.fill_(2.0)
        return {"x": torch.ones(3).double()}

    def objective(g: scg.Graph) -> Tensor:
        theta = value(g, "l")
        return theta.sigmoid() * 0.8 + 0.01 if law == "bernoulli" else (theta - 0.1) ** 2 + 0.64

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


CASES: dict[str, Callable[[], Case]] = {
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
