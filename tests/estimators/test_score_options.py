"""Options of the score: each against its formula, and the mean of each over every episode there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli

import scg
from scg.estimators.parts.groups import deviation
from scg.estimators.parts.ratios import weighed
from scg.estimators.protocol.border import refusal
from scg.estimators.protocol.facts import REPLICATES, Axis
from tests.elsewhere import episodes, problems
from tests.elsewhere.episodes import DISCOUNT, Value
from tests.estimators.building import facts, of, site

BIT = {"logits": of(0.3)}


def exact() -> Tensor:
    return problems.exact_of_actions(episodes.policy_of())


def record_of(nowhere: float = problems.NOWHERE, count: int = 40) -> dict[str, Tensor]:
    """Episodes of another policy, padded with rewards and likelihoods that mean nothing."""
    torch.manual_seed(0)
    record = problems.play(episodes.policy_of(0.7), count, nowhere)
    record["reward"] = torch.where(record["mask"], record["reward"].double(), nowhere)
    record["log_prob"] = torch.where(record["mask"], record["log_prob"], nowhere)
    return record


def run(estimator: scg.Estimator, record: dict[str, Tensor], *, behaviour: bool = True) -> Tensor:
    policy = episodes.policy_of()
    g = episodes.graph(policy, record, "episode", behaviour=behaviour)
    program = scg.compile(g, {"ep": estimator}, allow_biased=True)
    return episodes.gradient(program, policy, record)


def wanted(record: dict[str, Tensor], factor: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The gradient of the formula, of the credit without ratios and the ratio of each step."""
    policy = episodes.policy_of()
    seen = {key: value.nan_to_num() for key, value in record.items()}
    ratios = torch.where(record["mask"], episodes.ratios(policy, seen), 1.0)
    return episodes.by_hand(policy, record, factor(episodes.to_go(record), ratios))


def others(credit: Tensor) -> Tensor:
    """The mean over the other episodes, those that have ended counting as 0."""
    return (credit.sum(0) - credit) / (len(credit) - 1)


def clipped(factor: Tensor, ratio: Tensor, clip: float) -> Tensor:
    """d/dr max(r F, clip(r) F) r, by autograd."""
    r = ratio.clone().requires_grad_()
    objective = torch.maximum(r * factor, r.clamp(1 - clip, 1 + clip) * factor).sum()
    return torch.autograd.grad(objective, r)[0] * ratio


# ---- ratios

RATIOS: dict[str, tuple[dict[str, Any], Callable[[Tensor, Tensor], Tensor]]] = {
    "step": ({"ratios": "step"}, lambda q, r: r * q),
    "truncate": ({"truncate": 1.05}, lambda q, r: r.clamp(max=1.05) * q),
    "clip": ({"clip": 0.1}, lambda q, r: clipped(q, r, 0.1)),
    "clip, compared": (
        {"clip": 0.1, "ratios": "step", "baseline": scg.LeaveOneOut("episode")},
        lambda q, r: clipped(q - others(q), r, 0.1),
    ),
}


@pytest.mark.parametrize("nowhere", [problems.NOWHERE, torch.nan])
@pytest.mark.parametrize("name", RATIOS)
def test_ratios_by_step_are_the_formula(name: str, nowhere: float) -> None:
    options, formula = RATIOS[name]
    record = record_of(nowhere)
    assert torch.allclose(run(scg.Score(**options), record), wanted(record, formula), atol=1e-9)


@pytest.mark.parametrize("gain", [-0.7, 0.7])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.95, 1.05, 2.0])
def test_a_ratio_is_clipped_on_the_side_where_it_would_gain(ratio: float, gain: float) -> None:
    made = site(Bernoulli, BIT, of(0.1), lambda b: of(gain)[None], ratio=of(ratio))
    found = weighed(made, of(gain), None, 0.2)
    left = (gain < 0 and ratio > 1.2) or (gain > 0 and ratio < 0.8)
    assert torch.allclose(found, of(0.0 if left else ratio * gain))


