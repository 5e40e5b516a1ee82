"""Trees: what torch's pytrees know, dataclasses and mappings are taken apart and put together again."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from scg.nodes import trees

Pair = namedtuple("Pair", "left right")


@dataclass
class Point:
    x: Any
    y: Any = None


@dataclass(frozen=True, slots=True)
class Fixed:
    x: Any


class Named(OrderedDict[str, Any]):
    pass


TREES = st.recursive(
    st.one_of(st.integers(), st.text(max_size=2), st.booleans()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from(["x", "0.y", "z"]), inner, max_size=3),
        st.dictionaries(st.sampled_from("xyz"), inner, max_size=3).map(Named),
        st.dictionaries(st.sampled_from("xyz"), inner, max_size=3).map(UserDict),
        st.dictionaries(st.sampled_from("xyz"), inner, max_size=3).map(lambda d: defaultdict(list, d)),
        st.builds(Pair, inner, inner),
        st.builds(Point, inner, inner),
        st.builds(Fixed, inner),
    ),
    max_leaves=10,
)


def told(tree: Any) -> str:
    return repr(tree)


@given(TREES)
def test_leaves_build_the_tree_again(tree: Any) -> None:
    leaves, structure = trees.tree_flatten(tree)
    again = trees.tree_unflatten(leaves, structure)
    assert told(again) == told(tree) and type(again) is type(tree)


@given(TREES)
def test_a_map_visits_every_leaf_in_order_and_leaves_the_tree_alone(tree: Any) -> None:
    before, visited = told(tree), list[Any]()
    changed = trees.tree_map(lambda leaf: visited.append(leaf) or "new", tree)
    assert visited == trees.tree_leaves(tree)
    assert all(leaf == "new" for leaf in trees.tree_leaves(changed))
    assert told(tree) == before


@given(TREES)
def test_places_are_expressions_that_read_the_leaves(tree: Any) -> None:
    for path, leaf in trees.placed_leaves("tree", tree):
        assert eval(path, {"tree": tree}) == leaf


@given(TREES)
def test_several_trees_are_mapped_together(tree: Any) -> None:
    pairs = trees.tree_map(lambda one, other: [one, other], tree, tree)
    assert trees.tree_leaves(pairs) == [leaf for leaf in trees.tree_leaves(tree) for _ in range(2)]


def test_modules_and_tensors_are_leaves() -> None:
    module, tensor = nn.ModuleDict({"a": nn.Linear(1, 1)}), torch.ones(2)
    assert trees.tree_leaves([module, tensor]) == [module, tensor]
    assert trees.children(module) is None


@pytest.mark.parametrize("kind", [torch.max(torch.randn(2, 2), 1), torch.Size([2, 3])], ids=["max", "size"])
def test_tuples_of_torch_keep_their_type(kind: Any) -> None:
    parts = trees.children(kind)
    assert parts is not None and type(trees.with_children(kind, parts)) is type(kind)


def test_only_tensors_are_placed() -> None:
    found: list[str] = []

    def note(path: str, tensor: Tensor) -> Tensor:
        found.append(path)
        return tensor * 2

    tree = {"a": Point(torch.ones(1), 3), "b": [torch.ones(1), "text"]}
    changed = trees.tree_map_placed(note, "tree", tree)
    assert found == ["tree['a'].x", "tree['b'][0]"]
    assert changed["a"].x == 2 and changed["a"].y == 3 and changed["b"][1] == "text"
