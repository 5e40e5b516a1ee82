"""Soundness: wrong programs and identities that look right are not proved."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sympy as sp
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Exponential, Normal, Poisson, Uniform

import scg
from scg.proving import prove
from tests.proving.graphs import number, toy


def smooth(g: scg.Graph, fn: Callable[..., Tensor], *parents: scg.Node) -> scg.Graph:
    """Declare a cost to be differentiable, whatever it is."""
    g.cost("c", g.det("f", fn, *parents, differentiable=True))
    return g


def equal_in_disguise() -> scg.Graph:
    g = scg.Graph()
    t = g.param("t", number(0.5))
    x = g.sample("x", Uniform, number(0.0), number(1.0))

    def cost(t: Tensor, x: Tensor) -> Tensor:
        p, m = torch.sigmoid(t), t.abs()
        tied = torch.where((m + 1) * (m + 2) > t * t + 3 * t + 2, p, 2 * p)
        return torch.where(t > 0, p, 2 * p) + tied + torch.where(x > torch.where(t > 0, t, 0 * t), 1.0, 0.0)

    return smooth(g, cost, t, x)


def cut_outside() -> scg.Graph:
    g = scg.Graph()
    t = g.param("t", number(1.0))
    x, y = (g.sample(name, Uniform, number(0.0), number(1.0)) for name in "xy")
    return smooth(g, lambda x, y, t: torch.where(x > t * (y - 0.5), 1.0, 0.0) + 0 * t, x, y, t)


def cut_by_a_normal() -> scg.Graph:
    g = scg.Graph()
    z = g.sample("z", Normal, g.param("t", number(0.5)), 1.0)
    x = g.sample("x", Uniform, number(0.0), number(1.0))
    return smooth(g, lambda x, z: torch.where(x > z, 1.0, 0.0), x, z)


def scaled_far() -> scg.Graph:
    g = scg.Graph()
    x = g.sample("x", Normal, g.param("t", number(-0.5)), 1.0)
    return smooth(g, lambda x: torch.where(1e10 * (x - 1) > 0, 1.0, 0.0) + 0 * x, x)


@pytest.mark.parametrize(
    ("make", "policy"),
    [
        (equal_in_disguise, "reparam"),
        (cut_outside, "reparam"),
        (scaled_far, "reparam"),
    ],
)
def test_a_wrong_program_is_not_proved(make: Callable[[], scg.Graph], policy: str) -> None:
    proof = scg.prove(scg.compile(make(), policy, allow_biased=True), points=0)
    assert proof.standing in ("failed", "assumed"), proof


def test_a_right_program_beyond_closed_forms_is_not_failed() -> None:
    proof = scg.prove(scg.compile(cut_by_a_normal(), "score"), points=0)
    assert proof.standing in ("certified", "assumed"), proof


def test_what_is_not_finite_is_not_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = torch.full((1,), torch.nan, dtype=torch.float64)
    monkeypatch.setattr(prove, "integrated", lambda *_: (nothing, nothing))
    proof = scg.prove(scg.compile(toy(), "relax"), points=0)
    assert proof.standing == "assumed", proof
    assert any("not finite" in reason for reason in proof.reasons)


def test_uniform_noise_is_cut_within_its_ends() -> None:
    g = scg.Graph()
    t = g.param("t", number(0.5))
    x = g.sample("x", Uniform, number(0.0), number(1.0))
    g.cost("c", lambda x, t: torch.where(x > t, 1.0, 0.0) * torch.sigmoid(t), x, t)
    found = scg.symbolic.objective(g)
    for value, share in ((0.5, 0.5), (1.5, 0.0), (-0.5, 1.0)):
        wanted = share / (1 + sp.exp(-value))
        assert abs(float(found.subs("t", value)) - float(wanted)) < 1e-9, (value, found)


def test_a_case_of_the_scheme_does_not_stand_for_others() -> None:
    g = scg.Graph()
    t = g.param("t", number(0.4))
    b = g.sample("b", Bernoulli, logits=t)
    smooth(g, lambda b, t: torch.where(t.detach() > 0, 0 * b + 1.0, (b - 0.45) ** 2), b, t)
    proof = scg.prove(scg.compile(g, "rebar"), points=0)
    assert any("REBAR" in step.claim or step.standing != "proved" for step in proof.steps), proof


def test_parameters_of_distributions_are_held_against_the_graph() -> None:
    g = scg.Graph()
    t = g.param("t", number(0.4))
    b = g.sample("b", Bernoulli, logits=g.det("l", lambda t: t.detach() * 2, t, differentiable=True))
    g.cost("c", b + 0 * t)
    with pytest.raises(scg.UnreadableError, match="logits of sample 'b'"):
        scg.symbolic.objective(g)


def test_symbols_of_one_name_are_refused() -> None:
    g = scg.Graph()
    w, v = g.param("w", torch.zeros(2, dtype=torch.float64)), g.param("w_0", number(0.3))
    g.cost("c", g.sample("b", Bernoulli, logits=w.sum() + v))
    with pytest.raises(scg.UnreadableError, match="'w_0'"):
        scg.symbolic.objective(g)


def test_equalities_of_counts_are_refused() -> None:
    g = scg.Graph()
    k = g.sample("k", Poisson, torch.exp(g.param("t", number(0.4))))
    g.cost("c", g.det("f", lambda k: torch.where(k == 0, 1.0, 0.0), k, differentiable=False))
    with pytest.raises(scg.UnreadableError, match="equality"):
        scg.symbolic.objective(g)


def test_ties_of_a_kink_are_as_torch_has_them() -> None:
    g = scg.Graph()
    t = g.param("t", number(-0.4))
    b = g.sample("b", Bernoulli, logits=t)
    smooth(g, lambda b, t: torch.where(torch.relu(t) >= 0, b, 3 * b), b, t)
    assert abs(float(scg.symbolic.objective(g).subs("t", -0.4)) - 1 / (1 + 2.718281828459045**0.4)) < 1e-9


@pytest.mark.filterwarnings("ignore:.*does not change with it:scg.GradientWarning")
def test_a_variance_is_not_negative() -> None:
    g = scg.Graph()
    r = g.param("r", number(0.4))
    x = g.sample("x", Exponential, torch.exp(r))
    smooth(g, lambda x, r: torch.where(x > -1, 1.0, 0.0) * torch.sigmoid(r) + 0 * x, x, r)
    try:
        found = scg.symbolic.variance(scg.compile(g, "reparam", allow_biased=True))["r"]
    except scg.UnreadableError:
        return
    assert float(found.subs("r", 0.4).evalf()) > -1e-12
