"""Cases: random graphs under random policies whose mean gradient can be integrated, and how far off it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import networkx as nx
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor

import scg
from scg.nodes.records import Sample
from scg.testing import graphs, inputs, policies
from scg.testing.words import FINITE
from tests.contract.instances import Odd, stirred
from tests.contract.judge import gap, warmed
from tests.support.mean import Rule, mean_gradient

SPREAD = 0.03
"""The scale of Normals, small enough for a few points to integrate any function here."""
FEW = 2
"""The most numbers that are integrated over where an estimate is smooth in them."""
FORCED = (FINITE["choice"].dist, FINITE["hot"].dist)
"""Laws whose outcomes are forced: right for what is drawn once, or where nothing is random above."""
BIASED = 1e-5
"""The difference from the exact gradient from which on a mean gradient is wrong; quadrature is that good."""


@dataclass(frozen=True)
class Case:
    """A graph, a policy for it, the replicates, and inputs."""

    graph: scg.Graph
    policy: Mapping[str, scg.Estimator]
    samples: int | None
    inputs: dict[str, Tensor]


def numbers(g: scg.Graph, name: str) -> int:
    """Return how many numbers a sample is drawn from."""
    ir = g.freeze()
    record = ir[name]
    assert isinstance(record, Sample)
    plates = prod(ir.plates[plate].size or 1 for plate in ir.layout[name])
    return plates * (2 if record.dist.call is FINITE["pair"].dist else 1)


def judged(g: scg.Graph, samples: int | None, few: int) -> list[str | scg.Estimator]:
    """Return the estimators whose mean can be integrated in a graph: smooth ones over a ``few`` numbers."""
    ir = g.freeze()
    drawn = {name: record for name in ir.samples if isinstance(record := ir[name], Sample)}
    forced = [name for name, record in drawn.items() if record.dist.call in FORCED]
    several: list[str | scg.Estimator] = ["score", scg.Score(baseline="moving-average"), "reparam"]
    several.append(scg.Score(baseline="leave-one-out"))
    if all(nx.ancestors(ir.dag, name).isdisjoint(drawn) for name in forced):
        several += ["enumerate", "local", scg.Score(baseline="self-critical")]
    several += [] if forced else ["disarm"]
    if not forced and samples is None and sum(numbers(g, name) for name in drawn) <= few:
        has_events = any(record.dist.call is FINITE["pair"].dist for record in drawn.values())
        several += ["rebar", scg.REBAR(temperature=1.0, eta=0.6, tune=False), "lax"]
        several.append(scg.RELAX(Odd(rank=int(has_events))))
    return several


@st.composite
def cases(draw: DrawFn, depth: int = 6, few: int = FEW) -> Case:
    """Draw a graph, large or small enough for every estimator, and all that is needed to judge it."""
    samples = draw(st.sampled_from([None, 2]))
    if draw(st.booleans()):
        g = draw(graphs(depth=2, width=1, plates=1, cases=8, spread=SPREAD))
    else:
        g = draw(graphs(depth=depth, cases=32, spread=SPREAD))
    return Case(g, draw(policies(g, judged(g, samples, few), samples=samples)), samples, draw(inputs(g)))


def difference(case: Case) -> float:
    """Return how far the mean gradient of a program is from the exact one, on the scale of that."""
    g, names = case.graph, {estimator.name for estimator in case.policy.values()}
    rule = Rule(within=14 if names & {"rebar", "relax"} else 1, mirrored="coupled" in names)
    program = warmed(stirred(scg.compile(g, case.policy, samples=case.samples)), case.inputs)
    found = mean_gradient(g, program, case.inputs, rule, samples=case.samples)
    expected = scg.exact_gradient(g, points=8, **case.inputs)
    return gap(found, expected) / max(1.0, *(float(part.abs().max()) for part in expected.values()))
