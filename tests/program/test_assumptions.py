"""Assumptions: every fact that a program relies on is listed with its standing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

import scg
from scg.standing import Assumption


def routed(experts: nn.ModuleList, h: Tensor, e: Tensor) -> Tensor:
    out = torch.zeros_like(h)
    for index, expert in enumerate(experts):
        at = (e == index).nonzero().squeeze(-1)
        out = out.index_copy(0, at, expert(h[at]))
    return out


def program(example: Tensor) -> scg.Program:
    torch.manual_seed(0)
    g = scg.Graph()
    x = g.input("x", plates="batch", example=example)
    e = g.sample("e", Bernoulli, logits=x[..., 0])
    experts = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))
    z = g.sample("z", Normal, g.det("m", nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.2)), x), 1.0)
    h = g.det("h", lambda z: torch.relu(z), z)
    r = g.det("r", lambda h, e: routed(experts, h, e), h, e, differentiable=True)
    mean = g.det("mean", lambda r: r.mean(0), r, plates=())
    box = g.det("box", lambda z: np.asarray(z).sum(-1), z, differentiable=False)
    g.cost("c", g.det("mixed", lambda h: h - h.mean(0), h, mixes="batch").sum(-1) ** 2)
    g.cost("d", lambda mean: (mean**2).sum(), mean)
    g.cost("k", box)
    return scg.compile(g, policy={"z": "score"}, samples=2)


def test_standings() -> None:
    facts = program(torch.randn(4, 3)).assumptions()
    assert Assumption("h", "keeps elements of plate 'batch' apart", "structural") in facts
    assert Assumption("r", "keeps elements of plate 'batch' apart", "probed") in facts
    assert Assumption("box", "keeps elements of plate 'batch' apart", "probed") in facts
    assert Assumption("mixed", "mixes elements of plate 'batch'", "declared") in facts
    assert Assumption("box", "is a black box, without a gradient", "declared") in facts
    assert any(fact.standing == "assumed" and "Dropout" in fact.claim for fact in facts)


def test_explain_counts_them() -> None:
    compiled = program(torch.randn(1, 3))
    text = compiled.explain()
    assert f"rests on {len(compiled.assumptions())} facts: " in text
    assert (
        Assumption(
            "plate batch",
            "has one element in the example; functions were recorded and probed with more",
            "assumed",
        )
        in compiled.assumptions()
    )


def test_paths_have_standings() -> None:
    g = scg.Graph()
    z = g.sample("z", Normal, g.param("t", torch.zeros(3)), 1.0)
    h = g.det("h", lambda z: torch.where(z > 0, z, 0.1 * z), z)
    g.cost("c", g.det("k", lambda h: (h**2).sum(), h))
    facts = scg.compile(g).assumptions()
    assert Assumption("k", "is smooth in 'h'", "structural") in facts
    assert Assumption("h", "is smooth in 'z'", "probed") in facts


def test_pending_programs_say_so() -> None:
    g = scg.Graph()
    g.cost("c", g.sample("z", Normal, g.input("x"), 1.0))
    with pytest.raises(scg.GraphError, match="pending"):
        scg.compile(g).assumptions()
