"""Ratios: what a score counts for a value that was drawn from another law than its node has."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from scg.errors import EstimatorError
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.site import Site

Word = Literal["product", "step"]
WORDS: tuple[Word, ...] = ("product", "step")


def check_ratios(ratios: Word | None, truncate: float | None, clip: float | None) -> None:
    """Refuse options of ratios that mean nothing, and those that exclude each other."""
    if ratios is not None and ratios not in WORDS:
        raise EstimatorError(f"ratios is one of {WORDS}, not {ratios!r}")
    if truncate is not None and clip is not None:
        raise EstimatorError("truncate= and clip= bound the same ratio: give one of them")
    for name, bound in (("truncate", truncate), ("clip", clip)):
        if bound is None:
            continue
        if isinstance(bound, bool) or not isinstance(bound, (int, float)) or not bound > 0:
            raise EstimatorError(f"{name} is a number above 0, not {bound!r}")
        if ratios == "product":
            raise EstimatorError(
                f'{name}= bounds the ratio of a step, and ratios="product" multiplies those of all steps: '
                "leave one of them out"
            )


def written(ratios: Word | None, truncate: float | None, clip: float | None) -> tuple[str, ...]:
    """Return the options of ratios that are given, as they are written.

    >>> written("step", 1.2, None)
    ("ratios='step'", 'truncate=1.2')
    """
    several = {"ratios": ratios, "truncate": truncate, "clip": clip}
    return tuple(f"{name}={value!r}" for name, value in several.items() if value is not None)


def unknown(facts: NodeFacts, options: tuple[str, ...]) -> Refusal | None:
    """Refuse options of ratios where there are none."""
    if not options or facts.has_behaviour:
        return None
    return Refusal(
        f"{options[0]} is of ratios to the law that its value was drawn from, which is not told",
        "give behaviour=, the log-probability of the value under that law",
    )


def weighed(site: Site, factor: Tensor, truncate: float | None, clip: float | None) -> Tensor:
    """Return a factor F [*lead] of the score times r, the ratio of its element alone.

    With ``truncate`` that is min(r, truncate) F; with ``clip`` the derivative of
    max(r F, min(max(r, 1 - clip), 1 + clip) F), where F is a cost: 0 where F < 0 and r > 1 + clip, or F > 0
    and r < 1 - clip. Ionides (2008, "Truncated importance sampling"); Schulman et al. (2017,
    arXiv:1707.06347).
    """
    assert site.ratio is not None
    ratio = site.ratio if truncate is None else site.ratio.clamp(max=truncate)
    if clip is None:
        return ratio * factor
    gain, step = factor.detach(), ratio
    is_clipped = ((gain < 0) & (step > 1 + clip)) | ((gain > 0) & (step < 1 - clip))
    return torch.where(is_clipped, 0.0, step) * factor
