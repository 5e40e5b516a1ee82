"""Options: every estimator there is, with the options that are worth a test."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType

from scg.estimators.coupled import Coupled
from scg.estimators.double_cv import DoubleCV
from scg.estimators.muprop import MuProp
from scg.estimators.parts.baselines import LeaveOneOut
from scg.estimators.protocol.facts import NodeFacts
from scg.estimators.protocol.kinds import Estimator
from scg.estimators.rebar import REBAR
from scg.estimators.registry import by_name, registry
from scg.estimators.relax import RELAX
from scg.estimators.score import Score

Make = Callable[[], Estimator]

VARIANTS: Mapping[str, tuple[Make, ...]] = MappingProxyType(
    {
        "score": (
            lambda: Score(baseline="moving-average"),
            lambda: Score(baseline="self-critical"),
            lambda: Score(baseline="leave-one-out"),
        ),
        "coupled": (lambda: Coupled(evaluations=4),),
        "double-cv": (lambda: DoubleCV(slope="learned"),),
        "muprop": (lambda: MuProp(slope="learned"),),
        "rebar": (
            lambda: REBAR(temperature=1.0, eta=0.6, tune=False),
            lambda: REBAR(baseline="self-critical"),
            lambda: REBAR(baseline="leave-one-out"),
        ),
        "relax": (
            lambda: RELAX(relaxed_cost=False),
            lambda: RELAX(baseline="self-critical"),
        ),
    }
)
"""Options besides those that an estimator has by default; none that scales an estimate, as normalise does."""


def makers(facts: NodeFacts, estimators: Collection[str | Estimator] | None) -> Iterator[Make]:
    """Yield what makes each estimator that a node may have, the simplest first; it may yet be refused."""
    if estimators is not None:
        for given in estimators:
            yield _maker(given)
        return
    for name in sorted(registry(), key=lambda name: (name != "score", name)):
        yield _maker(name)
        yield from VARIANTS.get(name, ())
        if name == "score":
            for axis in facts.axes:
                if axis.name != "replicates" and axis.size > 1:
                    yield _compared(axis.name)


def _maker(given: str | Estimator) -> Make:
    return (lambda: by_name(given)) if isinstance(given, str) else (lambda: given)


def _compared(axis: str) -> Make:
    return lambda: Score(baseline=LeaveOneOut(axis))
