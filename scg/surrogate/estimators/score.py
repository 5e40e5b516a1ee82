"""The score-function estimator and its baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from scg.errors import EstimatorError
from scg.surrogate.estimators.base import Action, Estimator, NodeFacts, Remedy, names_of
from scg.surrogate.estimators.memory import Memory
from scg.surrogate.estimators.site import Site, left_out

BASELINES = ("moving-average", "leave-one-out", "self-critical")


@dataclass(frozen=True, eq=False)
class Score(Estimator):
    """The score-function estimator (Q - b) dlog p(x), b a baseline that x does not influence.

    Williams (1992, "Simple statistical gradient-following algorithms"); baselines: a moving average
    of past credit; the other replicates (Kool et al., 2019, "Buy 4 REINFORCE samples, get a baseline
    for free!"); the cost at the greedy value (Rennie et al., 2017, arXiv:1612.00563); a network of
    ``context`` trained on the variance (Mnih and Gregor, 2014, arXiv:1402.0030), whose
    ``normalise=True`` divides by the past standard deviation where that exceeds 1.
    """

    name: ClassVar[str] = "score"
    preference: ClassVar[int] = 3

    baseline: str | nn.Module | None = None
    context: Any = None
    normalise: bool = False

    def __post_init__(self) -> None:
        """Refuse a baseline that is no name of one and no module."""
        if isinstance(self.baseline, str) and self.baseline not in BASELINES:
            raise EstimatorError(f"baseline is None, a module, or one of {BASELINES}, not {self.baseline!r}")
        if self.context is not None and not isinstance(self.baseline, nn.Module):
            raise EstimatorError("context= is what a baseline module reads: give baseline=module too")

    @classmethod
    def automatic(cls, facts: NodeFacts) -> Score:
        """Prefer the other replicates as a baseline where there are any, else the past."""
        return cls(baseline="leave-one-out" if (facts.samples or 1) > 1 else "moving-average")

    @property
    def action(self) -> Action:
        """The value passes on detached."""
        return Action.CUT

    def refuses(self, facts: NodeFacts) -> str | None:
        """Refuse a support that moves with a parameter, and replicates that are not there."""
        if facts.moving is not None:
            return Remedy(
                f"the support of its {facts.law.family} moves with parameter '{facts.moving}', which the "
                f'score does not see. Use "reparam", or a distribution with a fixed support'
            )
        if self.baseline == "leave-one-out" and (facts.samples or 1) < 2:
            return Remedy("leave-one-out compares replicates: compile with samples=2 or more")
        if self.baseline == "self-critical" and not facts.has_mode:
            return f"self-critical needs the most likely value, which a {facts.law.family} does not give"
        return None

    def controls(self, facts: NodeFacts) -> nn.Module | None:
        """Return the memory of past credit, with the baseline module if there is one."""
        net = self.baseline if isinstance(self.baseline, nn.Module) else None
        if net is None and not self.normalise and self.baseline != "moving-average":
            return None
        return Memory(net, deviates=self.normalise)

    def evaluations(self, facts: NodeFacts) -> int:
        """Return 1, or 2 where the greedy value is evaluated as well."""
        return 2 if self.needs_downstream else 1

    @property
    def needs_site(self) -> bool:
        """Without a baseline the credit itself is the factor."""
        return self.baseline is not None or self.normalise

    @property
    def needs_downstream(self) -> bool:
        """Self-critical training evaluates the graph below at the greedy value."""
        return self.baseline == "self-critical"

    @property
    def reads_context(self) -> tuple[str, ...] | None:
        """A baseline module reads the node's parents unless told otherwise."""
        if not isinstance(self.baseline, nn.Module):
            return None
        return names_of(self.context)

    def factor(self, site: Site) -> Tensor:
        """Return Q - b, over the past standard deviation where that is asked for."""
        factor = site.credit - self._baseline(site)
        if not self.normalise:
            return factor
        assert isinstance(site.controls, Memory)
        return factor / site.controls.deviation()

    def remember(self, site: Site) -> None:
        """Add the credit to what the moving average and the deviation are of."""
        if site.training and (self.normalise or self.baseline == "moving-average"):
            assert isinstance(site.controls, Memory)
            site.controls.update(site.credit, site.weight, site.unit)

    def _baseline(self, site: Site) -> Tensor:
        credit = site.credit
        if self.baseline == "leave-one-out":
            return left_out(credit)
        if self.baseline == "self-critical":
            greedy = site.law.mode(site.parameters).expand(site.value.shape)
            return site.downstream(greedy.to(site.value.dtype)[None])[0]
        memory = site.controls
        if self.baseline == "moving-average":
            assert isinstance(memory, Memory)
            return memory.mean()
        if isinstance(self.baseline, nn.Module):
            return site.predict()
        return torch.zeros((), dtype=credit.dtype, device=credit.device)
