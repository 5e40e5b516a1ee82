"""Nested arguments: every reference is found once, in order, and replaced wherever it stands."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import scg
from scg.nodes.arguments import Arguments, Ref, references, substitute

Pair = namedtuple("Pair", "left right")

LEAVES = st.one_of(st.integers(), st.none(), st.text(max_size=3), st.sampled_from("abc").map(Ref))
TEMPLATES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
        st.builds(slice, inner, inner, inner),
        st.builds(Pair, inner, inner),
    ),
    max_leaves=8,
)


@given(TEMPLATES)
def test_substitution_visits_the_references_in_order(template: Any) -> None:
    visited: list[str] = []

    def note(name: str) -> str:
        visited.append(name)
        return name

    substitute(template, note)
    assert visited == list(references(template))


@given(TEMPLATES)
def test_substituting_references_by_themselves_changes_nothing(template: Any) -> None:
    again = substitute(template, Ref)
    assert again == template
    assert type(again) is type(template)


@given(TEMPLATES)
def test_nothing_refers_to_a_node_after_substitution(template: Any) -> None:
    assert list(references(substitute(template, str.upper))) == []


def test_names_are_listed_once() -> None:
    arguments = Arguments((Ref("b"), [Ref("a"), Ref("b")]), {"k": {"d": Ref("c")}})
    assert arguments.names == ("b", "a", "c")
    args, kwargs = arguments.substitute(str.upper)
    assert (args, kwargs) == (("B", ["A", "B"]), {"k": {"d": "C"}})


def total(parts: Any, *, scale: float = 1.0, by: Any = None) -> Tensor:
    if isinstance(parts, dict):
        parts = list(parts.values())
    found: Tensor = sum(total(p) if isinstance(p, (list, tuple, dict)) else p for p in parts) * scale
    return found if by is None else found * by[0]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda a, b: [a, b], 5.0),
        (lambda a, b: (a, (b, 1.0)), 6.0),
        (lambda a, b: {"u": a, "v": [b, a]}, 7.0),
        (lambda a, b: Pair(a, {"w": b}), 5.0),
        (lambda a, b: [a, torch.tensor(4.0), 1], 7.0),
    ],
)
def test_functions_see_values_in_the_structure_that_was_written(make: Any, expected: float) -> None:
    g = scg.Graph()
    a, b = g.param("a", 2.0), g.param("b", 3.0)
    g.det("h", total, make(a, b), scale=10.0, by=(a,))
    kept = scg.compile(g, keep=["h"])().kept["h"]
    assert float(kept) == expected * 10.0 * 2.0


def test_named_tuples_stay_named() -> None:
    g = scg.Graph()
    g.det("h", lambda pair: pair.right - pair.left, Pair(g.param("a", 2.0), g.param("b", 7.0)))
    assert float(scg.compile(g, keep=["h"])().kept["h"]) == 5.0


def test_nodes_inside_slices_are_parents() -> None:
    g = scg.Graph()
    start = g.det("start", lambda: torch.tensor(1))
    g.det("h", torch.Tensor.clone, g.param("a", torch.arange(4.0))[start:])
    assert scg.compile(g, keep=["h"])().kept["h"].tolist() == [1.0, 2.0, 3.0]