def test_a_ratio_without_bound_is_bounded() -> None:
    made = site(Bernoulli, BIT, of(0.1), lambda b: of(-1.0)[None], ratio=of(torch.inf))
    assert torch.equal(weighed(made, of(-1.0), 2.0, None), of(-2.0))
    assert torch.equal(weighed(made, of(-1.0), None, 0.2), of(0.0))


@pytest.mark.parametrize("options", [{}, {"ratios": "product"}], ids=str)
def test_the_product_is_exact(options: dict[str, Any]) -> None:
    found = episodes.mean(scg.Score(**options), other=episodes.policy_of(0.7))
    assert torch.allclose(found, exact(), atol=1e-12)


@pytest.mark.parametrize("options", [{"ratios": "step"}, {"truncate": 1.05}, {"clip": 0.1}], ids=str)
def test_the_ratio_of_a_step_alone_is_biased(options: dict[str, Any]) -> None:
    found = episodes.mean(scg.Score(**options), other=episodes.policy_of(0.7))
    assert float((found - exact()).abs().max()) > 1e-2


def test_ratios_of_1_change_nothing() -> None:
    for options in ({"ratios": "step"}, {"truncate": 1.0}, {"clip": 0.1}):
        found = episodes.mean(scg.Score(**options), other=episodes.policy_of())
        assert torch.allclose(found, exact(), atol=1e-12)


@pytest.mark.parametrize("options", [{"ratios": "product"}, {"ratios": "step"}, {"clip": 0.2}], ids=str)
def test_ratios_need_what_the_value_was_drawn_from(options: dict[str, Any]) -> None:
    estimator = scg.Score(**options)
    assert "give behaviour=" in str(refusal(estimator, facts(Bernoulli, BIT, is_given=True)))
    assert refusal(estimator, facts(Bernoulli, BIT, is_given=True, has_behaviour=True)) is None


# ---- groups


@pytest.mark.parametrize("nowhere", [problems.NOWHERE, torch.nan])
def test_a_group_is_divided_by_its_deviation(nowhere: float) -> None:
    record = record_of(nowhere)
    estimator = scg.Score(baseline=scg.LeaveOneOut("episode"), normalise="group")
    found = run(estimator, record, behaviour=False)
    assert torch.allclose(found, wanted(record, lambda q, r: (q - others(q)) / q.std(0)), atol=1e-9)


