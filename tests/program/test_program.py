"""Programs: estimates, noise as an input, and everything that an ``nn.Module`` is expected to do."""

from __future__ import annotations

import copy
import io
import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Beta, Gamma, Normal, Poisson
from torch.func import functional_call
from torch.utils import _pytree as pytree

import scg


def squares(b: Tensor) -> Tensor:
    return ((b - 0.3) ** 2).sum(-1)


def drift(previous: Tensor, theta: Tensor) -> Tensor:
    return 0.9 * previous + theta


def vae() -> scg.Graph:
    """An encoder of images in a plate, a bias, a Bernoulli code and a Normal below it."""
    torch.manual_seed(0)
    g = scg.Graph("vae")
    x = g.input("x", plates="batch", example=torch.linspace(-1.0, 1.0, 12).view(4, 3))
    bias = g.param("bias", torch.tensor([0.1, -0.2]))
    logits = g.det("logits", nn.Linear(3, 2), x) + bias
    b = g.sample("b", Bernoulli, logits=logits)
    mean = g.det("mean", nn.Linear(2, 1), b)
    z = g.sample("z", Normal, mean, 0.5)
    g.cost("bits", squares, b)
    g.cost("fit", g.log_prob(b) - g.log_prob(z))
    g.cost("size", (z**2).sum(-1))
    return g


X = torch.tensor([[0.3, -0.5, 1.0], [0.1, 0.9, -0.7]])
POLICY = {"b": scg.Score("moving-average"), "z": "reparam"}


def program(**options: Any) -> scg.Program:
    return scg.compile(vae(), **{"policy": POLICY, **options})


def toy(policy: Any = "score", **options: Any) -> scg.Program:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", torch.tensor([0.3, -0.4])))
    g.cost("c", squares, b)
    return scg.compile(g, policy=policy, **options)


def gradients(p: scg.Program, **given: Any) -> dict[str, Tensor]:
    p.zero_grad()
    p(**given).loss.backward()
    return {name: q.grad.clone() for name, q in p.named_parameters() if q.grad is not None}


def equal(one: Any, other: Any) -> bool:
    """Say whether two trees of tensors are equal bit by bit."""
    left, spec = pytree.tree_flatten(one)
    right, also = pytree.tree_flatten(other)
    return bool(spec == also) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


# ---- estimates


def test_an_estimate_is_a_pytree() -> None:
    estimate = program(keep=["mean"])(x=X, seed=0)
    leaves, spec = pytree.tree_flatten(estimate)
    assert len(leaves) == 1 + 3 + 2 + 1
    again = pytree.tree_unflatten(leaves, spec)
    assert isinstance(again, scg.Estimate) and equal(again, estimate)
    doubled = pytree.tree_map(lambda leaf: 2 * leaf, estimate)
    assert torch.equal(doubled.costs["size"], 2 * estimate.costs["size"])


def test_every_run_returns_the_same_structure() -> None:
    p = program(keep=["mean"])
    first, second = p(x=X, seed=0), p(x=X, seed=0)
    assert pytree.tree_structure(first) == pytree.tree_structure(second)
    assert type(first.samples) is type(first.costs) is type(first.kept) is dict


def test_costs_and_samples_are_detached_and_the_loss_is_their_mean() -> None:
    estimate = program()(x=X, seed=0)
    assert list(estimate.costs) == ["bits", "fit", "size"] and list(estimate.samples) == ["b", "z"]
    held = [*estimate.costs.values(), *estimate.samples.values()]
    assert not any(value.requires_grad for value in held)
    assert estimate.loss.requires_grad and estimate.loss.shape == ()
    total = sum(cost.mean() for cost in estimate.costs.values())
    assert torch.allclose(estimate.loss.detach(), torch.as_tensor(total))


def test_nodes_are_kept_by_name_and_by_handle() -> None:
    g = vae()
    kept = scg.compile(g, keep=["logits", g["mean"], g["bias"]])(x=X, seed=0).kept
    assert list(kept) == ["logits", "mean", "bias"]
    assert torch.allclose(kept["logits"], g.freeze().store.modules["logits"](X))
    assert not any(value.requires_grad for value in kept.values())


