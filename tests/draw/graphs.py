"""Graphs to draw, written directly as records."""

from __future__ import annotations

import operator
import random
from collections.abc import Mapping

import networkx as nx
from torch.distributions import Bernoulli

from scg.nodes.arguments import Arguments, Ref
from scg.nodes.ir import IR
from scg.nodes.plates import Plate
from scg.nodes.records import Constant, Cost, Det, Function, Input, LogProb, Param, Record, Sample, identity


def reads(*parents: str) -> Arguments:
    return Arguments(args=tuple(Ref(parent) for parent in parents))


def function(*values: object) -> object:
    return values


def det(name: str, *parents: str) -> Det:
    return Det(name=name, fn=Function(function), arguments=reads(*parents))


def sample(name: str, *parents: str) -> Sample:
    return Sample(name=name, dist=Function(Bernoulli), arguments=reads(*parents))


def cost(name: str, *parents: str) -> Cost:
    fn = Function(identity if len(parents) == 1 else function)
    return Cost(name=name, fn=fn, arguments=reads(*parents))


def ir(
    *records: Record,
    plates: Mapping[str, int | None] | None = None,
    layout: Mapping[str, tuple[str, ...]] | None = None,
) -> IR:
    dag = nx.DiGraph()
    for record in records:
        dag.add_node(record.name, record=record)
        dag.add_edges_from((parent, record.name) for parent in record.parents)
    declared = {name: Plate(name=name, size=size) for name, size in (plates or {}).items()}
    return IR(dag, declared, {name: (layout or {}).get(name, ()) for name in dag})


def schulman() -> dict[str, IR]:
    """The five graphs of Figure 1."""
    theta = Param(name="theta")
    return {
        "one": ir(theta, det("x", "theta"), sample("y", "x"), cost("f", "y")),
        "two": ir(theta, sample("x", "theta"), det("y", "x"), cost("f", "y")),
        "three": ir(theta, sample("x", "theta"), sample("y", "x"), cost("f", "y")),
        "four": ir(theta, det("x", "theta"), sample("y", "x"), cost("f", "x", "y")),
        "five": ir(
            theta,
            Input(name="x0"),
            sample("x1", "x0", "theta"),
            sample("x2", "x1", "theta"),
            cost("f1", "x1"),
            cost("f2", "x2"),
        ),
    }


def vae() -> IR:
    records = (
        Param(name="prior"),
        Input(name="x"),
        det("logits", "x"),
        sample("b", "logits"),
        det("xhat", "b"),
        LogProb(name="log_prob", value="b", of="b"),
        LogProb(name="log_prob_1", value="b", dist=Function(Bernoulli), arguments=reads("prior")),
        LogProb(name="log_prob_2", value="x", dist=Function(Bernoulli), arguments=reads("xhat")),
        Det(name="sub_1", fn=Function(operator.sub), arguments=reads("log_prob", "log_prob_1")),
        Det(name="sub_2", fn=Function(operator.sub), arguments=reads("sub_1", "log_prob_2")),
        cost("nelbo", "sub_2"),
    )
    inside = {record.name: ("batch",) for record in records if record.name != "prior"}
    return ir(*records, plates={"batch": 24}, layout=inside)


def crossed() -> IR:
    """Two plates of which neither holds the other."""
    records = (
        Param(name="mu"),
        sample("user", "mu"),
        sample("item", "mu"),
        det("rating", "user", "item"),
        det("error", "rating"),
        cost("loss", "error"),
    )
    both = dict.fromkeys(("rating", "error", "loss"), ("users", "items"))
    layout = {"user": ("users",), "item": ("items",), **both}
    return ir(*records, plates={"users": 3, "items": None}, layout=layout)


def chain(length: int) -> IR:
    records: list[Record] = [Param(name="theta")]
    for index in range(length):
        parents = [records[-1].name, "theta"] if index % 7 == 3 else [records[-1].name]
        records.append((sample if index % 3 == 1 else det)(f"v{index}", *parents))
    return ir(*records, cost("loss", records[-1].name))


def random_graph(seed: int, nodes: int = 30, *, reach: int = 8) -> IR:
    """A graph with a constant, leaves of both kinds, skip edges and two nested plates."""
    draw = random.Random(seed)
    records: list[Record] = [Constant(name="constant"), Param(name="theta"), Input(name="data")]
    layout: dict[str, tuple[str, ...]] = {"data": ("outer",)}
    for index in range(nodes - 3):
        count = draw.choice((1, 1, 2, 2, 3))
        parents = sorted({draw.choice(records[-reach:]).name for _ in range(count)})
        name = draw.choice(("h", "node", "hidden_state")) + str(index)
        kind = draw.choice((det, det, sample, sample, cost))
        records.append(cost(name, parents[0]) if kind is cost else kind(name, *parents))
        layout[name] = draw.choice(((), ("outer",), ("outer",), ("outer", "inner")))
    return ir(*records, plates={"outer": 24, "inner": None}, layout=layout)


def plated(seed: int) -> IR:
    """A graph whose nodes lie in any of three plates, which cross in every way."""
    draw = random.Random(seed)
    records = random_graph(seed, draw.choice((5, 12, 40)), reach=draw.choice((3, 8, 30))).records()
    graph = ir(*records)
    layout = {name: tuple(plate for plate in "abc" if draw.random() < 0.4) for name in graph}
    return ir(*graph.records(), plates=dict.fromkeys("abc"), layout=layout)
