"""Bad input: every mistake is met by the right class of error, with what is wrong and what to write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Dirichlet,
    Distribution,
    Gamma,
    MultivariateNormal,
    Normal,
    Poisson,
    StudentT,
    Uniform,
)

import scg
from scg import EstimatorError, Graph, GraphError, NonFiniteError, PlateError, PolicyError

Case = tuple[Callable[[], Any], type[Exception], str]
NAN = float("nan")


def bernoulli(theta: Any = 0.0) -> Graph:
    """theta -> (x) -> [c]."""
    g = Graph()
    g.cost("c", g.sample("x", Bernoulli, logits=g.param("theta", theta)).sum())
    return g


def normal(loc: Any = 0.0, scale: Any = 1.0) -> Graph:
    """(x) ~ Normal(theta, scale), without a cost."""
    g = Graph()
    g.sample("x", Normal, g.param("theta", loc), scale)
    return g


def one_input() -> Graph:
    g = Graph()
    g.cost("c", g.input("x", example=torch.zeros(3)).sum())
    return g


def plated(**examples: Tensor) -> Graph:
    """Inputs in plate b, summed into a cost."""
    g = Graph()
    for name, example in examples.items():
        g.input(name, plates="b", example=example)
    return g


def costing(fn: Callable[..., Any], g: Graph | None = None) -> Graph:
    g = normal() if g is None else g
    g.cost("c", fn, g["x"])
    return g


def foreign() -> scg.Node:
    return Graph().param("a", 1.0)


def two_names() -> None:
    g = Graph()
    g.param("a", 1.0)
    g.param("a", 2.0)


def boom(x: Any) -> Any:
    raise ValueError("boom")


def boom_of_three(x: Tensor) -> Tensor:
    if len(x) == 3:
        raise ValueError("boom")
    return x.sum()


def raising_later() -> None:
    g = Graph()
    g.cost("c", boom_of_three, g.input("x"))
    program = scg.compile(g)
    for size in (2, 2, 3):
        program(x=torch.zeros(size))


def crossing() -> Graph:
    g = plated(x=torch.zeros(1, 3))
    b = g.sample("b", Bernoulli, logits=g["x"])
    g.cost("c", g.det("norm", nn.BatchNorm1d(3), b).sum(-1))
    return g


def contradiction() -> Graph:
    g = Graph()
    g.input("x", plates=("a", "b"), example=torch.zeros(2, 2))
    g.input("y", plates=("b", "a"), example=torch.zeros(2, 2))
    return g


def reading_below() -> None:
    g = Graph()
    x = g.sample("x", Bernoulli, logits=g.param("theta", 0.0))
    y = x * 2
    g.cost("c", y)
    scg.compile(g, policy=scg.Score(nn.Linear(1, 1), context=y))


def shared_network() -> None:
    net = nn.Linear(1, 1)
    g = Graph()
    x = g.sample("x", Bernoulli, logits=g.det("h", net, g.param("theta", torch.zeros(1))))
    g.cost("c", x.sum())
    scg.compile(g, policy=scg.Score(net))


def lost_plate() -> Graph:
    g = plated(x=torch.zeros(2))
    g.sample("s", Bernoulli, logits=g["x"], plates=())
    return g


def unknown_size() -> Graph:
    g = Graph()
    g.sample("s", Bernoulli, probs=0.5, plates="b")
    return g


def two_plates_of_different_size() -> Graph:
    g = plated(x=torch.zeros(2), y=torch.zeros(3))
    g.cost("c", g["x"] * g["y"])
    return g


def of_scale() -> Graph:
    """(x) ~ Normal(0, scale), where scale is an input that starts at 1."""
    g = Graph()
    g.cost("c", g.sample("x", Normal, 0.0, g.input("scale", example=torch.tensor(1.0))) * 1.0)
    return g


def moving_support() -> Graph:
    g = Graph()
    g.cost("c", g.sample("x", Uniform, 0.0, g.param("theta", 1.0)) * 2)
    return g


DECLARING: dict[str, Case] = {
    "a name twice": (two_names, GraphError, "already has a node 'a' .*choose another name"),
    "a node of another graph": (
        lambda: Graph().det("b", torch.exp, foreign()),
        GraphError,
        "reads node 'a' of another graph: declare that node in this graph",
    ),
    "an operation across graphs": (
        lambda: foreign() + Graph().param("b", 1.0),
        GraphError,
        "reads node 'b' of another graph",
    ),
    "a log-probability across graphs": (
        lambda: Graph().log_prob(foreign()),
        GraphError,
        "reads node 'a' of another graph",
    ),
    "a name with a space": (lambda: Graph().param("a b", 1.0), GraphError, "identifiers, 'a b' is not"),
    "a keyword": (lambda: Graph().param("lambda", 1.0), GraphError, "identifiers, 'lambda' is not"),
    "a name of the module": (
        lambda: Graph().param("forward", 1.0),
        GraphError,
        "'forward' is reserved.*such as 'forward_node'",
    ),
    "a name of the program": (lambda: Graph().input("noise"), GraphError, "'noise' is reserved"),
    "a private name": (lambda: Graph().input("_x"), GraphError, "'_x' is reserved"),
    "an unknown node": (lambda: bernoulli()["q"], GraphError, "no node 'q'; its nodes are theta, x"),
    "a finished distribution": (
        lambda: Graph().sample("x", Bernoulli(0.5)),
        GraphError,
        r'finished Bernoulli: give the class.*g\.sample\("x", Bernoulli, \.\.\.\)',
    ),
    "no callable": (lambda: Graph().det("h", 3), GraphError, "'h' needs a callable, found int"),  # type: ignore[arg-type]
    "a tensor with a history": (
        lambda: Graph().det("h", torch.exp, torch.ones(2, requires_grad=True) * 2),
        GraphError,
        r"gradient history.*declare what computes it as nodes, or give value\.detach\(\)",
    ),
    "the law of no sample": (
        lambda: (lambda g: g.log_prob(g.param("t", 0.0)))(Graph()),
        GraphError,
        r"log_prob\('t'\) needs a sample node; for another value write g\.log_prob\(",
    ),
    "an unknown baseline": (lambda: scg.Score("average"), EstimatorError, "moving-average.*not 'average'"),
    "context without a module": (lambda: scg.Score(context="x"), EstimatorError, "give baseline=module"),
}

COMPILING: dict[str, Case] = {
    "no graph": (lambda: scg.compile("x"), GraphError, "takes a scg.Graph, not str"),
    "no replicates": (lambda: scg.compile(bernoulli(), samples=0), GraphError, "samples=0.*at least 1"),
    "no order": (lambda: scg.compile(bernoulli(), order=0), GraphError, "order=0: give a whole number"),
    "keeping what is not there": (
        lambda: scg.compile(bernoulli(), keep=["q"]),
        GraphError,
        r"not there: \['q'\]; the nodes are theta, x",
    ),
    "orders in contradiction": (
        lambda: scg.compile(contradiction()),
        PlateError,
        r"contradicting orders.*write plates=\(\.\.\.\) in the same order",
    ),
    "two sizes of a plate": (
        lambda: scg.compile(two_plates_of_different_size()),
        PlateError,
        r"plate 'b' has size 2 by 'x', but 'y' has shape \(3,\) with 3",
    ),
    "no size of a plate": (
        lambda: scg.compile(unknown_size()),
        PlateError,
        r'size of plate \'b\' is not known: write g\.plate\("b", size=',
    ),
    "fewer dimensions than plates": (
        lambda: scg.compile(plated(x=torch.zeros(()))),
        PlateError,
        r"'x' lies in plates \('b',\) but has shape \(\)",
    ),
    "a plate lost by a function": (
        lambda: scg.compile(costing(lambda x: x.mean(0), plated(x=torch.zeros(4, 3)))),
        PlateError,
        r"'c' .*in plates \('b',\) of sizes \(4,\).*returned shape \(3,\).*or write plates=",
    ),
    "a plate lost by a sample": (
        lambda: scg.compile(lost_plate()),
        PlateError,
        r"sample 's' .*without the plates \['b'\].*aggregate them first",
    ),
    "a plate crossed": (
        lambda: scg.compile(crossing()),
        PlateError,
        "'norm' .*crosses plate 'b'.*mixes=\"b\"",
    ),
    "a boolean cost": (
        lambda: scg.compile(costing(lambda x: x > 0)),
        GraphError,
        r"cost 'c' .*dtype torch\.bool.*as with \.float\(\)",
    ),
    "a complex cost": (
        lambda: scg.compile(costing(lambda x: torch.complex(x, x))),
        GraphError,
        r"cost 'c' .*dtype torch\.complex64",
    ),
    "a cost that is no tensor": (
        lambda: scg.compile(costing(lambda x: "a")),
        GraphError,
        "cost 'c' .*is a str: return a tensor",
    ),
    "a cost of several numbers": (
        lambda: scg.compile(costing(lambda x: x, normal(torch.zeros(3)))),
        GraphError,
        r"cost 'c' .*shape \(3,\).*sum over the other dimensions, or declare them as plates",
    ),
    "a function that raises": (
        lambda: scg.compile(costing(boom)),
        GraphError,
        "node 'c' .*raised ValueError: boom",
    ),
    "a parameter outside its constraint": (
        lambda: scg.compile(normal(0.0, -1.0)),
        GraphError,
        r"sample 'x' .*Normal parameter scale must satisfy GreaterThan\(lower_bound=0\.0\), found -1\.0",
    ),
    "an unknown argument": (
        lambda: scg.compile(costing(lambda x: x, sampling(Bernoulli, logit=0.0))),
        GraphError,
        "Bernoulli.*'logit'",
    ),
    "probs and logits": (
        lambda: scg.compile(sampling(Bernoulli, logits=0.0, probs=0.5)),
        GraphError,
        "exactly one of probs, logits, found probs and logits",
    ),
    "neither probs nor logits": (
        lambda: scg.compile(sampling(Bernoulli)),
        GraphError,
        "exactly one of probs, logits, found none",
    ),
    "a factory of no distribution": (
        lambda: scg.compile(sampling(lambda: torch.zeros(3))),
        GraphError,
        r"expected a torch\.distributions\.Distribution, found Tensor",
    ),
}

CHOOSING: dict[str, Case] = {
    "a key that matches nothing": (
        lambda: scg.compile(bernoulli(), policy={"z*": "score"}),
        PolicyError,
        r"'z\*' matches nothing; the stochastic nodes are x",
    ),
    "a cost as key": (
        lambda: scg.compile(bernoulli(), policy={"c": "score"}),
        PolicyError,
        "'c' is a cost: costs have no estimator; the stochastic nodes are x",
    ),
    "a parameter as key": (
        lambda: scg.compile(bernoulli(), policy={"theta": "score"}),
        PolicyError,
        "'theta' is a param; the stochastic nodes are x",
    ),
    "an unknown estimator": (
        lambda: scg.compile(bernoulli(), policy="reinforce"),
        PolicyError,
        "no estimator 'reinforce'; there are .*enumerate.*reparam.*score",
    ),
    "no estimator": (
        lambda: scg.compile(bernoulli(), policy={"x": 3}),  # type: ignore[dict-item]
        PolicyError,
        "names or instances of estimators, not int",
    ),
    "a misspelt estimator": (
        lambda: scg.compile(bernoulli(), policy="relx"),
        PolicyError,
        "no estimator 'relx': 'relax' is meant[?] There are arm, .*vimco$",
    ),
    "a class": (
        lambda: scg.compile(bernoulli(), policy=scg.RELAX),  # type: ignore[arg-type]
        PolicyError,
        r"names or instances of estimators, not the class RELAX: write RELAX\(\.\.\.\)$",
    ),
    "a class of a part": (
        lambda: scg.Parts({"c": scg.Score}),  # type: ignore[dict-item]
        PolicyError,
        r"scg.Parts gives names or instances of estimators, not the class Score: write Score\(\.\.\.\)$",
    ),
    "reparam of a discrete law": (
        lambda: scg.compile(bernoulli(), policy="reparam"),
        EstimatorError,
        'a Bernoulli has no differentiable map.*Use "enumerate" or "rebar"$',
    ),
    "reparam through a step": (
        lambda: scg.compile(costing(lambda x: (x > 0).float()), policy="reparam"),
        EstimatorError,
        r'the path x -> c is not differentiable \(c: jumps at .*Use "score"',
    ),
    "reparam through a black box": (
        lambda: scg.compile(boxed(), policy="reparam"),
        EstimatorError,
        r'x -> hit -> mul_1 -> c is not differentiable \(hit: declared differentiable=False\)\. Use "score"',
    ),
    "score of a moving support": (
        lambda: scg.compile(moving_support(), policy="score"),
        EstimatorError,
        "score cannot estimate 'x': the support of its Uniform moves.*Use .reparam. or .measure-valued.$",
    ),
    "too many branches": (
        lambda: scg.compile(bernoulli(torch.zeros(20)), policy="enumerate"),
        EstimatorError,
        r"2\*\*20 joint outcomes, over the limit of 4096: write scg\.Enumerate\(local=True\)",
    ),
    "an infinite support enumerated": (
        lambda: scg.compile(costing(lambda x: x), policy="enumerate"),
        EstimatorError,
        "enumerate cannot estimate 'x': the support of a Normal is not finite",
    ),
    "leave-one-out of one": (
        lambda: scg.compile(bernoulli(), policy=scg.Score("leave-one-out")),
        EstimatorError,
        "leave-one-out compares replicates: compile with samples=2",
    ),
    "a baseline that reads below": (
        reading_below,
        PolicyError,
        "network of 'x' reads .*'x' influences: that biases the gradient.*does not reach",
    ),
    "a baseline of an unknown node": (
        lambda: scg.compile(bernoulli(), policy=scg.Score(nn.Linear(1, 1), context="q")),
        PolicyError,
        r"context of 'x' names nodes that are not there: \['q'\]",
    ),
    "a network of the model as control": (shared_network, PolicyError, "parameter of the graph as well"),
}

RUNNING: dict[str, Case] = {
    "a missing input": (
        lambda: scg.compile(one_input())(),
        GraphError,
        "input 'x' is missing: pass x=tensor, or declare it with example=",
    ),
    "an unknown input where one is missing": (
        lambda: scg.compile(one_input())(X=torch.zeros(3)),
        GraphError,
        "(?s)unknown input 'X'; the inputs are x; did you mean 'x'.*'x' is missing",
    ),
    "an input of another shape": (
        lambda: scg.compile(costing(lambda x: x.sum(-1), plated(x=torch.zeros(2, 3))))(x=torch.zeros(2, 4)),
        GraphError,
        r"input 'x' has shape \(2, 4\), but its example says \[b, 3\]",
    ),
    "a number as input": (lambda: scg.compile(one_input())(x=3), GraphError, "'x' is a int: pass a tensor"),  # type: ignore[arg-type]
    "an input by position": (
        lambda: scg.compile(one_input())(torch.zeros(3)),
        GraphError,
        r"inputs are given by name: x=\.\.\.",
    ),
    "a pending program": (
        lambda: scg.compile(costing(lambda x: x, with_input())).code,
        GraphError,
        r"pending: give g\.input\(\.\.\., example=tensor\), or call program\.prepare",
    ),
    "noise of another shape": (
        lambda: scg.compile(bernoulli())(noise={"x": torch.zeros(3)}),
        GraphError,
        r"noise of 'x' has shape \(3,\), not \(\): give what program\.draw_noise",
    ),
    "noise that is a number": (
        lambda: scg.compile(bernoulli())(noise={"x": 1.0}),  # type: ignore[dict-item]
        GraphError,
        r"noise of 'x' is a float, not a tensor of shape \(\): give what program\.draw_noise",
    ),
    "noise of other nodes": (
        lambda: scg.compile(bernoulli())(noise={"y": torch.zeros(())}),
        GraphError,
        r"unknown names \['y'\] and lacks \['x'\]: give what program\.draw_noise",
    ),
    "a parameter that is NaN": (
        lambda: nan_parameter(law=False),
        NonFiniteError,
        "param 't' .*is NaN: set it to finite values",
    ),
    "a law with a NaN parameter": (
        lambda: nan_parameter(law=True),
        GraphError,
        r"sample 'x' .*Bernoulli parameter logits must satisfy Real\(\), found nan",
    ),
    "an infinite cost": (
        lambda: scg.compile(costing(lambda x: x / 0.0, bernoulli_only()), policy="score")(seed=0),
        NonFiniteError,
        "cost 'c' .*is (infinite|NaN): look at what it is computed from",
    ),
    "a function that raises later": (raising_later, GraphError, "node 'c' .*raised ValueError: boom"),
}


def sampling(dist: Any, **parameters: Any) -> Graph:
    g = Graph()
    g.sample("x", dist, **parameters)
    return g


def bernoulli_only() -> Graph:
    return sampling(Bernoulli, logits=nn.Parameter(torch.zeros(())))


def with_input() -> Graph:
    g = Graph()
    g.input("x")
    return g


def boxed() -> Graph:
    g = normal()
    g.cost("c", g.det("hit", lambda x: x**2, g["x"], differentiable=False) * 2)
    return g


def nan_parameter(law: bool) -> None:
    g = Graph()
    t = g.param("t", NAN)
    x = g.sample("x", Bernoulli, logits=t) if law else g.sample("x", Bernoulli, probs=0.5)
    g.cost("c", x * t)
    scg.compile(g)(seed=0)


def gamma() -> Graph:
    g = sampling(Gamma, concentration=2.0, rate=1.0)
    g.cost("c", g["x"])
    return g


def empty_plate() -> None:
    g = plated(x=torch.zeros(2))
    g.cost("c", g.sample("s", Bernoulli, logits=g["x"]))
    scg.compile(g)(x=torch.zeros(0))


CALLING: dict[str, Case] = {
    "no policy": (lambda: scg.compile(bernoulli(), policy=3), PolicyError, "not int"),  # type: ignore[arg-type]
    "keep of another graph": (
        lambda: scg.compile(costing(lambda x: x, normal()), keep=[normal()["x"]]),  # type: ignore[list-item]
        GraphError,
        "nodes of another graph.*'x'",
    ),
    "a seed and noise": (
        lambda: scg.compile(bernoulli())(seed=1, noise=2),
        GraphError,
        "noise= or seed=, not both",
    ),
    "noise that is neither": (
        lambda: scg.compile(bernoulli())(noise="3"),  # type: ignore[arg-type]
        GraphError,
        "noise is an int.*seed",
    ),
    "a replayed value of another shape": (
        lambda: scg.compile(gamma())(noise={"x": torch.ones(3)}),
        GraphError,
        r"noise of 'x' has shape \(3,\), not \(\)",
    ),
    "an empty plate": (empty_plate, PlateError, "plate 'b'.*at least one"),
    "a sample that is NaN and a cost at once": (
        lambda: scg.compile(gamma())(noise={"x": torch.tensor(NAN)}),
        NonFiniteError,
        "sample 'x' .*is NaN",
    ),
    "an unknown argument of a named node": (
        lambda: scg.compile(sampling(Bernoulli, logit=0.0)),
        GraphError,
        "'x'.*Bernoulli.*'logit'",
    ),
    "a named factory of no distribution": (
        lambda: scg.compile(sampling(lambda: torch.zeros(3))),
        GraphError,
        "'x'.*found Tensor",
    ),
    "a name of emitted code": (lambda: Graph().input("torch"), GraphError, "'torch' is reserved"),
}


def bits(fn: Callable[..., Any], **options: Any) -> Graph:
    """theta -> (x) -> [h] -> [c], with two bits."""
    g = sampling(Bernoulli, logits=nn.Parameter(torch.zeros(2)))
    g.cost("c", g.det("h", fn, g["x"], **options))
    return g


def outcome(fn: Callable[..., Any], **options: Any) -> Graph:
    """theta -> (x) -> [h] -> [c], with one of three outcomes."""
    g = sampling(Categorical, logits=nn.Parameter(torch.zeros(3)))
    g.cost("c", g.det("h", fn, g["x"], **options))
    return g


def of(dist: Any, **parameters: float) -> Graph:
    g = Graph()
    given: dict[str, Any] = {key: g.param(key, value) for key, value in parameters.items()}
    g.cost("c", g.sample("x", dist, **given).sum(-1))
    return g


def rows(*, aside: bool = False) -> Graph:
    """Two bits for each of four elements, and an input in one plate more."""
    g = plated(x=torch.zeros(4, 2))
    b = g.sample("s", Bernoulli, logits=g["x"])
    if aside:
        g.input("y", plates=("b", "k"), example=torch.zeros(4, 3))
    g.cost("c", b.sum(-1))
    return g


def total(x: Tensor) -> Tensor:
    return x.sum(-1)


def compiling(g: Graph, policy: Any, **options: Any) -> Callable[[], scg.Program]:
    return lambda: scg.compile(g, policy, **options)


def two_shapes() -> None:
    g = Graph()
    x = g.sample("x", Bernoulli, logits=g.param("t", torch.zeros(2)))
    y = g.sample("y", Bernoulli, logits=g.param("u", torch.zeros(3)))
    g.cost("c", x.sum(-1) + y.sum(-1))
    scg.compile(g, scg.RELAX())


def own_network() -> None:
    net = nn.Linear(2, 1)
    g = sampling(Bernoulli, logits=nn.Parameter(torch.zeros(2)))
    g.cost("c", g.det("h", net, g["x"])[..., 0])
    scg.compile(g, scg.RELAX(net))


def differentiated_twice() -> None:
    program = scg.compile(bits(total), "relax")
    torch.autograd.grad(program(seed=0).loss, next(program.control_parameters()), create_graph=True)


def normalising() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


ROUGH = (
    r"rebar cannot estimate 'x': it needs a cost at relaxed values, and the path x -> h -> c is not smooth"
)
INSTEAD = r'Use "enumerate" or "score"$'
RELAXING: dict[str, Case] = {
    "rebar through a step": (
        compiling(bits(lambda x: (x > 0.5).float().sum()), "rebar"),
        EstimatorError,
        rf"{ROUGH} at relaxed values \(h: jumps by .*{INSTEAD}",
    ),
    "rebar through a black box": (
        compiling(bits(total, differentiable=False), "rebar"),
        EstimatorError,
        rf"{ROUGH}.*\(h: declared differentiable=False\).*{INSTEAD}",
    ),
    "rebar through a number": (
        compiling(bits(lambda x: torch.tensor(x.sum().item())), "rebar"),
        EstimatorError,
        rf"{ROUGH}.*\(h: autograd disagrees with finite differences.*{INSTEAD}",
    ),
    "rebar through an argmax": (
        compiling(bits(lambda x: x.argmax(-1).float()), "rebar"),
        EstimatorError,
        rf"{ROUGH}.*{INSTEAD}",
    ),
    "rebar through torch's log_prob of a bit": (
        compiling(bits(lambda x: Bernoulli(0.3).log_prob(x).sum()), "rebar"),
        EstimatorError,
        rf"{ROUGH}.*\(h: it raised ValueError at a relaxed value; write a log-probability as g\.log_prob\(",
    ),
    "rebar through torch's log_prob of an outcome": (
        compiling(outcome(lambda x: Categorical(probs=torch.arange(1.0, 4.0)).log_prob(x)), "rebar"),
        EstimatorError,
        rf"{ROUGH}.*write a log-probability as g\.log_prob\(\.\.\.\), which takes relaxed values",
    ),
    "rebar through an index": (
        compiling(outcome(lambda x: torch.arange(3.0)[x]), "rebar"),
        EstimatorError,
        rf"{ROUGH}.*it raised IndexError .*; declare it with relaxed=, a function of relaxed values",
    ),
    "rebar through an embedding": (
        compiling(
            outcome(lambda x: nn.functional.embedding(x, torch.arange(6.0).view(3, 2)).sum(-1)), "rebar"
        ),
        EstimatorError,
        rf"{ROUGH}.*declare it with relaxed=, a function of relaxed values",
    ),
    "relaxed_cost=True above a black box": (
        compiling(bits(total, differentiable=False), scg.RELAX(relaxed_cost=True)),
        EstimatorError,
        rf"relax cannot estimate 'x': relaxed_cost=True needs a cost at relaxed values.*{INSTEAD}",
    ),
    "a temperature of 0": (
        lambda: scg.REBAR(temperature=0.0),
        EstimatorError,
        "temperature is positive and finite, not 0",
    ),
    "a negative temperature": (
        lambda: scg.REBAR(temperature=-1.0),
        EstimatorError,
        "temperature is positive and finite, not -1",
    ),
    "a temperature that is NaN": (
        lambda: scg.REBAR(temperature=NAN),
        EstimatorError,
        "temperature is positive",
    ),
    "an eta of 0": (lambda: scg.REBAR(eta=0.0), EstimatorError, "eta is positive and finite, not 0"),
    "a negative eta among several": (
        lambda: scg.REBAR(eta=torch.tensor([1.0, -1.0])),
        EstimatorError,
        "eta is positive",
    ),
    "a network of another shape": (
        compiling(rows(), scg.RELAX(nn.Linear(2, 3))),
        EstimatorError,
        r"network of 's': .*one value for each of 4 plate elements, this one gave shape \(4, 3\)",
    ),
    "a network of lax of another shape": (
        compiling(costing(total, normal(torch.zeros(2))), scg.LAX(nn.Linear(2, 3))),
        EstimatorError,
        r"network of 'x': .*one value for each of 1 plate elements, this one gave shape \(3,\)",
    ),
    "a network of one number": (
        compiling(rows(), scg.RELAX(torch.mean)),
        EstimatorError,
        r"network of 's': .*one value for each of 4 plate elements, this one gave shape \(\)",
    ),
    "a network of other widths": (
        compiling(rows(), scg.RELAX(nn.Linear(3, 1))),
        EstimatorError,
        r"network of 's' raised RuntimeError on values of shape \(4, 2\): mat1 and mat2",
    ),
    "a network that raises": (
        compiling(rows(), scg.RELAX(boom)),
        EstimatorError,
        r"network of 's' raised ValueError on values of shape \(4, 2\): boom",
    ),
    "a network that joins elements": (
        compiling(rows(), scg.RELAX(normalising())),
        EstimatorError,
        "network of 's' lets plate elements influence each other, as batch normalisation .*element alone",
    ),
    "a network that reads below": (
        compiling(bits(total), scg.RELAX(context="h")),
        PolicyError,
        r"network of 'x' reads \['h'\], which 'x' influences: that biases .*nodes that 'x' does not reach",
    ),
    "a network that reads its node": (
        compiling(bits(total), scg.RELAX(context="x")),
        PolicyError,
        r"network of 'x' reads \['x'\], which 'x' influences",
    ),
    "a network of lax that reads below": (
        compiling(costing(total, normal(torch.zeros(2))), scg.LAX(context="c")),
        PolicyError,
        r"network of 'x' reads \['c'\], which 'x' influences",
    ),
    "a network that reads nothing": (
        compiling(bits(total), scg.RELAX(context="q")),
        PolicyError,
        r"context of 'x' names nodes that are not there: \['q'\]",
    ),
    "a network that reads another plate": (
        compiling(rows(aside=True), scg.RELAX(context="y")),
        PolicyError,
        r"reads \['y'\], which have plates that 's' lacks: give an aggregate",
    ),
    "one network of two shapes": (
        two_shapes,
        EstimatorError,
        "one instance of relax was given to 'x' and 'y'.*differ in shape: give each an instance",
    ),
    "a network of the model as control variate": (
        own_network,
        PolicyError,
        "parameter of the graph as well: give the estimator a network of its own",
    ),
    "an unknown baseline of rebar": (
        lambda: scg.REBAR(baseline="moving-average"),
        EstimatorError,
        "baseline is None, \"leave-one-out\".* not 'moving-average'",
    ),
    "an unknown baseline of relax": (lambda: scg.RELAX(baseline="x"), EstimatorError, "not 'x'"),
    "an unknown baseline of lax": (lambda: scg.LAX(baseline="x"), EstimatorError, "not 'x'"),
    "noise of another node's estimator": (
        lambda: scg.compile(bits(total), "rebar")(noise={"x": torch.ones(2) / 2, "q.1": torch.ones(2) / 2}),
        GraphError,
        r"unknown names \['q\.1'\].*give what program\.draw_noise",
    ),
    "noise of the estimator in another shape": (
        lambda: scg.compile(bits(total), "rebar")(noise={"x": torch.ones(2) / 2, "x.1": torch.ones(3) / 2}),
        GraphError,
        r"noise of 'x\.1' has shape \(3,\), not \(2,\): give what program\.draw_noise",
    ),
    "a control differentiated twice": (
        differentiated_twice,
        EstimatorError,
        "order=1 was differentiated with create_graph=True.*Differentiate it once",
    ),
    **{
        f"second order of {name}": (
            compiling(g, name, order=2),
            EstimatorError,
            f"{name} cannot estimate .* with order=2: its estimate is a number, right to first order: use",
        )
        for name, g in (("rebar", bits(total)), ("relax", bits(total)), ("lax", costing(total, normal(0.0))))
    },
    **{
        f"{name} cannot relax {dist.__name__}": (
            compiling(of(dist, **parameters), name),
            EstimatorError,
            f"{name} cannot estimate 'x': a {dist.__name__} cannot be relaxed. Use .*\"score\"",
        )
        for name in ("rebar", "relax")
        for dist, parameters in (
            (Normal, {"loc": 0.0, "scale": 1.0}),
            (Poisson, {"rate": 2.0}),
            (Binomial, {"total_count": 3, "probs": 0.4}),
        )
    },
    **{
        f"lax of {dist.__name__}": (
            compiling(of(dist, **parameters), "lax"),
            EstimatorError,
            rf'torch has no second derivative of a draw from a {dist.__name__}, .*Use "reparam" or "score"$',
        )
        for dist, parameters in (
            (Gamma, {"concentration": 2.0, "rate": 1.0}),
            (Beta, {"concentration1": 2.0, "concentration0": 1.0}),
            (Dirichlet, {"concentration": torch.ones(3)}),
            (StudentT, {"df": 4.0}),
        )
    },
    **{
        f"lax of {dist.__name__}": (
            compiling(of(dist, **parameters), "lax"),
            EstimatorError,
            f"lax cannot estimate 'x': a {dist.__name__} has no differentiable map from noise to value. Use ",
        )
        for dist, parameters in ((Poisson, {"rate": 2.0}), (Bernoulli, {"probs": 0.4}))
    },
    "lax of a moving support": (
        compiling(moving_support(), "lax"),
        EstimatorError,
        "lax cannot estimate 'x': the support of its Uniform moves with.*Use .reparam. or .measure-valued.$",
    ),
    **{
        f"leave-one-out of one with {name}": (
            compiling(g, estimator),
            EstimatorError,
            f"{name} cannot estimate 'x': leave-one-out compares replicates: compile with samples=2",
        )
        for name, g, estimator in (
            ("rebar", bits(total), scg.REBAR(baseline="leave-one-out")),
            ("relax", bits(total), scg.RELAX(baseline="leave-one-out")),
            ("lax", costing(total, normal(torch.zeros(2))), scg.LAX(baseline="leave-one-out")),
        )
    },
}
CASES = DECLARING | COMPILING | CHOOSING | RUNNING | CALLING | RELAXING


@pytest.fixture
def lenient() -> Iterator[None]:
    """Switch torch's own validation off."""
    default = Distribution._validate_args  # type: ignore[attr-defined]
    Distribution.set_default_validate_args(False)
    yield
    Distribution.set_default_validate_args(default)


