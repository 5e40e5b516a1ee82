"""The candidates: every estimator that has a name, and the score under every baseline that has one."""

from __future__ import annotations

from typing import get_args

from scg.choosing.policy import Policy
from scg.estimators.nvil import NVIL
from scg.estimators.parts.baselines import Word
from scg.estimators.registry import has_defaults, registry, words
from scg.estimators.score import Score

FOUR = "leave-one-out of 4"
SAMPLES = {FOUR: 4}
"""The replicates of candidates that differ in them alone."""


def candidates() -> dict[str, Policy]:
    """Return what is measured, by name; with two replicates where it needs some.

    Words that stand for what another name does are left out.
    """
    found: dict[str, Policy] = {name: name for name, kind in registry().items() if has_defaults(kind)}
    found |= {word: word for word, own in words().items() if own != type(own)()}
    found |= {f"score, {word}": Score(baseline=word) for word in get_args(Word) if word != "leave-one-out"}
    found |= {FOUR: Score(baseline="leave-one-out"), "nvil, not divided": NVIL(normalise=False)}
    return found
