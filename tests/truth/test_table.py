"""Programs that were wrong without a word: each is now right or refused, or works where it is right."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal, Poisson

import scg
from tests.support.running import gradients
from tests.truth import table, table_functions, table_laws
from tests.truth.building import Fn, Module, double, value
from tests.truth.judge import Case, right_or_refused, verdict

TABLE = table.CASES | table_laws.CASES | table_functions.CASES


@pytest.mark.parametrize("row", TABLE)
def test_a_program_is_right_or_refused(row: str) -> None:
    right_or_refused(TABLE[row]())


# ---- the judge itself


def coin() -> Case:
    def make() -> scg.Graph:
        g = scg.Graph()
        b = g.sample("b", Bernoulli, logits=g.param("l", double(0.4)))
        g.cost("c", (b - 0.3) ** 2)
        return g

    return Case(make, lambda g: 0.4 * value(g, "l").sigmoid() + 0.09, policy="score", must_work=True)


def test_the_judge_passes_what_is_right() -> None:
    assert right_or_refused(coin()).kind == "right"


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_the_judge_sees_a_wrong_constant(factor: float) -> None:
    case = coin()
    wrong = replace(
        case, objective=lambda g: factor * case.objective(g) + (1 - factor) * case.objective(g).detach()
    )
    assert verdict(wrong).kind == "wrong"


def test_the_judge_sees_a_wrong_loss() -> None:
    case = coin()
    assert verdict(replace(case, objective=lambda g: case.objective(g) + 0.2)).kind == "wrong"


def test_the_judge_does_not_take_a_refusal_for_work() -> None:
    with pytest.raises(AssertionError, match="refused"):
        right_or_refused(replace(coin(), policy="reparam"))


def test_the_judge_does_not_take_a_crash_for_a_refusal() -> None:
    with pytest.raises(AssertionError, match="crashed"):
        right_or_refused(replace(coin(), wake=lambda g: {}["missing"]))


# ---- streams


def product_of(one: str, other: str, policy: Any = "auto") -> Case:
    """The product of two independent counts, whose mean is the product of theirs."""

    def make() -> scg.Graph:
        g = scg.Graph()
        rate = g.param("rate", double(1.4))
        g.cost("c", g.sample(one, Poisson, rate=rate) * g.sample(other, Poisson, rate=rate))
        return g

    return Case(make, lambda g: value(g, "rate") ** 2, policy=policy, must_work=True)


def test_names_with_one_checksum_have_noise_of_their_own() -> None:
    """These two have the same CRC-32."""
    right_or_refused(product_of("plumless", "buckeroo"))


def branched(other: str) -> Case:
    """A count below an enumerated bit, drawn anew in its branches, times an independent one."""

    def make() -> scg.Graph:
        g = scg.Graph()
        x = g.input("x", plates="batch", example=torch.ones(3).double())
        b = g.sample("b", Bernoulli, logits=x * g.param("l", double(0.3)))
        k = g.sample("k", Poisson, rate=1.5 + 1.5 * b)
        g.cost("c", k * g.sample(other, Poisson, rate=1.5 * x))
        return g

    def objective(g: scg.Graph) -> Tensor:
        return 1.5 * (1.5 + 1.5 * value(g, "l").sigmoid())

    def wake(g: scg.Graph) -> dict[str, Tensor]:
        return {"x": torch.ones(4000).double()}

    return Case(make, objective, wake, {"b": "enumerate", "*": "score"}, samples=None)


@pytest.mark.parametrize("other", ["k_branches", "k_fresh", "k_noise", "m"])
def test_a_node_named_like_an_internal_line_has_noise_of_its_own(other: str) -> None:
    right_or_refused(branched(other))


@dataclass(frozen=True)
class Thrice(scg.Score):
    """Score with three tensors of fresh noise, of which it notes what it was given."""

    name: ClassVar[str] = "thrice"
    given: ClassVar[list[Tensor]] = []

    def asks(self, facts: scg.NodeFacts) -> scg.Asks:
        return scg.Asks(fresh=("base",) * 3)

    def factor(self, site: scg.Site) -> Tensor:
        self.given[:] = [site.fresh_noise(index) for index in range(3)]
        return site.credit


def test_every_fresh_noise_of_a_node_is_another() -> None:
    g = scg.Graph()
    g.cost("c", g.sample("z", Normal, loc=g.param("mu", double(0.6)), scale=1.0) ** 2)
    gradients(scg.compile(g, policy=Thrice(), samples=2000), seed=0)
    both = list(itertools.combinations(Thrice.given, 2))
    assert len(both) == 3
    assert all(abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.1 for a, b in both)


# ---- breaks in the functions of costs


def broken(forward: Fn) -> scg.Graph:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=double([0.2, 1.0, -0.7]))
    g.cost("loss", Module(forward, w=0.6), x)
    return g


BREAKS: dict[str, Fn] = {
    "argmax": lambda w, x: torch.stack([w * x, 1 - w * x], -1).argmax(-1).to(x.dtype),
    "round": lambda w, x: torch.round(w * x),
    "detach": lambda w, x: (w * x).detach() ** 2,
    "no_grad": torch.no_grad()(lambda w, x: (w * x) ** 2),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_on_the_way_to_a_cost_is_told(name: str) -> None:
    """It is refused or warned of, with the node, and ``explain`` does not call the gradient right."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            explained = scg.compile(broken(BREAKS[name])).explain()
            told = [str(warning.message) for warning in said]
        except scg.ScgError as error:
            explained, told = "", [str(error)]
    assert any("'loss'" in message for message in told)
    assert "its gradient is right" not in explained
