"""Verify, given what it cannot judge: an error or a verdict that names what is wrong, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Gamma, Normal, constraints

import scg
from scg.testing import assert_unbiased


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Unlisted(Distribution):
    """A normal number, of a class that nothing here knows."""

    arg_constraints = {"middle": constraints.real}
    support = constraints.real

    def __init__(self, middle: Tensor, validate_args: bool | None = None) -> None:
        self.middle = middle
        super().__init__(middle.shape, validate_args=validate_args)

    def sample(self, shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 - as torch has it
        return torch.randn(shape + self.middle.shape) + self.middle.detach()

    def log_prob(self, value: Tensor) -> Tensor:
        return -((value - self.middle) ** 2) / 2


def toy(logit: float = 0.3) -> scg.Program:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", logit))
    g.cost("f", (b - 0.1) ** 2)
    return scg.compile(g, "score")


def of(dist: type[Distribution], *parameters: float, policy: str = "score") -> scg.Program:
    """The square of one number, whose first parameter is learned."""
    g = scg.Graph()
    first, *others = (torch.tensor(parameter) for parameter in parameters)
    z = g.sample("z", dist, g.param("theta", first), *others)
    g.cost("f", z**2)
    return scg.compile(g, policy)


def many() -> scg.Program:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", torch.zeros(40)))
    g.cost("f", (b.sum(-1) - 3) ** 2)
    return scg.compile(g, "score")


def step() -> scg.Program:
    g = scg.Graph()
    z = g.sample("z", Normal, g.param("theta", 0.3), 1.0)
    g.cost("f", lambda z: (z > 0.1).to(z.dtype), z)
    return scg.compile(g, "score")


def pending() -> scg.Program:
    g = scg.Graph()
    g.cost("c", g.sample("b", Bernoulli, logits=g.input("x") + g.param("w", 0.1)))
    return scg.compile(g, "score")


def frozen() -> scg.Program:
    return toy().requires_grad_(False)


def without_costs() -> scg.Program:
    g = scg.Graph()
    g.sample("b", Bernoulli, logits=g.param("w", 0.1))
    return scg.compile(g)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: scg.verify(scg.Graph()), "takes a program"),  # type: ignore[arg-type]
        (lambda: scg.verify(toy(), resolution=0.0), "resolution=0.0: give a number between 0 and 1"),
        (lambda: scg.verify(toy(), alpha="1%"), "alpha='1%': give a number between 0 and 1"),  # type: ignore[arg-type]
        (lambda: scg.verify(toy(), draws=10), "draws=10 tell too little: give 1024 or more"),
        (lambda: scg.verify(toy(), draws=1e6), "draws=1000000.0: give a whole number, as draws=1048576"),  # type: ignore[arg-type]
        (lambda: scg.verify(toy(), noise={}), "noise={}: give a whole number, as noise=0"),  # type: ignore[arg-type]
        (lambda: scg.verify(pending()), "input 'x' is missing: pass x=tensor"),
        (
            lambda: scg.verify(frozen()),
            r"no parameter of the graph requires a gradient.*\(theta\): call .requires_grad_\(True\)",
        ),
        (lambda: scg.verify(without_costs()), r"a graph without costs.*declare g.cost"),
        (
            lambda: scg.verify(of(Gamma, 2.0, 1.0)),
            r"exactly \(.*sample 'z'.*Gamma is neither finite nor Normal",
        ),
        (lambda: scg.verify(of(Unlisted, 2.0)), r"exactly \(.*sample 'z'.*Unlisted.*on a smaller graph"),
        (lambda: scg.verify(many()), r"cost 'f' needs 1099511627776 assignments \(2\*\*40 for 'b'\)"),
        (lambda: scg.verify(step()), r"quadrature at two orders does not agree"),
    ],
)
def test_what_cannot_be_verified_is_said(ask: Callable[[], object], message: str) -> None:
    with pytest.raises(scg.GraphError, match=message):
        ask()


def test_a_pending_program_is_prepared_from_what_it_is_given() -> None:
    assert scg.verify(pending(), x=torch.tensor(0.3), resolution=0.3, draws=2**12).verdict == "unbiased"


def test_an_input_that_is_not_one_is_told() -> None:
    with pytest.warns(UserWarning, match="'x': no input of the graph"):
        scg.verify(toy(), x=torch.ones(2), resolution=0.3, draws=2**12)


def test_a_budget_too_small_for_a_skewed_gradient_is_told_with_what_is_enough() -> None:
    found = scg.verify(toy(-7.0), draws=1024)
    assert found.verdict == "undecided"
    assert "1,024 runs are too few for the gradient of 'theta', which has skewness" in found.reason
    assert "give draws=" in found.reason


def test_a_budget_too_small_for_a_rare_outcome_is_told_with_what_is_enough() -> None:
    """Eight coins of even odds beside one that is met once in so many runs, which nothing costs much."""
    g = scg.Graph()
    even = g.sample("even", Bernoulli, logits=g.param("theta", torch.zeros(7)))
    rare = g.sample("rare", Bernoulli, logits=g.param("phi", -12.0))
    g.cost("f", (even.sum(-1) - 3.2) ** 2 + 0.01 * rare)
    found = scg.verify(scg.compile(g, "enumerate"), draws=1024)
    assert found.verdict == "undecided"
    assert found.reason.startswith(
        "1,024 runs are too few for outcomes of 'rare' that runs meet with probability"
    )
    needed = int(found.reason.partition("draws=")[2].partition(" ")[0].replace(",", ""))
    assert 1024 < needed < 20 / 6e-6
    assert scg.verify(scg.compile(g, "enumerate"), draws=needed).verdict == "unbiased"


def test_a_parameter_that_needs_no_gradient_is_left_out() -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", 0.3) + g.param("shift", 0.1))
    g.cost("f", (b - 0.1) ** 2)
    program = scg.compile(g, "score")
    program.get_parameter("shift").requires_grad_(False)
    found = scg.verify(program, resolution=0.3, draws=2**12)
    assert found.verdict == "unbiased"
    assert [*found.parameters] == ["theta"]


def test_a_reference_of_0_is_undecided_unless_all_is_0() -> None:
    found = scg.verify(of(Normal, 0.0, 1.0, policy="reparam"), draws=4096)
    assert found.verdict == "undecided"
    assert "the reference is 0 for theta" in found.reason
    assert "Verify at other parameters or inputs" in found.reason
    assert found.scale is None
    assert found.detectable == float("inf")


def test_too_few_draws_leave_it_undecided() -> None:
    found = scg.verify(toy(), resolution=0.01, draws=2048)
    assert found.verdict == "undecided"
    assert found.draws == 2048
    assert found.detectable > 0.01
    assert "would not have been seen: give more draws" in str(found)


def test_what_draws_cannot_tell_is_not_asserted() -> None:
    with pytest.raises(AssertionError, match="undecided: a bias of less than"):
        assert_unbiased(toy(), resolution=0.01, draws=2048)


def test_an_outcome_that_never_happens_is_not_waited_for() -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", torch.tensor([0.3, -40.0])))
    g.cost("f", (b.sum(-1) - 0.1) ** 2)
    assert scg.verify(scg.compile(g, "score"), resolution=0.3, draws=2**13).verdict == "unbiased"