def assert_raises(act: Callable[[], Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=f"(?s){words}") as error:
        act()
    assert type(error.value) is kind


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_named(name: str) -> None:
    assert_raises(*CASES[name])


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("name", [n for n in CASES if "constraint" in n or "NaN" in n])
def test_checks_do_not_rely_on_torch_s_validation(name: str) -> None:
    assert_raises(*CASES[name])


OUTSIDE: list[tuple[Any, dict[str, Any], str]] = [
    (Normal, {"loc": 0.0, "scale": 0.0}, "Normal parameter scale"),
    (Normal, {"loc": torch.tensor([0.0, NAN]), "scale": 1.0}, "Normal parameter loc"),
    (Bernoulli, {"probs": 1.5}, "Bernoulli parameter probs"),
    (Categorical, {"probs": torch.tensor([0.5, -0.1])}, "Categorical parameter probs"),
    (Gamma, {"concentration": -1.0, "rate": 1.0}, "Gamma parameter concentration"),
    (Beta, {"concentration1": 1.0, "concentration0": 0.0}, "Beta parameter concentration0"),
    (
        MultivariateNormal,
        {"loc": torch.zeros(2), "scale_tril": -torch.eye(2)},
        "MultivariateNormal parameter",
    ),
]


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize(("law", "parameters", "words"), OUTSIDE, ids=[words for *_, words in OUTSIDE])
def test_parameters_outside_their_constraint_are_refused(
    law: Any, parameters: dict[str, Any], words: str
) -> None:
    with pytest.raises(GraphError, match=f"sample 'x' .*{words}.* must satisfy"):
        scg.compile(sampling(law, **parameters))


@pytest.mark.usefixtures("lenient")
def test_parameters_are_checked_at_the_first_run_and_on_request() -> None:
    program = scg.compile(of_scale())
    with pytest.raises(GraphError, match=r"sample 'x' .*Normal parameter scale must satisfy.*found -1\.0"):
        program(scale=torch.tensor(-1.0))
    program(scale=torch.tensor(1.0))
    program.check_values = True
    with pytest.raises(GraphError, match="sample 'x' .*Normal parameter scale"):
        program(scale=torch.tensor(-2.0))


def test_a_sample_that_is_nan_is_named() -> None:
    g = sampling(Gamma, concentration=2.0, rate=1.0)
    g.cost("c", g["x"] * 2)
    with pytest.raises(NonFiniteError, match="sample 'x' .*is NaN"):
        scg.compile(g)(noise={"x": torch.tensor(NAN)})


def test_all_faults_of_a_graph_are_told_together() -> None:
    g = normal(0.0, -1.0)
    g.cost("c", g["x"] > 0)
    g.cost("d", lambda x: x.expand(3), g["x"])
    with pytest.raises(GraphError) as error:
        g.check()
    told = str(error.value).splitlines()
    assert len(told) == 3
    assert [line.split(" (")[0] for line in told] == ["cost 'c'", "cost 'd'", "sample 'x'"]


def test_all_faults_of_inputs_are_told_together() -> None:
    with pytest.raises(GraphError, match="(?s)unknown input 'y'.*input 'x' is missing"):
        scg.compile(one_input())(y=torch.zeros(3))


def test_all_lost_plates_are_told_together() -> None:
    g = lost_plate()
    g.sample("r", Bernoulli, logits=g["x"], plates=())
    with pytest.raises(PlateError, match="(?s)sample 's' .*sample 'r' "):
        g.freeze()


def test_all_refusals_are_told_together() -> None:
    g = Graph()
    t = g.param("t", 0.0)
    g.cost("c", g.sample("x", Bernoulli, logits=t) + g.sample("y", Bernoulli, logits=t))
    with pytest.raises(EstimatorError, match="(?s)cannot estimate 'x'.*cannot estimate 'y'"):
        scg.compile(g, policy="reparam")


def test_errors_say_where_a_node_was_declared() -> None:
    with pytest.raises(GraphError, match=r"node 'c' \(.*test_bad_input\.py:\d+\) raised"):
        scg.compile(costing(boom))


def test_every_error_is_one_of_scg_s() -> None:
    assert issubclass(EstimatorError, PolicyError) and issubclass(PlateError, GraphError)
    for kind in (GraphError, PolicyError, NonFiniteError, scg.BiasedEstimatorError):
        assert issubclass(kind, scg.ScgError)


@pytest.mark.parametrize("name", RELAXING)
def test_refusals_of_control_variates_fit_one_line(name: str) -> None:
    act, kind, _ = RELAXING[name]
    with pytest.raises(kind) as error:
        act()
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("lenient")
def test_a_log_prob_of_an_outcome_is_refused_without_torch_s_validation_too() -> None:
    act, kind, _ = RELAXING["rebar through torch's log_prob of an outcome"]
    assert_raises(
        act, kind, rf"{ROUGH}.*shape \(3,\) at a relaxed value, not shape \(\); declare it with relaxed="
    )


def test_an_index_is_accepted_once_it_says_what_it_is_at_relaxed_values() -> None:
    table = torch.arange(3.0)
    g = outcome(lambda x: table[x], relaxed=lambda soft: soft @ table)
    scg.compile(g, "rebar")(seed=0).loss.backward()


def test_a_log_probability_is_accepted_as_a_node() -> None:
    g = sampling(Bernoulli, logits=nn.Parameter(torch.zeros(2)))
    g.cost("c", g.log_prob(Bernoulli, g["x"], probs=torch.full((2,), 0.3)))
    scg.compile(g, "rebar")(seed=0).loss.backward()


JUMPING: dict[str, Callable[[Tensor], Tensor]] = {
    "step": lambda z: (z > 0).float(),
    "round": lambda z: z.clamp(-3, 3).round(),
    "detached": lambda z: torch.tanh(z).detach(),
}


class Weighing(nn.Module):
    """A network with a parameter, as smooth as its function."""

    def __init__(self, fn: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.fn = nn.Parameter(torch.tensor(2.0)), fn

    def forward(self, z: Tensor) -> Tensor:
        return self.weight * self.fn(z)


@pytest.mark.parametrize("dist", [Bernoulli, Normal])
@pytest.mark.parametrize("name", JUMPING)
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_network_that_is_not_smooth_is_refused(dist: Any, name: str, wrapped: bool) -> None:
    net = Weighing(JUMPING[name]) if wrapped else JUMPING[name]
    g = scg.Graph()
    t = g.param("t", torch.tensor(0.4))
    b = g.sample("b", Bernoulli, logits=t) if dist is Bernoulli else g.sample("b", Normal, t, 1.0)
    g.cost("c", (b - 0.3) ** 2)
    with pytest.raises(scg.EstimatorError, match="the network of 'b' is not smooth in the value of 'b'"):
        scg.compile(g, scg.RELAX(net) if dist is Bernoulli else scg.LAX(net))


def test_a_constant_network_is_smooth() -> None:
    g = scg.Graph()
    t = g.param("t", torch.tensor(0.4))
    g.cost("c", (g.sample("b", Bernoulli, logits=t) - 0.3) ** 2)
    program = scg.compile(g, scg.RELAX(lambda z: 0.0 * z.detach(), relaxed_cost=False))
    program(noise=0).loss.backward()
    assert t.value.grad is not None


@pytest.mark.parametrize("name", ["temperature", "eta"])
def test_numbers_of_another_shape_than_the_plates_are_refused(name: str) -> None:
    g = scg.Graph()
    t = g.input("t", plates="p", example=torch.zeros(5))
    g.cost("c", (g.sample("b", Bernoulli, logits=t) - 0.3) ** 2)
    with pytest.raises(
        scg.EstimatorError, match=rf"{name} has shape \(3,\) and the plates of the node \(5,\)"
    ):
        scg.compile(g, scg.REBAR(**{name: torch.ones(3)}))


@pytest.mark.parametrize("value", [None, "cold", float("inf"), 0.0])
def test_a_temperature_is_a_positive_number(value: Any) -> None:
    with pytest.raises(scg.EstimatorError, match="temperature is"):
        scg.REBAR(temperature=value)
