"""Laws: distribution families as pure functions of parameter tensors and base noise."""

from scg.laws.bernoulli import Bernoulli
from scg.laws.build import bind, law_for, law_of
from scg.laws.categorical import Categorical
from scg.laws.counts import bound_of, bounded, trials, unbounded, unbounded_count
from scg.laws.law import Law, Parameters, broadcast, sum_event
from scg.laws.numbers import can_look, divisor, exporting, is_exporting, is_seen_finite, is_transformed
from scg.laws.registry import LAWS
from scg.laws.relaxable import Relaxable

__all__ = [
    "LAWS",
    "Bernoulli",
    "Categorical",
    "Law",
    "Parameters",
    "Relaxable",
    "bind",
    "bound_of",
    "bounded",
    "broadcast",
    "can_look",
    "divisor",
    "exporting",
    "is_exporting",
    "is_seen_finite",
    "is_transformed",
    "law_for",
    "law_of",
    "sum_event",
    "trials",
    "unbounded",
    "unbounded_count",
]
