"""Compare: every policy on one graph, compiled and measured, or refused with the reason."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from scg.choosing.policy import Policy
from scg.comparison.comparison import STANDARD, Comparison, Row
from scg.comparison.measuring import Demand, measured
from scg.comparison.reference import exact, long_run
from scg.comparison.running import seconds
from scg.errors import EstimatorError, EvaluationWarning, GraphError
from scg.estimators.score import Score
from scg.evaluation.probing import undisturbed
from scg.graph import Graph
from scg.program.program import Program
from scg.program.program import compile as compiled
from scg.progress import Progress

LONGER = 16
"""How many times more runs a reference has that is not exact."""


def compare(
    graph: Graph,
    policies: Mapping[str, Policy] | Sequence[str],
    *,
    samples: Mapping[str, int] | None = None,
    draws: int = 8192,
    steps: int = 1000,
    repeats: int = 100,
    limit: int = 2**16,
    seed: int = 0,
    progress: bool = False,
    **inputs: Any,
) -> Comparison:
    """Measure what policies are worth on a ``graph``: bias, variance, time and evaluations of one run.

    ``policies`` are names of estimators, or policies by any name. Each has no replicates unless it needs
    some, and then two, or as many as ``samples`` says by name. What learns or remembers has ``steps`` runs
    first; then there are ``draws`` runs for bias and variance, and ``repeats`` for the time. Means are held
    against the exact gradient where no more than ``limit`` joint outcomes have to be summed, and else against
    many more runs of the score function. Biased estimators are allowed, and marked. The score function with
    the other of two replicates as a baseline is measured as well, as what others are relative to. ``seed`` is
    that of all noise, ``progress`` tells how far it is, and ``inputs`` are those of the graph, from its
    examples where they are left out. Graph and policies are left as they were.

    >>> import torch, scg
    >>> g = scg.Graph()
    >>> b = g.sample("b", torch.distributions.Bernoulli, logits=g.param("theta", 0.3))
    >>> cost = g.cost("loss", (b - 0.45) ** 2)
    >>> found = scg.compare(g, ["score", "enumerate", "lax"], draws=1024, repeats=3)
    >>> [row.name for row in found.rows], list(found.refused)
    (['enumerate', 'leave-one-out of 2', 'score'], ['lax'])
    """
    demand = Demand(draws, steps, repeats, seed)
    named = policies if isinstance(policies, Mapping) else {name: name for name in policies}
    wanted: dict[str, Policy] = {STANDARD: Score(baseline="leave-one-out"), **named}
    ir, names, told = graph.freeze(), _names(graph), Progress() if progress else None
    given = {name: value for name, value in {**ir.store.examples, **inputs}.items() if name in ir.inputs}
    counts = {STANDARD: 2, **(samples or {})}
    programs, refused, rows = dict[str, Program](), dict[str, str](), list[Row]()
    for name, policy in wanted.items():
        found = _program(graph, policy, counts.get(name), given, seed)
        if isinstance(found, Program):
            programs[name] = found
        else:
            refused[name] = str(found)
    reference = exact(ir, given, names, limit)
    if reference is None and STANDARD in programs:
        reference = long_run(programs[STANDARD], given, names, draws=LONGER * draws, seed=seed)
    times = seconds(programs, given, repeats=repeats, seed=seed)
    for name, program in programs.items():
        if told is not None:
            told.tell(f"{name}, {len(rows) + 1} of {len(programs)}")
        rows.append(measured(name, program, given, names, reference, demand, seconds=times[name]))
    rows.sort(key=lambda row: (not row.is_right, row.work("evaluations")))
    against = "nothing, as there is no reference" if reference is None else reference.name
    return Comparison(tuple(rows), refused, against, draws, steps)


def _names(graph: Graph) -> list[str]:
    """Return the parameters that gradients are of."""
    ir = graph.freeze()
    ir.drawn_here("scg.compare")
    if not ir.costs:
        raise GraphError("a graph without costs has no gradient to compare: declare g.cost(...)")
    names = [name for name, parameter in graph.named_parameters() if parameter.requires_grad]
    if not names:
        raise GraphError("no parameter of the graph requires a gradient, so there is none to compare")
    return names


def _program(
    graph: Graph, policy: Policy, samples: int | None, inputs: Mapping[str, Any], seed: int
) -> Program | EstimatorError:
    """Compile a policy, with two replicates where it is refused without, or return why it is refused."""
    why: EstimatorError | None = None
    for count in (None, 2) if samples is None else (samples,):
        try:
            with undisturbed({}, seed), warnings.catch_warnings(), torch.enable_grad():
                warnings.simplefilter("ignore", EvaluationWarning)  # of what the table counts
                return compiled(graph, policy, samples=count, allow_biased=True).prepare(**inputs)
        except EstimatorError as error:
            why = why or error
    assert why is not None
    return why