def test_a_group_of_replicates() -> None:
    g = scg.Graph()
    theta = g.param("theta", torch.tensor(0.3, dtype=torch.float64))
    b = g.sample("b", Bernoulli, logits=theta)
    g.cost("loss", (b - 0.4) ** 2)
    estimator = scg.Score(baseline="leave-one-out", normalise="group")
    program = scg.compile(g, estimator, samples=5, allow_biased=True)
    estimate = program(seed=1)
    estimate.loss.backward()
    value = estimate.samples["b"].detach()
    credit = (value - 0.4) ** 2
    assert 0 < value.sum() < 5
    factor = (credit - others(credit)) / credit.std()
    assert torch.allclose(program.theta.grad, (factor * (value - torch.sigmoid(of(0.3)))).mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_group_that_is_all_alike_says_nothing(dtype: torch.dtype) -> None:
    credit = torch.full((7,), 0.7, dtype=dtype) + torch.tensor([0, 0, 1, 0, 0, 0, 0]) * torch.finfo(dtype).eps
    assert bool(deviation(credit, 0).isinf().all())
    assert bool(deviation(credit[:1], 0).isinf().all())
    assert torch.allclose(
        deviation(credit * 0 + torch.arange(7).to(dtype), 0), credit.new_tensor(28 / 6).sqrt()
    )


def test_a_group_is_biased() -> None:
    """Its factor weighs a prompt by how often it succeeds."""
    estimator = scg.Score(baseline=scg.LeaveOneOut("completion"), normalise="group")
    assert float((episodes.mean_of_groups(estimator, 3) - exact()).abs().max()) > 1e-2


# ---- completions of unequal length


@pytest.mark.parametrize("other", [None, 0.7], ids=["own", "behaviour"])
@pytest.mark.parametrize("size", [2, 3])
def test_completions_that_end_early_are_compared_with_no_bias(size: int, other: float | None) -> None:
    """What has ended counts as 0 in the mean over the others, which an episode does not influence."""
    estimator = scg.Score(baseline=scg.LeaveOneOut("completion"))
    found = episodes.mean_of_groups(
        estimator, size, other=None if other is None else episodes.policy_of(other)
    )
    assert torch.allclose(found, exact(), atol=1e-12)


@pytest.mark.parametrize("behaviour", [False, True])
def test_completions_are_compared_by_the_formula(behaviour: bool) -> None:
    policy, record = episodes.policy_of(), record_of(torch.nan)
    groups = {key: value.unflatten(0, (10, 4)) for key, value in record.items()}
    g = episodes.graph(policy, groups, "prompt", "completion", behaviour=behaviour)
    program = scg.compile(g, {"ep": scg.Score(baseline=scg.LeaveOneOut("completion"))})
    found = episodes.gradient(program, policy, groups)
    seen = {key: value.nan_to_num() for key, value in groups.items()}
    ratio = torch.where(groups["mask"], episodes.ratios(policy, seen), 1.0)
    if not behaviour:
        ratio = torch.ones_like(ratio)
    cost = torch.where(groups["mask"], -groups["reward"].nan_to_num(), 0)
    later = torch.stack((cost[..., 0] + DISCOUNT * ratio[..., 1] * cost[..., 1], cost[..., 1]), -1)
    left = later - (later.sum(1, keepdim=True) - later) / 3
    factor = left * ratio.cumprod(-1)
    assert torch.allclose(found, episodes.by_hand(policy, groups, factor), atol=1e-9)


# ---- what a network is fit on


class Fits:
    """A run with a network: what the policy and the network get."""

    def __init__(self, baseline: Callable[[Value], Any], record: dict[str, Tensor], **options: Any) -> None:
        self.policy, self.net = episodes.policy_of(), Value()
        self.record = record
        g = episodes.graph(self.policy, record, "episode", behaviour=True)
        estimator = scg.Score(baseline=baseline(self.net), **options)
        self.program = scg.compile(g, {"ep": estimator}, allow_biased=True)

    def gradients(self, run: Callable[..., Any] | None = None) -> tuple[Tensor, Tensor]:
        self.program.zero_grad()
        self.policy.zero_grad()
        (run or self.program)(noise=self.record).loss.backward()
        found = problems.flat([parameter.grad for parameter in self.policy.parameters()])
        assert self.net.weight.grad is not None
        return found.clone(), self.net.weight.grad.clone()

    @property
    def credit(self) -> Tensor:
        """The credit of each step, weighed by the ratios of later ones."""
        cost = torch.where(self.record["mask"], -self.record["reward"].nan_to_num(), 0)
        seen = {key: value.nan_to_num() for key, value in self.record.items()}
        ratio = torch.where(self.record["mask"], episodes.ratios(self.policy, seen), 1.0)
        return torch.stack((cost[:, 0] + DISCOUNT * ratio[:, 1] * cost[:, 1], cost[:, 1]), 1)

    def squared_error(self, left: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """The gradient of sum weight left^2 over existing steps."""
        value = self.net(self.record["state"].nan_to_num())
        value = torch.where(self.record["mask"], value, 0)
        weight = DISCOUNT ** torch.arange(2) * self.record["mask"] / len(value)
        return torch.autograd.grad((weight * left(self.credit, value) ** 2).sum(), self.net.weight)[0]


BASELINES: dict[str, tuple[Callable[[Value], Any], Callable[[Tensor, Tensor], Tensor]]] = {
    "network": (lambda net: net, lambda q, v: q - v),
    "network and others": (
        lambda net: scg.Net(net) + scg.LeaveOneOut("episode"),
        lambda q, v: (q - v) - others(q - v),
    ),
    "gae": (lambda net: scg.GAE(net, 0.5), lambda q, v: q - v),
}


@pytest.mark.parametrize("nowhere", [problems.NOWHERE, torch.nan])
@pytest.mark.parametrize("name", ["network", "network and others"])
def test_a_network_is_fit_on_the_credit(name: str, nowhere: float) -> None:
    make, left = BASELINES[name]
    record = record_of(nowhere)
    plain, variance = Fits(make, record).gradients()
    fitting = Fits(make, record, fit="credit")
    found, taught = fitting.gradients()
    assert torch.equal(found, plain)
    assert torch.allclose(taught, fitting.squared_error(left), atol=1e-9)
    assert not torch.allclose(taught, variance, atol=1e-3)
    assert torch.equal(Fits(make, record, fit="variance").gradients()[1], variance)


def test_a_critic_can_be_fit_on_the_credit() -> None:
    make, left = BASELINES["gae"]
    record = record_of()
    fitting = Fits(make, record, ratios="step", fit="credit")
    taught = fitting.gradients()[1]
    value = torch.where(record["mask"], fitting.net(record["state"]), 0)
    weight = DISCOUNT ** torch.arange(2) * record["mask"] / len(value)
    error = (weight * left(episodes.to_go(record), value) ** 2).sum()
    assert torch.allclose(taught, torch.autograd.grad(error, fitting.net.weight)[0], atol=1e-9)


def logistic(estimator: scg.Estimator) -> scg.Program:
    """A program that reads a plate of inputs, on which its network is a function."""
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.linspace(-1, 1, 5, dtype=torch.float64))
    theta = g.param("theta", torch.tensor(0.3, dtype=torch.float64))
    b = g.sample("b", Bernoulli, logits=theta * x)
    g.cost("loss", (b - 0.4 * x) ** 2)
    return scg.compile(g, estimator, allow_biased=True)


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.4, -0.2], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight[0] * x + self.weight[1]


