"""The text of helpers computes what the programs call under these names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from scg.evaluation import elsewhere
from scg.nodes.records import outcome
from scg.program.helpers import TEXTS, helper_text
from scg.surrogate.runtime import blocks, ops

VALUE = torch.tensor([[0.3, -1.2, 2.0], [0.0, 4.0, -0.5]], dtype=torch.float64)
MASK = torch.tensor([[False, True, True], [True, False, True]])
NESTED = {"one": VALUE, "two": (VALUE + 1, VALUE * 2)}
CALLS: dict[Callable[..., Any], tuple[Any, ...]] = {
    ops.rows: (VALUE, torch.tensor([1, 0, 1])),
    ops.passed_on: (torch.tensor([0.3, 0.7]), torch.tensor([[0.2, 0.8], [0.5, 0.5]])),
    blocks.blocks: (torch.tensor(0.7), 5, 1, 2),
    blocks.chosen: (NESTED, torch.tensor([2, 0]), 1),
    ops.share: (torch.tensor([0.3, 0.0]), torch.tensor([0.6, 0.0])),
    ops.possible: (torch.tensor([1.0, torch.inf, torch.nan]), torch.tensor([0.5, 0.0, 0.0])),
    ops.discounted: (VALUE, 1, 0.9),
    ops.undiscounted: (VALUE, 1, 3, 0.9),
    ops.to_go: (VALUE, 1, 0.9),
    ops.discounted_sum: (VALUE, 0.9),
    ops.log_ratio: (VALUE, VALUE * 2, elsewhere.existing(MASK)),
    ops.along: (VALUE, 1),
    ops.likelihood: (VALUE,),
    elsewhere.existing: (MASK,),
    elsewhere.filled: (VALUE, elsewhere.existing(MASK)),
    elsewhere.filled_value: (VALUE, elsewhere.existing(MASK)),
    elsewhere.selected: (VALUE, MASK, ~MASK & (VALUE > 1)),
    elsewhere.kept_of: (VALUE, elsewhere.existing(MASK)),
    elsewhere.taken: ({}, VALUE, torch.float32, None),
    outcome: (VALUE, VALUE, MASK),
    ops.drawn_again: (lambda points: points.sum(-1), VALUE, 3),
    ops.first_order: (VALUE,),
    ops.add_all: ([VALUE, VALUE, VALUE * 2, VALUE],),
    ops.expand_lead: (VALUE[None], [4, None]),
    ops.indexed: (NESTED, (0, None)),
    ops.size_within: (NESTED, 1),
    ops.output: (NESTED,),
}


def written(held: Any) -> Callable[..., Any]:
    text, space = helper_text("scg_helper", held), {"torch": torch}
    assert text is not None
    exec(text, space)
    found: Callable[..., Any] = space["scg_helper"]  # type: ignore[assignment]
    return found


def leaves(value: Any) -> list[Tensor]:
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in leaves(part)]
    if isinstance(value, tuple):
        return [leaf for part in value for leaf in leaves(part)]
    return [torch.as_tensor(value)]


@pytest.mark.parametrize("held", CALLS, ids=[held.__name__ for held in CALLS])
def test_a_helper_computes_what_it_stands_for(held: Callable[..., Any]) -> None:
    wanted, found = leaves(held(*CALLS[held])), leaves(written(held)(*CALLS[held]))
    for one, other in zip(wanted, found, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, equal_nan=True) and one.shape == other.shape


def test_sums_to_go_and_discounts_of_one_and_of_none() -> None:
    for rate in (1.0, 0.0):
        assert torch.allclose(written(ops.to_go)(VALUE, 0, rate), ops.to_go(VALUE, 0, rate))
    assert torch.equal(written(ops.undiscounted)(VALUE, 0, 2, 0.0), ops.undiscounted(VALUE, 0, 2, 0.0))


def test_every_helper_is_held_against_what_it_stands_for() -> None:
    assert TEXTS.keys() == CALLS.keys() - {ops.output}


def test_replicates_are_repeated_and_gradients_refused_twice() -> None:
    held = partial(ops.output, replicates=3)
    assert torch.equal(written(held)(VALUE), held(VALUE))
    leaf = VALUE.clone().requires_grad_()
    with pytest.raises(RuntimeError, match="first order only"):
        torch.autograd.grad(written(ops.first_order)(leaf * leaf).sum(), leaf, create_graph=True)


def test_what_is_no_helper_has_no_text() -> None:
    assert helper_text("scg_f", lambda z: z) is None and helper_text("scg_f", [1]) is None
