"""Policy: which estimator each stochastic node gets, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from types import MappingProxyType

from scg.analysis.facts import Facts
from scg.choosing.automatic import AUTO, automatic, dear_sums
from scg.choosing.choice import Choice, recovers
from scg.choosing.describe import node_facts
from scg.choosing.orders import order_fault
from scg.choosing.parts import Part, Parts
from scg.choosing.refusing import refused
from scg.errors import BiasedEstimatorError, EstimatorError, PolicyError
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.border import asked
from scg.estimators.protocol.facts import NodeFacts
from scg.estimators.protocol.kinds import Estimator
from scg.estimators.registry import asked_for
from scg.nodes.ir import IR
from scg.nodes.records import Cost

PolicyEntry = str | Estimator | Parts
Policy = PolicyEntry | Mapping[str, PolicyEntry]


def match(ir: IR, policy: Policy) -> dict[str, PolicyEntry]:
    """Return what the policy says of each stochastic node; the later of several matching keys wins.

    Exact names win over globs.
    """
    samples = ir.samples
    if not isinstance(policy, Mapping):
        return {name: _known(policy) for name in samples}
    wanted: dict[str, PolicyEntry] = dict.fromkeys(samples, AUTO)
    for key in sorted(policy, key=lambda key: key in ir):
        matching = [name for name in samples if fnmatchcase(name, key)]
        if not matching:
            kind = (
                f"'{key}' is a {type(ir[key]).__name__.lower()}" if key in ir else f"'{key}' matches nothing"
            )
            hint = ": costs have no estimator" if key in ir and isinstance(ir[key], Cost) else ""
            raise PolicyError(
                f"policy key {kind}{hint}; the stochastic nodes are {', '.join(samples) or 'none'}"
            )
        wanted.update({name: _known(policy[key]) for name in matching})
    return wanted


def _known(entry: PolicyEntry) -> PolicyEntry:
    """Return the instance that an entry asks for; a name asks for a new one at every node."""
    if isinstance(entry, Parts) or (isinstance(entry, str) and entry == AUTO):
        return entry
    return asked_for(entry, "a policy")


def choose(
    facts: Facts,
    policy: Policy,
    samples: int | None,
    *,
    allow_biased: bool,
    order: int = 1,
    coupled: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Choice]:
    """Return the choice for every stochastic node; all refusals are reported together.

    ``coupled`` has the scheme of each node whose noise is coupled across replicates.
    """
    wanted = match(facts.ir, policy)
    choices: dict[str, Choice] = {}
    faults: list[EstimatorError] = []
    told = {name: node_facts(facts, name, samples, coupled.get(name)) for name in wanted}
    dear = dear_sums(facts, told, wanted)
    for name, entry in wanted.items():
        if isinstance(entry, str):
            further = partial(order_fault, facts, told[name], order=order)
            choices[name] = automatic(told[name], dear.get(name), further)
        elif isinstance(entry, Parts):
            choices[name] = _in_parts(facts, told[name], entry, samples, allow_biased, faults)
        else:
            choices[name] = _asked_for(entry, told[name], allow_biased, faults)
    if not faults:
        faults += _of_orders(facts, told, choices, order)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        kind = (
            BiasedEstimatorError
            if all(isinstance(f, BiasedEstimatorError) for f in faults)
            else EstimatorError
        )
        raise kind("\n".join(str(fault) for fault in faults))
    return {name: replace(choice, coupled=coupled.get(name)) for name, choice in choices.items()}


def _of_orders(
    facts: Facts, told: Mapping[str, NodeFacts], choices: Mapping[str, Choice], order: int
) -> list[EstimatorError]:
    """Return what is wrong with choices where the loss is differentiated several times."""
    found = list[EstimatorError]()
    for name, choice in choices.items():
        several = isinstance(choice.estimator, Parts)
        fault = "give the node one estimator" if several and order > 1 else None
        if isinstance(choice.estimator, Estimator):
            fault = order_fault(facts, told[name], choice.estimator, order)
        if fault is not None:
            how = choice.estimator.name
            found.append(EstimatorError(f"{how} cannot estimate '{name}' with order={order}: {fault}"))
    return found


def _asked_for(
    estimator: Estimator, facts: NodeFacts, allow_biased: bool, faults: list[EstimatorError]
) -> Choice:
    fault = refused(estimator, facts, allow_biased)
    if fault is not None:
        faults.append(fault)
    asks = Asks() if fault else asked(estimator, facts)
    return Choice(estimator, "asked for", asks, recovers=recovers(estimator, facts))


def _in_parts(
    facts: Facts,
    known: NodeFacts,
    entry: Parts,
    samples: int | None,
    allow_biased: bool,
    faults: list[EstimatorError],
) -> Choice:
    """Return the choice for a node with several estimators, each asked of the graph with its costs alone."""
    name, coupled = known.name, known.coupled
    found: dict[Part, Choice] = {}
    reached = list(facts.influence.costs_of(facts.influence.reached[name]))
    for part in entry.shared_out(name, reached, facts.ir.costs):
        narrow = node_facts(facts.only(part.costs), name, samples, coupled)
        own = _asked_for(part.estimator, narrow, allow_biased, faults)
        if own.asks.detached:
            faults.append(
                EstimatorError(
                    f"{part.estimator.name} at '{name}' changes what all costs read of its log-probability: "
                    "give it to the whole node, and not to a part of the costs"
                )
            )
        found[part] = replace(own, coupled=coupled)
    several = [choice.asks for choice in found.values()]
    together = Asks(
        site=any(asks.site for asks in several),
        fresh=tuple(kind for asks in several for kind in asks.fresh),
        standard=any(asks.standard for asks in several),
        downstream=sum(asks.downstream for asks in several),
        relaxed=sum(asks.relaxed for asks in several),
        redraws=max((asks.redraws for asks in several), default=0),
    )
    recovers = any(choice.recovers for choice in found.values())
    return Choice(entry, entry.reason, together, found, recovers)