@pytest.mark.usefixtures("compiling")
@pytest.mark.parametrize("fit", ["variance", "credit"])
def test_what_is_compiled_is_fit_alike(fit: Any) -> None:
    x = torch.linspace(-2, 1, 8, dtype=torch.float64)
    program = logistic(scg.Score(baseline=Line(), context="x", fit=fit))
    noise = program.draw_noise(3, x=x)
    found = []
    for run in (program, torch.compile(program, fullgraph=True, backend="aot_eager")):
        program.zero_grad()
        run(x=x, noise=noise).loss.backward()
        found.append([parameter.grad.clone() for parameter in program.parameters()])
    assert all(torch.allclose(one, other) for one, other in zip(*found, strict=True))
    assert all(bool(part.abs().sum() > 0) for part in found[0])


# ---- the discount


def test_a_restarted_discount_weighs_every_step_by_1() -> None:
    record = record_of(torch.nan)
    found = run(scg.Score(restart=True), record, behaviour=False)
    weights = DISCOUNT ** -torch.arange(2.0)
    assert torch.allclose(found, wanted(record, lambda q, r: weights * q), atol=1e-9)


def test_a_restarted_discount_is_biased() -> None:
    """By the steps after the first, which count 1 / discount**t times what they should."""
    policy = episodes.policy_of()
    first, second = policy(problems.FIRST).probs, policy(problems.SECOND).probs
    later = second[0] * 0.5 - second[1] * 1.5
    cost = -first[1] * 0.7 + first[0] * (-0.2 + DISCOUNT * later.detach()) + first[0].detach() * later
    predicted = problems.flat(torch.autograd.grad(cost, list(policy.parameters())))
    assert torch.allclose(episodes.mean(scg.Score(restart=True)), predicted, atol=1e-12)
    assert float((predicted - exact()).abs().max()) > 1e-3


