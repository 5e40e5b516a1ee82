"""Estimators that evaluate very often say so when they are chosen, and what would be cheaper."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.distributions import Normal, OneHotCategorical

import scg


def codes(elements: int, outcomes: int) -> scg.Graph:
    g = scg.Graph()
    z = g.sample("z", OneHotCategorical, logits=g.param("t", torch.zeros(elements, outcomes)))
    g.cost("c", lambda z: (z * torch.linspace(-1, 1, outcomes)).sum((-1, -2)).sign(), z)
    return g


def test_local_enumeration_of_many_codes_tells_what_it_costs() -> None:
    told = (
        "'local' at 'z' evaluates what is below it 2,049 times in every run, 32 elements x 64 outcomes. "
        'Cheaper: "sum-and-sample" (161), "unordered-set" (129), "score" (1)'
    )
    with pytest.warns(scg.EvaluationWarning) as met:
        program = scg.compile(codes(32, 64), scg.Enumerate(local=True))
    assert [str(warning.message) for warning in met] == [told]
    assert met[0].filename == __file__
    assert f"    warning: {told}" in program.explain().splitlines()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program(seed=0)


@pytest.mark.parametrize(("outcomes", "is_told"), [(31, False), (32, True)])
def test_a_thousand_evaluations_are_not_many(outcomes: int, is_told: bool) -> None:
    """1 + 33 x 31 are 1024."""
    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        scg.compile(codes(33, outcomes), "local")
    assert bool(met) == is_told


def test_what_is_no_outcome_is_a_value() -> None:
    g = scg.Graph()
    z = g.sample("z", Normal, g.param("m", torch.zeros(700)), 1.0)
    g.cost("c", lambda z: z.sum(-1), z)
    with pytest.warns(scg.EvaluationWarning, match="1,401 times in every run, 700 elements x 2 values"):
        scg.compile(g, "measure-valued")


def test_parts_are_told_by_their_own_name() -> None:
    g = codes(32, 64)
    g.cost("d", lambda z: z[..., 0, 0], g["z"])
    with pytest.warns(scg.EvaluationWarning, match="'local' at 'z.c' evaluates"):
        scg.compile(g, {"z": scg.Parts({"c": "local", "d": "score"})})
