"""Merging: what one call showed on each of its ways, as one flow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TypeVar

from torch import Tensor

from scg.probes.flow import Flow, Leaf
from scg.probes.tape import Finding

T = TypeVar("T")

NOTHING = Leaf(frozenset(), (), (), is_attached=False)


def merged(flows: Sequence[Flow], given: int) -> Flow:
    """Return the flow of a function that may take any of several ways, the first one being taken.

    The first ``given`` sources are the same on each; those that are captured are told by identity.
    """
    sources = list(flows[0].sources)
    several = [flows[0], *(_renumbered(flow, sources, given) for flow in flows[1:])]
    touched: dict[Finding, frozenset[int]] = {}
    for flow in several:
        for finding, numbers in flow.touched.items():
            touched[finding] = touched.get(finding, frozenset()) | numbers
    rows = zip_longest(*(flow.leaves for flow in several), fillvalue=NOTHING)
    return replace(
        several[0],
        sources=tuple(sources),
        leaves=tuple(map(_leaf, rows)),
        touched=touched,
        alive=frozenset().union(*(flow.alive for flow in several)),
        escaped=_each(flow.escaped for flow in several),
        generators=_each(flow.generators for flow in several),
        own=tuple({id(own[0]): own for flow in reversed(several) for own in flow.own}.values()),
    )


def _leaf(ways: Iterable[Leaf]) -> Leaf:
    """Return one output as it is on any way."""
    several = list(ways)
    return Leaf(
        frozenset().union(*(leaf.sources for leaf in several)),
        _each(leaf.noises for leaf in several),
        _each(leaf.findings for leaf in several),
        any(leaf.is_attached for leaf in several),
    )


def _renumbered(flow: Flow, sources: list[Tensor], given: int) -> Flow:
    """Return a flow with its sources numbered as in ``sources``, to which new ones are added."""
    numbers = list(range(given))
    for tensor in flow.sources[given:]:
        known = next((n for n, source in enumerate(sources) if source is tensor), len(sources))
        if known == len(sources):
            sources.append(tensor)
        numbers.append(known)

    def again(old: frozenset[int]) -> frozenset[int]:
        return frozenset(numbers[number] for number in old)

    return replace(
        flow,
        leaves=tuple(replace(leaf, sources=again(leaf.sources)) for leaf in flow.leaves),
        touched={finding: again(old) for finding, old in flow.touched.items()},
        alive=again(flow.alive),
    )


def _each(parts: Iterable[tuple[T, ...]]) -> tuple[T, ...]:
    """Return all there is in any of several, each once and in the order in which it was met."""
    return tuple(dict.fromkeys(item for part in parts for item in part))
