"""The score-function estimator and its options."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from scg.errors import EstimatorError
from scg.estimators.parts import ratios as parts
from scg.estimators.parts.baselines import Baseline, Word, baseline_of
from scg.estimators.parts.groups import deviation, group_of
from scg.estimators.parts.memory import Memory
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Scored
from scg.estimators.protocol.site import Site

FITS = ("variance", "credit")


@dataclass(frozen=True, eq=False)
class Score(Scored):
    """The score-function estimator (Q - b) dlog p(x), b a baseline that x does not influence.

    Williams (1992, "Simple statistical gradient-following algorithms"). ``baseline`` is a word
    ("moving-average", "leave-one-out", "self-critical"), a module that reads ``context`` (the node's parents
    if None), or a ``scg.Baseline``; baselines add. ``normalise=True`` divides by the past standard deviation
    of the credit where that exceeds 1, and ``"group"`` by that of the elements which the baseline compares
    (Shao et al., 2024, arXiv:2402.03300). A network is ``fit`` on the "variance" of the estimate, or on the
    "credit", by squared error; None is the variance, and for critics their return.

    Where the value was drawn from another law, ``ratios`` tells what weighs it: the "product" over all that a
    cost depends on, or that of the "step" alone, which is bounded by ``truncate``, or no longer followed
    where it is further than ``clip`` from 1. ``restart`` counts every step of an ordered plate as 1, and not
    as its discount. Of these, all but the product are biased, as is the group.

    With ``redraws=k`` all that is drawn below the value is drawn k times more, and Q is the mean over those
    and the sample: the k + 1 costs have the same conditional mean (Schulman et al., 2015, arXiv:1502.05477).
    """

    name: ClassVar[str] = "score"
    tried: ClassVar[int | None] = 3

    # what is kept is a Baseline, which is called as the method of the kind is
    baseline: Word | nn.Module | Baseline | None = None  # type: ignore[assignment]
    context: Any = None
    normalise: bool | Literal["group"] = False
    _: KW_ONLY
    ratios: parts.Word | None = None
    truncate: float | None = None
    clip: float | None = None
    fit: Literal["variance", "credit"] | None = None
    restart: bool = False
    redraws: int = 0

    def __post_init__(self) -> None:
        """Take a word or a module for the baseline that it stands for; refuse options that mean nothing."""
        object.__setattr__(self, "baseline", baseline_of(self.baseline, self.context))
        object.__setattr__(self, "context", None)
        if not isinstance(self.normalise, bool) and self.normalise != "group":
            raise EstimatorError(f"normalise is True, False or 'group', not {self.normalise!r}")
        if self.normalise == "group":
            group_of(self.kept)
        parts.check_ratios(self.ratios, self.truncate, self.clip)
        if self.fit is not None and self.fit not in FITS:
            raise EstimatorError(f"fit is one of {FITS}, or None, not {self.fit!r}")
        if self.fit is not None and self.kept.net is None:
            raise EstimatorError("fit= is what a network descends: give baseline=module too")
        if isinstance(self.redraws, bool) or not isinstance(self.redraws, int) or self.redraws < 0:
            raise EstimatorError(f"redraws is a number of draws, 0 or more, not {self.redraws!r}")
        object.__setattr__(self, "biased_by", self._biased_by())
        object.__setattr__(self, "unbiased", not self.biased_by)

    @classmethod
    def automatic(cls, facts: NodeFacts) -> Score:
        """Prefer the other replicates as a baseline where they can be compared, else the past."""
        return cls(baseline="leave-one-out" if facts.others > 0 else "moving-average")

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse a support that moves, options without use, and what the baseline refuses."""
        if facts.moving is not None:
            return moves(facts)
        if self.restart and all(axis.discount == 1.0 for axis in facts.axes):
            return Refusal("no plate here has a discount that restart=True would restart", "leave it out")
        if self.kept.stands_alone and facts.is_weighed and not self.is_by_step:
            told = f"{type(self.kept).__name__} takes costs step by step, and products of ratios weigh them"
            return Refusal(told, 'give ratios="step"')
        return parts.unknown(facts, self._ratios) or self.kept.refuses(facts)

    def refuses_order(self, facts: NodeFacts) -> Refusal | None:
        """Refuse all but baselines that learn nothing by gradients."""
        if self.kept.net is not None:
            reason = "its network would descend the variance of first derivatives"
            return Refusal(reason, 'use baseline="leave-one-out" or "moving-average"')
        options = (*self.biased_by, *(["normalise=True"] if self.normalise is True else []))
        return Refusal(f"{options[0]} is no baseline", "leave it out") if options else None

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for what the baseline asks for, and for the site if an option reads it."""
        asks, reads = self.kept.asks(), bool(self.normalise) or self.is_by_step or self.restart
        redraws = self.redraws if self.redraws and facts.drawn_below() else 0
        site = asks.site or reads or redraws > 0
        return replace(asks, site=site, by_step=self.is_by_step, restarts=self.restart, redraws=redraws)

    def learns(self, facts: NodeFacts) -> nn.Module | None:
        """Return the memory of past credit, with the baseline's network if there is one."""
        if self.kept.net is None and not self.is_of_the_past:
            return None
        each = facts.axis(self.kept.each)
        return Memory(self.kept.net, deviates=self.normalise is True, each=each)

    def factor(self, site: Site) -> Tensor:
        """Return Q - b, over a standard deviation and times a ratio where that is asked for."""
        site = averaged(site)
        factor = site.credit - self.kept(site)
        if self.normalise == "group":
            factor = factor / deviation(site.credit, site.dim(group_of(self.kept)))
        elif self.normalise:
            assert isinstance(site.controls, Memory)
            factor = factor / site.controls.placed(site.controls.deviation(), site)
        return parts.weighed(site, factor, self.truncate, self.clip) if self.is_by_step else factor

    def loss(self, site: Site) -> Tensor | None:
        """Return the squared error of the credit, or what the baseline descends of its own accord."""
        site = averaged(site)
        if self.fit == "credit":
            return (site.credit - self.kept.prediction(site, site.credit)).square()
        return None if self.fit == "variance" else self.kept.error(site, site.credit)

    def remember(self, site: Site) -> None:
        """Add the credit to what the moving average and the deviation are of."""
        if site.training and self.is_of_the_past:
            assert isinstance(site.controls, Memory)
            site.controls.update(averaged(site).credit, site.weight, site.unit, site)

    @property
    def kept(self) -> Baseline:
        """The baseline."""
        assert isinstance(self.baseline, Baseline)
        return self.baseline

    @property
    def is_of_the_past(self) -> bool:
        """Whether past credit is remembered."""
        return self.normalise is True or self.kept.remembers

    @property
    def is_by_step(self) -> bool:
        """Whether the ratio of a step alone is counted."""
        return self.ratios == "step" or self.truncate is not None or self.clip is not None

    @property
    def _ratios(self) -> tuple[str, ...]:
        return parts.written(self.ratios, self.truncate, self.clip)

    def _biased_by(self) -> tuple[str, ...]:
        """Return the options that make it biased, as they are written."""
        found = [] if self.kept.unbiased else [f"baseline={type(self.kept).__name__}"]
        found += ["normalise='group'"] if self.normalise == "group" else []
        found += self._ratios if self.is_by_step else ()
        found += ["restart=True"] if self.restart else []
        return tuple(found)


def averaged(site: Site) -> Site:
    """Return a site whose credit is the mean over the sample and what was drawn anew, where something was."""
    again = site.provided.redrawn
    if again is None:
        return site
    return replace(site, credit=(site.credit + again.sum(0)) / (1 + len(again)))


def moves(facts: NodeFacts) -> Refusal:
    """Refuse a support that moves with a parameter."""
    return Refusal(
        f"the support of its {facts.law.family} moves with parameter '{facts.moving}', which the score does "
        "not see"
    )