@pytest.mark.parametrize("samples", [None, 1, 3])
def test_shapes_start_with_the_replicates_exactly_when_they_were_asked_for(samples: int | None) -> None:
    lead = () if samples is None else (samples,)
    estimate = program(samples=samples, keep=["mean", "bias"])(x=X, seed=0)
    assert {n: v.shape for n, v in estimate.costs.items()} == dict.fromkeys(estimate.costs, (*lead, 2))
    assert estimate.samples["b"].shape == (*lead, 2, 2) and estimate.samples["z"].shape == (*lead, 2, 1)
    assert estimate.kept["mean"].shape == (*lead, 2, 1) and estimate.kept["bias"].shape == (*lead, 2)


def test_replicates_are_drawn_independently() -> None:
    drawn = program(samples=2)(x=X, seed=0).samples
    assert not torch.equal(drawn["z"][0], drawn["z"][1])


# ---- noise


def test_a_seed_decides_everything_and_is_spelled_in_two_ways() -> None:
    p = program()
    one, other, third = p(x=X, seed=7), p(x=X, noise=7), p(x=X, seed=8)
    assert equal(one.samples, other.samples) and torch.equal(one.loss, other.loss)
    assert not torch.equal(one.samples["z"], third.samples["z"])


@pytest.mark.parametrize("samples", [None, 3])
def test_drawn_noise_replays_a_seed(samples: int | None) -> None:
    p = program(samples=samples, policy={"b": "score", "z": "reparam"})
    noise = p.draw_noise(7, x=X)
    assert list(noise) == ["b", "z"]
    assert equal(p(x=X, noise=noise).samples, p(x=X, seed=7).samples)
    assert equal(gradients(p, x=X, noise=noise), gradients(p, x=X, seed=7))


def valued() -> scg.Graph:
    g = scg.Graph()
    a = g.param("a", torch.tensor([2.0, 0.7]))
    rate = g.sample("rate", Gamma, a, 1.0)
    n = g.sample("n", Poisson, rate + 1.0)
    p = g.sample("p", Beta, a, 2.0)
    b = g.sample("b", Bernoulli, probs=p)
    g.cost("c", lambda n, b, p: (n * b + p).sum(), n, b, p)
    return g


@pytest.mark.parametrize("samples", [None, 3])
def test_nodes_without_base_noise_replay_their_value(samples: int | None) -> None:
    p = scg.compile(valued(), policy="score", samples=samples)
    noise = p.draw_noise(5)
    replayed, seeded = p(noise=noise).samples, p(seed=5).samples
    assert equal(replayed, seeded)
    values = [name for name in noise if torch.equal(noise[name], seeded[name])]
    assert {"rate", "n", "p"} >= set(values) >= {"rate", "n"}
    assert not torch.equal(p(seed=6).samples["rate"], seeded["rate"])


def test_replayed_values_keep_their_implicit_gradient() -> None:
    g = scg.Graph()
    g.cost("c", g.sample("z", Gamma, g.param("a", torch.tensor(2.0)), 1.0) ** 2)
    p = scg.compile(g, policy="reparam")
    assert equal(gradients(p, noise=p.draw_noise(1)), gradients(p, seed=1))
    assert float(gradients(p, seed=1)["a"]) != 0.0


def test_by_default_torch_s_generator_decides() -> None:
    p = program()

    def run(seed: int) -> Any:
        torch.manual_seed(seed)
        return p(x=X).samples, p(x=X).samples

    (first, second), again = run(0), run(0)
    assert equal((first, second), again)
    assert not torch.equal(first["z"], second["z"]) and not torch.equal(first["z"], run(1)[0]["z"])


def test_a_seed_leaves_torch_s_generator_alone() -> None:
    for p, given in ((program(), {"x": X}), (scg.compile(valued(), policy="score"), {})):
        p(seed=0, **given)
        before = torch.random.get_rng_state()
        p(seed=1, **given)
        p.draw_noise(2, **given)
        assert torch.equal(torch.random.get_rng_state(), before)


# ---- parameters


def test_keys_are_those_of_the_graph() -> None:
    g = vae()
    p = scg.compile(g, policy=POLICY)
    names = ["bias", "logits.weight", "logits.bias", "mean.weight", "mean.bias"]
    assert [name for name, _ in g.named_parameters()] == names
    assert [name for name, _ in p.named_parameters()] == names
    controls = {key for key in p.state_dict() if key not in names}
    assert controls == {f"controls.b.{key}" for key in ("first", "mass")}


