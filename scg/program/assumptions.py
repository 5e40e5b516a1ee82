"""Assumptions: the facts that a program relies on, each with how it is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from scg.nodes.records import Det
from scg.probes.smoothness import Smoothness
from scg.program.prepare import Prepared
from scg.standing import Assumption, Standing

CALLED = {
    "broadcast": "takes replicates and branches as one more dimension",
    "fold": "takes replicates and branches as more elements of its leftmost plate",
    "vmap": "takes replicates and branches by torch.vmap",
}


def assumptions(prepared: Prepared) -> tuple[Assumption, ...]:
    """Return what a program relies on, in the order of the graph, as far as it was asked for."""
    place = {name: index for index, name in enumerate(prepared.ir)}
    found = [
        *_declared(prepared),
        *_biased(prepared),
        *_apart(prepared),
        *_smooth(prepared),
        *_many(prepared),
        *_hidden(prepared),
    ]
    return tuple(sorted(dict.fromkeys(found), key=lambda fact: place.get(fact.node, len(place))))


def counted(facts: Iterable[Assumption]) -> str:
    """Say how many facts there are of each standing.

    >>> counted([Assumption("h", "is smooth in 'z'", "probed"), Assumption("h", "mixes 'batch'", "declared")])
    '1 declared, 1 probed'
    """
    numbers = Counter(fact.standing for fact in facts)
    order: tuple[Standing, ...] = ("declared", "structural", "probed", "assumed")
    return ", ".join(f"{numbers[standing]} {standing}" for standing in order if numbers[standing])


def _declared(prepared: Prepared) -> Iterator[Assumption]:
    for record in prepared.ir.records():
        if not isinstance(record, Det):
            continue
        if record.differentiable is False:
            yield Assumption(record.name, "is a black box, without a gradient", "declared")
        for plate in sorted(record.mixes):
            yield Assumption(record.name, f"mixes elements of plate '{plate}'", "declared")
        if record.relaxed is not None:
            yield Assumption(record.name, "has a function of its own at relaxed values", "declared")


def _biased(prepared: Prepared) -> Iterator[Assumption]:
    for name, choice in prepared.choices.items():
        for estimator in choice.estimators:
            if not estimator.unbiased:
                options = f" with {' and '.join(estimator.biased_by)}" if estimator.biased_by else ""
                yield Assumption(name, f"is estimated by '{estimator.name}'{options}, biased", "declared")


def _apart(prepared: Prepared) -> Iterator[Assumption]:
    for (name, plate), finding in prepared.facts.findings.items():
        yield Assumption(name, f"keeps elements of plate '{plate}' apart", finding.standing)
    for plate in prepared.facts.assumed:
        claim = "has one element in the example; functions were recorded and probed with more"
        yield Assumption(f"plate {plate}", claim, "assumed")


def _smooth(prepared: Prepared) -> Iterator[Assumption]:
    for (parent, child), verdict in prepared.facts.known_edges.items():
        if verdict.smoothness is Smoothness.SMOOTH:
            yield Assumption(child, f"is smooth in '{parent}'", verdict.standing)


def _many(prepared: Prepared) -> Iterator[Assumption]:
    for name, mode in prepared.modes.items():
        if mode in CALLED:
            yield Assumption(name, CALLED[mode], "structural")


def _hidden(prepared: Prepared) -> Iterator[Assumption]:
    for claim in prepared.facts.hidden.assumptions:
        yield Assumption("", claim, "assumed")