def test_a_restarted_discount_that_vanishes_is_restarted() -> None:
    """0.5**t is 0 in single precision where the steps are many, and each of them counts."""
    size = 200
    g = scg.Graph()
    g.plate("time", size=size, ordered=True, discount=0.5, reduce="sum")
    theta = g.param("theta", torch.zeros(size), plates="time")
    b = g.sample("b", Bernoulli, logits=theta)
    g.cost("loss", b)
    program = scg.compile(g, scg.Score(restart=True), allow_biased=True)
    estimate = program(seed=0)
    estimate.loss.backward()
    value = estimate.samples["b"].detach()
    to_go = torch.stack([(0.5 ** torch.arange(size - t) * value[t:]).sum() for t in range(size)])
    assert torch.allclose(program.theta.grad, to_go * (value - 0.5), atol=1e-5)


def test_there_has_to_be_a_discount_to_restart() -> None:
    time = Axis("time", 3, ordered=True)
    estimator = scg.Score(restart=True)
    assert "no plate here has a discount" in str(refusal(estimator, facts(Bernoulli, BIT, axes=(time,))))
    assert refusal(estimator, facts(Bernoulli, BIT, axes=(time._replace(discount=0.9),))) is None


# ---- what is biased, and what means nothing


@pytest.mark.parametrize(
    "options, told",
    [
        ({"ratios": "step"}, "with ratios='step' at 'ep'"),
        ({"truncate": 2.0}, "with truncate=2.0 at 'ep'"),
        ({"clip": 0.2, "restart": True}, "with clip=0.2 and restart=True at 'ep'"),
        ({"baseline": scg.LeaveOneOut("episode"), "normalise": "group"}, "with normalise='group' at 'ep'"),
    ],
)
def test_a_biased_option_has_to_be_allowed(options: dict[str, Any], told: str) -> None:
    policy, record = episodes.policy_of(), record_of()
    g = episodes.graph(policy, record, "episode", behaviour=True)
    estimator = scg.Score(**options)
    assert scg.Score.unbiased and not estimator.unbiased
    for entry in (estimator, scg.Parts({"loss": estimator})):
        with pytest.raises(scg.BiasedEstimatorError, match=f"'score' {told} is biased: .*leave .* out"):
            scg.compile(g, {"ep": entry})
    assert (
        f"biased by {' and '.join(estimator.biased_by)}"
        in scg.compile(g, {"ep": estimator}, allow_biased=True).explain()
    )


@pytest.mark.parametrize(
    "options, told",
    [
        ({"ratios": "steps"}, r"ratios is one of \('product', 'step'\), not 'steps'"),
        ({"truncate": 2.0, "clip": 0.2}, "bound the same ratio"),
        (
            {"truncate": 2.0, "ratios": "product"},
            'truncate= bounds the ratio of a step, and ratios="product"',
        ),
        ({"clip": 0.2, "ratios": "product"}, "clip= bounds the ratio of a step"),
        ({"clip": 0.0}, "clip is a number above 0, not 0.0"),
        ({"truncate": True}, "truncate is a number above 0, not True"),
        ({"normalise": "groups"}, "normalise is True, False or 'group', not 'groups'"),
        ({"normalise": "group"}, 'this one compares none: give baseline="leave-one-out"'),
        ({"fit": "credit"}, "give baseline=module too"),
        ({"fit": "return", "baseline": Value()}, r"fit is one of \('variance', 'credit'\), or None"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(scg.EstimatorError, match=told):
        scg.Score(**options)


def test_a_group_of_one_is_refused_like_a_comparison() -> None:
    estimator = scg.Score(baseline="leave-one-out", normalise="group")
    assert "samples=2" in str(refusal(estimator, facts(Bernoulli, BIT)))
    assert refusal(estimator, facts(Bernoulli, BIT, axes=(Axis(REPLICATES, 2),))) is None


def test_a_proof_fails_on_a_biased_option() -> None:
    for entry in (scg.Score(restart=True), scg.Parts({"loss": scg.Score(restart=True)})):
        g = scg.Graph()
        g.plate("time", size=2, ordered=True, discount=0.5, reduce="sum")
        g.cost("loss", g.sample("b", Bernoulli, logits=g.param("theta", torch.zeros(2), plates="time")))
        proof = scg.prove(scg.compile(g, {"b": entry}, allow_biased=True))
        assert str(proof).startswith("failed")
