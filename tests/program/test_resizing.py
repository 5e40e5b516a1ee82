"""Sizes of plates that were not met before: what does not fit is named, and run modes are looked at again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributions as td

import scg

Fn = Callable[[Tensor], Tensor]


def graph_of(fn: Fn) -> scg.Graph:
    g = scg.Graph()
    x = g.input("x", plates="b", example=torch.linspace(-1, 1, 4)[:, None])
    z = g.sample("z", td.Bernoulli, logits=g.param("t", torch.tensor(0.3)) * x)
    g.cost("c", g.det("h", fn, z))
    return g


def inputs(size: int) -> dict[str, Tensor]:
    return {"x": torch.linspace(-1, 1, size)[:, None]}


WRONG: dict[str, tuple[Fn, int]] = {
    "squeeze": (lambda z: (2 * z).squeeze(), 1),
    "a list as long as the example": (lambda z: z[:, 0] * torch.tensor([1.0, 0.0, 1.0, 0.0]), 1),
    "a longer batch than the list": (lambda z: z[:, 0] * torch.tensor([1.0, 0.0, 1.0, 0.0]), 6),
    "as many costs as the example": (lambda z: torch.stack([z[i, 0] for i in range(4)]), 6),
}


@pytest.mark.parametrize("samples", [None, 3])
@pytest.mark.parametrize("name", WRONG)
def test_what_was_written_for_the_size_of_the_example_is_named(name: str, samples: int | None) -> None:
    fn, size = WRONG[name]
    program = scg.compile(graph_of(fn), "score", samples=samples)
    program(**inputs(4), seed=0)
    with pytest.raises(scg.GraphError, match=r"node 'h' \(.*(shape|size)"):
        program(**inputs(size), seed=0)


def alternating(z: Tensor) -> Tensor:
    return z[:, 0] * torch.tensor([float(place % 2) for place in range(len(z))])


def alternating_numpy(z: Tensor) -> Tensor:
    return z[:, 0] * torch.from_numpy(np.arange(len(z)) % 2).to(z.dtype)


@pytest.mark.parametrize("policy", ["score", "rebar"])
@pytest.mark.parametrize("fn", [alternating, alternating_numpy])
@pytest.mark.parametrize("is_misjudged", [False, True])
def test_masks_by_place_are_right_at_sizes_that_hid_nothing(
    fn: Fn, policy: str, is_misjudged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Structure does not fold them; what it misjudged would be looped at the first size that shows it."""
    if is_misjudged:
        monkeypatch.setattr("scg.analysis.modes.takes_any_number", lambda *args, **options: True)
    program = scg.compile(graph_of(fn), policy, samples=3)
    assert ("h by fold" in program.explain()) is is_misjudged
    for size in (4, 3, 1, 6):
        estimate = program(**inputs(size), seed=0)
        wanted = torch.stack([fn(z) for z in estimate.samples["z"]])
        torch.testing.assert_close(estimate.costs["c"], wanted)
        alone = scg.compile(graph_of(fn), {"z": "score"}, samples=3)
        alone.prepare(**inputs(size))
        torch.testing.assert_close(alone(**inputs(size), seed=0).costs["c"], wanted)
    assert ("h by loop" in program.explain()) is is_misjudged


def test_other_functions_stay_as_they_run() -> None:
    program = scg.compile(graph_of(lambda z: (2 * z).squeeze(-1)), "score", samples=3)
    before = program.explain()
    for size in (1, 3, 9):
        program(**inputs(size), seed=0)
    assert program.explain() == before


def test_an_aggregate_may_be_as_long_as_its_plate() -> None:
    g = scg.Graph()
    x = g.input("x", plates="b", example=torch.linspace(-1, 1, 4))
    kernel = g.det("kernel", lambda x: x[:, None] * x, x, plates=())
    b = g.sample("b", td.Bernoulli, logits=g.param("t", torch.tensor(0.3)))
    g.cost("c", lambda k, b: k.sum((-2, -1)) * b, kernel, b)
    program = scg.compile(g)
    for size in (4, 2, 7):
        program(x=torch.linspace(-1, 1, size), seed=0)


def nan_below(threshold: float) -> scg.Graph:
    g = scg.Graph()
    x = g.input("x", example=torch.tensor(1.0))
    root = g.det("root", lambda x: (x - threshold).sqrt(), x)
    shifted = g.det("shifted", lambda root: root + 1, root)
    b = g.sample("b", td.Bernoulli, logits=g.param("t", torch.tensor(0.3)))
    g.cost("c", lambda b, s: b + s, b, shifted)
    return g


@pytest.mark.parametrize("options", [None, {"backend": "eager"}])
def test_nan_in_a_loss_is_named_where_it_arose(options: Any, compiling: None) -> None:
    program = scg.compile(nan_below(0.0), "score")
    if options is not None:
        program.compile(**options)
    for _ in range(2):
        program(x=torch.tensor(1.0), seed=0)
    with pytest.raises(scg.NonFiniteError, match=r"the loss is NaN, which arose in det 'root' \("):
        program(x=torch.tensor(-1.0), seed=0)