def test_a_state_is_saved_and_loaded() -> None:
    p, other = program(), program()
    for seed in range(3):
        gradients(p, x=X, seed=seed)
    with torch.no_grad():
        for parameter in p.parameters():
            parameter.add_(1.0)
    file = io.BytesIO()
    torch.save(p.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    assert equal(dict(other.state_dict()), dict(p.state_dict()))
    assert equal(gradients(other, x=X, seed=5), gradients(p, x=X, seed=5))


def test_programs_of_one_graph_share_its_parameters() -> None:
    g = vae()
    one, other = scg.compile(g, policy="score"), scg.compile(g)
    assert all(a is b for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert one.bias is g["bias"].value
    with torch.no_grad():
        one.bias.add_(3.0)
    estimates = [p(x=X, seed=0) for p in (one, other)]
    assert equal(estimates[0].samples, estimates[1].samples)


class Constant(nn.Module):
    """A baseline that is one learned number."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.zeros(1))

    def forward(self, *context: Tensor) -> Tensor:
        return self.level.expand(len(context[0]))


def test_parameters_are_the_model_s_or_the_controls() -> None:
    p = program(policy={"b": scg.Score(Constant()), "z": "reparam"})
    model, control = list(p.model_parameters()), list(p.control_parameters())
    assert len(model) == 5 and len(control) == 1
    assert {id(q) for q in p.parameters()} == {id(q) for q in (*model, *control)}
    assert list(toy("enumerate").control_parameters()) == []
    gradients(p, x=X, seed=0)
    assert control[0].grad is not None and float(control[0].grad) != 0.0


def test_controls_do_not_touch_the_model_s_gradient() -> None:
    """The credit less a baseline of 0 is the credit."""
    plain, learned = (program(policy={"b": e, "z": "reparam"}) for e in ("score", scg.Score(Constant())))
    one, other = gradients(plain, x=X, seed=0), gradients(learned, x=X, seed=0)
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)
    assert set(other) - set(one) == {"controls.b.net.level"}


# ---- copies


def trained() -> scg.Program:
    p = program()
    for seed in range(3):
        gradients(p, x=X, seed=seed)
    return p


def pickled(p: scg.Program) -> scg.Program:
    again = pickle.loads(pickle.dumps(p))
    assert isinstance(again, scg.Program)
    return again


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled], ids=["deepcopy", "pickle"])
def test_a_copy_is_equal_and_separate(duplicate: Callable[[scg.Program], scg.Program]) -> None:
    p = trained()
    q = duplicate(p)
    assert float(q.state_dict()["controls.b.mass"]) == pytest.approx(1 - 0.9**3)
    assert equal(dict(q.state_dict()), dict(p.state_dict()))
    assert q.code == p.code and q.explain() == p.explain()
    assert equal(gradients(q, x=X, seed=9), gradients(p, x=X, seed=9))
    before = {key: value.clone() for key, value in p.state_dict().items()}
    gradients(q, x=X, seed=10)
    with torch.no_grad():
        for parameter in q.parameters():
            parameter.zero_()
    assert equal(dict(p.state_dict()), before)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled], ids=["deepcopy", "pickle"])
def test_a_copy_keeps_modes_and_options(duplicate: Callable[[scg.Program], scg.Program]) -> None:
    p = program(samples=2, keep=["mean"]).eval()
    p.check_values = True
    q = duplicate(p)
    assert not q.training and not q.controls.training and q.check_values is True
    assert equal(q(x=X, seed=0), p(x=X, seed=0))


def test_a_pending_program_is_copied_as_well() -> None:
    g = scg.Graph()
    g.cost("c", squares, g.sample("b", Bernoulli, logits=g.input("x", plates="batch")))
    for q in (copy.deepcopy(scg.compile(g)), pickled(scg.compile(g))):
        assert q.is_pending
        assert q(x=X, seed=0).samples["b"].shape == X.shape


# ---- what modules do


def test_moving_to_double_moves_everything() -> None:
    p = program().to(torch.float64)
    estimate = p(x=X.double(), seed=0)
    assert {leaf.dtype for leaf in pytree.tree_leaves(estimate)} == {torch.float64}
    assert all(g.dtype == torch.float64 for g in gradients(p, x=X.double(), seed=0).values())
    assert all(key.dtype == torch.float64 for key in p.state_dict().values())
    assert p.to(torch.float32)(x=X, seed=0).loss.dtype == torch.float32


def test_functional_call_replaces_parameters() -> None:
    p = program()
    bias = torch.tensor([5.0, -5.0])
    estimate = functional_call(p, {"bias": bias}, (), {"x": X, "seed": 3})
    old = p.bias.detach().clone()
    with torch.no_grad():
        p.bias.copy_(bias)
    assert equal(estimate.samples, p(x=X, seed=3).samples)
    with torch.no_grad():
        p.bias.copy_(old)


def test_functional_gradients_are_those_of_backward() -> None:
    p = program(policy={"b": "score", "z": "reparam"}).eval()
    expected = gradients(p, x=X, seed=3)
    values = {name: q.detach() for name, q in p.named_parameters()}

    def loss(values: dict[str, Tensor]) -> Tensor:
        found: Tensor = functional_call(p, values, (), {"x": X, "seed": 3}).loss
        return found

    found = torch.func.grad(loss)(values)
    assert set(found) == set(expected)
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in found)


def test_without_gradients_there_are_samples_and_costs() -> None:
    p = program()
    before = {key: value.clone() for key, value in p.state_dict().items()}
    with torch.no_grad():
        quiet = p(x=X, seed=0)
    assert not quiet.loss.requires_grad
    assert equal(dict(p.state_dict()), before)
    loud = p(x=X, seed=0)
    assert equal(quiet.samples, loud.samples) and equal(quiet.costs, loud.costs)
    assert torch.equal(quiet.loss, loud.loss.detach())


def test_training_touches_the_user_s_modules_and_the_running_statistics_only() -> None:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    logits = g.det("logits", nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)), x)
    g.cost("c", squares, g.sample("b", Bernoulli, logits=logits))
    p = scg.compile(g, policy=scg.Score("moving-average"), keep=["logits"])
    gradients(p, x=X, seed=0)
    assert float(p.state_dict()["controls.b.mass"]) == pytest.approx(0.1)
    p.eval()
    gradients(p, x=X, seed=0)
    assert float(p.state_dict()["controls.b.mass"]) == pytest.approx(0.1)
    assert torch.equal(p(x=X, seed=0).kept["logits"], p(x=X, seed=1).kept["logits"])
    p.train()
    torch.manual_seed(0)
    assert not torch.equal(p(x=X, seed=0).kept["logits"], p(x=X, seed=0).kept["logits"])


def test_a_graph_without_costs_samples() -> None:
    g = scg.Graph()
    g.sample("z", Normal, g.param("mu", 0.0), 1.0)
    estimate = scg.compile(g, samples=3)(seed=0)
    assert estimate.loss is None and estimate.costs == {}
    assert estimate.samples["z"].shape == (3,)


def test_a_program_is_a_snapshot_of_its_graph() -> None:
    g = vae()
    p = scg.compile(g, policy=POLICY)
    before = p(x=X, seed=0)
    g.cost("later", g.sample("w", Normal, g["z"], 1.0).sum(-1))
    after = p(x=X, seed=0)
    assert list(after.costs) == list(before.costs) and equal(after.samples, before.samples)
    assert "later" in scg.compile(g)(x=X, seed=0).costs


def test_another_batch_size_and_another_dtype() -> None:
    p = program()
    for size in (1, 2, 7):
        x = torch.ones(size, 3)
        assert p(x=x, seed=0).samples["b"].shape == (size, 2)
    assert gradients(p, x=torch.ones(5, 3), seed=0)["bias"].shape == (2,)
    g = scg.Graph()
    g.cost("c", squares, g.sample("b", Bernoulli, logits=g.input("x", plates="batch", example=X)))
    q = scg.compile(g)
    assert q(x=X, seed=0).loss.dtype == torch.float32
    assert q(x=X.double(), seed=0).loss.dtype == torch.float64


# ---- pending


def test_without_examples_a_program_waits_for_its_first_call() -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.input("x", plates="batch") * g.param("t", 1.0))
    g.cost("c", squares, b)
    called, prepared = scg.compile(g, policy="score"), scg.compile(g, policy="score")
    assert called.is_pending and "pending" in repr(called)
    assert "pending: everything else is found at the first call, or by program.prepare" in called.explain()
    assert prepared.prepare(x=X) is prepared
    assert not prepared.is_pending and called.is_pending
    estimate = called(x=X, seed=0)
    assert not called.is_pending and called.code == prepared.code
    assert equal(estimate.samples, prepared(x=X, seed=0).samples)


def test_a_pending_program_still_reads_its_policy() -> None:
    g = scg.Graph()
    g.sample("b", Bernoulli, logits=g.input("x"))
    with pytest.raises(scg.PolicyError, match="'q' matches nothing"):
        scg.compile(g, policy={"q": "score"})


# ---- checks


def test_values_are_checked_on_request() -> None:
    g = scg.Graph()
    x = g.input("x", example=torch.tensor(1.0))
    g.cost("c", g.sample("b", Bernoulli, logits=g.param("t", 0.0)) + 1.0 / x)
    p = scg.compile(g, policy="score")
    p(x=torch.tensor(1.0), seed=0)
    assert not torch.isfinite(p(x=torch.tensor(0.0), seed=0).loss)
    p.check_values = True
    with pytest.raises(scg.NonFiniteError, match="cost 'c' .*is infinite"):
        p(x=torch.tensor(0.0), seed=0)


@pytest.mark.parametrize("policy", ["score", scg.Score("moving-average"), scg.Enumerate(local=True)])
def test_a_second_derivative_is_refused(policy: Any) -> None:
    p = toy(policy)
    with pytest.raises(scg.EstimatorError, match=r"order=1 was differentiated with create_graph=True"):
        torch.autograd.grad(p(seed=0).loss, p.theta, create_graph=True)
    gradients(p, seed=0)


def test_exact_programs_may_be_differentiated_twice() -> None:
    p = toy("enumerate")
    (first,) = torch.autograd.grad(p(seed=0).loss, p.theta, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), p.theta)
    s = torch.sigmoid(p.theta.detach())
    slope = 0.7**2 - 0.3**2
    assert torch.allclose(second, slope * s * (1 - s) * (1 - 2 * s), atol=1e-6)


def test_nothing_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = program(samples=2)
        gradients(p, x=X, seed=0)
        pickled(p)


# ---- parameters from elsewhere


def test_captured_parameters_get_right_gradients_and_are_told() -> None:
    scale = nn.Parameter(torch.tensor(0.5))
    net = nn.Linear(1, 1)
    g = scg.Graph()
    logits = g.det("logits", lambda t: t * scale, g.param("t", torch.tensor(0.8)))
    b = g.sample("b", Bernoulli, logits=logits)
    g.cost("c", lambda b: (net(b[None])[0] - 0.2) ** 2, b)
    p = scg.compile(g, policy="enumerate")
    p(seed=0).loss.backward()

    one, zero = ((net(torch.tensor([v]))[0] - 0.2) ** 2 for v in (1.0, 0.0))
    mass = torch.sigmoid(p.t.detach() * scale)
    expected = torch.autograd.grad(mass * one + (1 - mass) * zero, [scale, *net.parameters()])
    found = [scale.grad, *(q.grad for q in net.parameters())]
    for gradient, exact in zip(found, expected, strict=True):
        assert gradient is not None and torch.allclose(gradient, exact, atol=1e-6)
    text = p.explain()
    assert "'logits' captures the parameter 'scale', which the program holds as" in text
    assert "'c' captures the module 'net', which the program holds as" in text
    assert "captures" not in program().explain()


@pytest.mark.parametrize("policy", ["score", "enumerate", scg.Enumerate(local=True)])
def test_inputs_that_require_a_gradient_get_one(policy: Any) -> None:
    """An encoder outside the graph is trained through the inputs."""
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.zeros(2))
    g.cost("c", (g.sample("b", Bernoulli, logits=x) - 0.3) ** 2)
    inside = scg.Graph()
    t = inside.param("t", torch.tensor([0.4, -1.0]), plates="batch")
    inside.cost("c", (inside.sample("b", Bernoulli, logits=t) - 0.3) ** 2)
    given = torch.tensor([0.4, -1.0], requires_grad=True)
    scg.compile(g, policy=policy)(x=given, seed=4).loss.backward()
    expected = gradients(scg.compile(inside, policy=policy), seed=4)["t"]
    assert given.grad is not None and float(given.grad.abs().min()) > 0.0
    assert torch.allclose(given.grad, expected)


def test_inputs_without_gradients_make_no_graph() -> None:
    g = scg.Graph()
    g.cost("c", g.sample("b", Bernoulli, logits=g.input("x", plates="batch", example=torch.zeros(2))))
    assert not scg.compile(g, policy="score")(x=torch.zeros(2), seed=0).loss.requires_grad


# ---- looking at it


def test_a_program_tells_of_itself() -> None:
    p = program(samples=2)
    text = p.explain()
    assert re.match(r"15 nodes, 2 stochastic, 3 costs\n", text)
    assert "2 replicates of every stochastic node" in text
    assert "b: score (asked for); Bernoulli in plates batch" in text
    assert "charged with bits, fit, size" in text
    assert repr(p).startswith("<scg.Program of") and "b: score, z: reparam" in repr(p)
    assert "def forward(self, x, noise):" in p.code
    assert [node.op for node in p.fx.graph.nodes][-1] == "output"


@pytest.mark.parametrize("suffix", ["svg", "dot", "mmd"])
def test_a_program_is_drawn_with_its_estimators(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"vae.{suffix}"
    program().draw(path)
    text = path.read_text(encoding="utf-8")
    assert "score" in text and "reparam" in text
    assert "score" in program()._repr_svg_()


# ---- depth


def test_long_chains_do_not_recurse() -> None:
    g = scg.Graph()
    theta = g.param("theta", 0.1)
    x = theta
    for index in range(1_500):
        x = g.sample(f"x{index}", Normal, g.det(f"m{index}", drift, x, theta), 1.0)
    g.cost("c", x**2)
    p = scg.compile(g, policy="score")
    expected = gradients(p, seed=0)
    q, r = copy.deepcopy(p), pickled(p)
    assert len(repr(p)) < 500
    for other in (q, r):
        assert torch.allclose(gradients(other, seed=0)["theta"], expected["theta"])


def test_errors_of_an_estimator_name_its_node() -> None:
    g = scg.Graph()
    t = g.param("t", torch.zeros(1))
    g.cost("c", g.sample("k", Bernoulli, logits=t.sum(-1)) * 2.0)
    with pytest.raises(
        scg.EstimatorError, match="the network of 'k': .*one value for each of 1 plate elements"
    ):
        scg.compile(g, policy=scg.Score(nn.Linear(1, 2), context="t"))
    with pytest.raises(scg.EstimatorError, match=r"network of 'k' raised .* shape \(1,\): mat1 and mat2"):
        scg.compile(g, policy=scg.Score(nn.Linear(3, 1), context="t"))


def test_joint_outcomes_over_the_limit_are_refused_at_a_larger_batch() -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.input("x", plates="batch", example=torch.zeros(3)))
    g.cost("c", g.det("m", lambda b: b.mean(0), b, plates=()))
    program = scg.compile(g, policy="enumerate")
    program(x=torch.zeros(4))
    with pytest.raises(scg.EstimatorError, match=r"'b' .*2\*\*30 joint outcomes"):
        program(x=torch.zeros(30))


def test_a_cost_may_be_a_black_box() -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("t", 0.3))
    g.cost("c", lambda b: float(b.numpy()) * 3.0, b, differentiable=False)
    for parameter in g.parameters():
        scg.compile(g, policy="enumerate")().loss.backward()
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, scg.exact_gradient(g)["t"])


def test_nan_is_named_on_a_default_device_too() -> None:
    g = scg.Graph()
    x = g.input("x", example=torch.ones(()))
    b = g.sample("b", Bernoulli, logits=g.param("theta", torch.zeros(())))
    g.cost("c", lambda b, x: b * 0 + torch.sqrt(x), b, x)
    program = scg.compile(g, "score")
    program(x=torch.ones(()))
    with torch.device("cpu"), pytest.raises(scg.NonFiniteError, match="'c'"):
        program(x=-torch.ones(()))
