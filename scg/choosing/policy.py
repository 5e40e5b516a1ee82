"""Policy: which estimator each stochastic node gets, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import islice
from types import MappingProxyType

from scg.analysis.elimination import Scope
from scg.analysis.facts import Facts
from scg.choosing.describe import node_facts
from scg.choosing.meeting import described, meeting, remedy
from scg.choosing.orders import order_fault
from scg.choosing.parts import Part, Parts
from scg.errors import BiasedEstimatorError, EstimatorError, PolicyError
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.border import asked, check_kind, refusal
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Branched, Cut, Estimator, Scored, Through
from scg.estimators.registry import by_name, has_defaults, in_turn, registry
from scg.nodes.ir import IR
from scg.nodes.records import Cost

AUTO = "auto"
AFFORDABLE = 64
"""The most evaluations, or joint branches of all nodes it enumerates, that automatic choice pays."""

NAMED = 2
"""How many alternatives a refusal names."""

PolicyEntry = str | Estimator | Parts
Policy = PolicyEntry | Mapping[str, PolicyEntry]


@dataclass(frozen=True)
class Choice:
    """The estimator of one node, the reason it was chosen, and what it asks for.

    ``parts`` has the choice for each part, where the node has several. It ``recovers`` if an estimator reads
    noise, and the value was drawn elsewhere. The noise is ``coupled`` across replicates by a scheme, or not.
    """

    estimator: Estimator | Parts
    reason: str
    asks: Asks
    parts: Mapping[Part, Choice] = field(default_factory=dict)
    recovers: bool = False
    coupled: str | None = None

    @property
    def fresh(self) -> tuple[str, ...]:
        """The kinds of fresh noise: what is asked for, then what recovers that of a value drawn elsewhere."""
        return (*self.asks.fresh, *(("base",) if self.recovers else ()))

    @property
    def estimators(self) -> tuple[Estimator, ...]:
        """The estimator, or those of all parts."""
        if isinstance(self.estimator, Parts):
            return tuple(found for choice in self.parts.values() for found in choice.estimators)
        return (self.estimator,)

    @property
    def is_charged(self) -> bool:
        """Whether some estimator reads what the node is charged with."""
        return any(isinstance(found, (Scored, Cut)) for found in self.estimators)

    @property
    def through(self) -> Through | None:
        """The estimator that passes the value on with its gradient, if one does."""
        return next((found for found in self.estimators if isinstance(found, Through)), None)


@dataclass(frozen=True, eq=False)
class View:
    """A node as one of its estimators sees it: in the graph with only the costs that are its own.

    ``key`` is the name of the node, with that of the part where there are several: controls are held under
    it. ``fresh`` counts the tensors of fresh noise that the parts before it have.
    """

    key: str
    facts: Facts
    choice: Choice
    fresh: int = 0

    @property
    def last(self) -> str:
        """The last word of the key."""
        return self.key.rpartition(".")[2]

    @property
    def label(self) -> str:
        """What lines are called after."""
        return self.key.replace(".", "_")


def views(facts: Facts, name: str, choice: Choice) -> tuple[View, ...]:
    """Return a node as each of its estimators sees it; one in parts that reaches no cost has none."""
    if not isinstance(choice.estimator, Parts):
        return (View(name, facts, choice),)
    found, fresh = list[View](), 0
    for part, own in choice.parts.items():
        found.append(View(f"{name}.{part.key}", facts.only(part.costs), own, fresh))
        fresh += len(own.asks.fresh)
    return tuple(found)


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
    if isinstance(entry, Parts):
        return entry
    if isinstance(entry, Estimator):
        check_kind(type(entry))
        return entry
    if not isinstance(entry, str):
        raise PolicyError(f"a policy gives names or instances of estimators, not {type(entry).__name__}")
    return entry if entry == AUTO else by_name(entry)


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
    dear = _dear(facts, told, wanted)
    for name, entry in wanted.items():
        if isinstance(entry, str):
            further = partial(order_fault, facts, told[name], order=order)
            choices[name] = _automatic(told[name], dear.get(name), further)
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
    fault = _refusal(estimator, facts, allow_biased)
    if fault is not None:
        faults.append(fault)
    asks = Asks() if fault else asked(estimator, facts)
    return Choice(estimator, "asked for", asks, recovers=_recovers(estimator, facts))


def _recovers(estimator: Estimator, facts: NodeFacts) -> bool:
    """Say whether fresh noise is needed to recover that of a value drawn elsewhere."""
    return facts.is_given and isinstance(estimator, Cut) and facts.law.noise != "value"


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


def _refusal(estimator: Estimator, facts: NodeFacts, allow_biased: bool) -> EstimatorError | None:
    if not estimator.unbiased and not allow_biased:
        options = " and ".join(estimator.biased_by)
        told = f" with {options}" if options else ""
        other = f"leave {options} out" if options else f"use {_alternatives(facts, estimator.name)}"
        return BiasedEstimatorError(
            f"'{estimator.name}'{told} at '{facts.name}' is biased: compile with allow_biased=True to accept "
            f"that, or {other}"
        )
    found = refusal(estimator, facts)
    if found is None:
        return None
    ending = "" if found.instead is not None else f". Use {_alternatives(facts, estimator.name)}"
    return EstimatorError(f"{estimator.name} cannot estimate '{facts.name}': {found}{ending}")


def _alternatives(facts: NodeFacts, refused: str) -> str:
    """Name the best estimators that a node can have, but the one that was refused."""
    best = [f'"{name}"' for name in islice(_able(facts, refused), NAMED)]
    if best:
        return " or ".join(best)
    known = registry().get(refused)
    is_able = known is not None and has_defaults(known) and refusal(known(), facts) is None
    return "it with other options" if is_able else "another distribution: no estimator can carry it"


def _able(facts: NodeFacts, refused: str) -> Iterator[str]:
    """Yield what is unbiased and not refused at a node, as by automatic choice, then what it leaves out.

    What takes more evaluations than automatic choice pays comes last.
    """
    dear = []
    others = [kind for name, kind in sorted(registry().items()) if kind.tried is None]
    for kind in (*in_turn(), *others):
        if not kind.unbiased or kind.name == refused or not has_defaults(kind):
            continue
        estimator = kind()
        if not estimator.unbiased or refusal(estimator, facts) is not None:
            continue
        if asked(estimator, facts).evaluations > AFFORDABLE:
            dear.append(kind.name)
        else:
            yield kind.name
    yield from dear


def _dear(facts: Facts, told: Mapping[str, NodeFacts], wanted: Mapping[str, PolicyEntry]) -> dict[str, str]:
    """Return why the sums over finite nodes left to automatic choice cost too much, where they do.

    Nodes whose branches meet are enumerated together or not at all.
    """
    outcomes = {
        name: told[name].branches or 1
        for name, entry in wanted.items()
        if told[name].branches is not None and (entry == AUTO or isinstance(entry, Branched))
    }
    automatic = frozenset(name for name in outcomes if wanted[name] == AUTO)
    if not automatic:
        return {}
    found, reasons = meeting(facts, outcomes), dict[str, str]()
    for group in found.groups:
        count = found.widest(group)
        if found.evaluations(group & automatic) > AFFORDABLE:
            reason = f"it takes more than {AFFORDABLE} evaluations"
        elif count > Branched.limit:
            reason = f"{count} joint outcomes would be summed over at once"
        else:
            continue
        reasons.update(dict.fromkeys(group, reason))
    return reasons


def _automatic(facts: NodeFacts, dear: str | None, further: Callable[[Estimator], str | None]) -> Choice:
    """Return the first estimator, by declared preference, that is unbiased, right and affordable.

    ``dear`` says why enumerating it, with what it meets, is not, if so. ``further`` says what is wrong with
    one beyond the first derivative.
    """
    passed: list[tuple[str, str]] = []
    for kind in in_turn():
        estimator = kind.automatic(facts)
        reason = _passes(estimator, facts, dear)
        if reason is None and isinstance(estimator, Estimator):
            reason = further(estimator)
        if isinstance(estimator, Estimator) and reason is None:
            why = "; ".join(f"{name}: {found}" for name, found in passed)
            chosen = f"automatic{', since ' + why if why else ''}"
            asks = asked(estimator, facts)
            return Choice(estimator, chosen, asks, recovers=_recovers(estimator, facts))
        passed.append((kind.name, str(reason)))
    found = "; ".join(f"{name}: {reason}" for name, reason in passed)
    by_name = [f'"{name}"' for name in islice(_able(facts, ""), NAMED)]
    if by_name:
        use = " or ".join(by_name)
        raise EstimatorError(f"no estimator is chosen for '{facts.name}': {found}. Use {use}, by its name")
    raise EstimatorError(f"no estimator can carry '{facts.name}': {found}")


def _passes(estimator: Estimator | Refusal, facts: NodeFacts, dear: str | None) -> str | None:
    """Return why automatic choice passes over an estimator, or None."""
    if isinstance(estimator, Refusal):
        return str(estimator)
    if not estimator.unbiased:
        return "it is biased"
    found = refusal(estimator, facts)
    if found is not None or not facts.reaches_cost:
        return None if found is None else str(found)
    if isinstance(estimator, Branched):
        return dear
    paid = asked(estimator, facts).evaluations
    return f"it takes more than {AFFORDABLE} evaluations" if paid > AFFORDABLE else None


def check_branches(facts: Facts, choices: Mapping[str, Choice]) -> None:
    """Refuse enumerated nodes of which too many outcomes are summed over at once, whatever the order."""
    limits = {n: c.estimator.limit for n, c in choices.items() if isinstance(c.estimator, Branched)}
    found = meeting(facts, {name: choices[name].asks.branches for name in limits})
    charged = {name for name, choice in choices.items() if choice.is_charged}
    over = [scope for scope in found.sums(charged) if found.size(scope) > _limit(limits, scope)]
    if over:
        widest = max(over, key=found.size)
        raise EstimatorError(
            f"the branches of {described(found, widest)} are summed over at once: {found.size(widest)} joint "
            f"outcomes are over the limit of {_limit(limits, widest)}. "
            f"{remedy(found, _limit(limits, widest))}, or raise limit="
        )


def _limit(limits: Mapping[str, int], scope: Scope) -> int:
    """Return how many joint outcomes of several nodes may be summed over at once."""
    return max(limits[name] for name in scope)
