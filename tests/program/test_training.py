"""Training: model and control variates learn from one ordinary backward, as any ``nn.Module`` does."""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, OneHotCategorical
from torch.func import functional_call
from torch.multiprocessing.spawn import spawn

import scg
from tests.support import running
from tests.support.running import awake, grads, pickled

Policy = Any
X = torch.linspace(-1.0, 1.0, 15).view(5, 3)
LEARNING: dict[str, Policy] = {
    "rebar": {"h": "rebar", "b": "rebar"},
    "relax": {"h": "relax", "b": "relax"},
    "all three": {"h": "rebar", "b": scg.RELAX(relaxed_cost=False), "z": "lax"},
    "branches": {"h": "enumerate", "b": "relax", "z": "lax"},
}


def deep() -> scg.Graph:
    """An encoder, two layers of bits, a Normal below them, and three costs."""
    torch.manual_seed(0)
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.linspace(-1.0, 1.0, 12).view(4, 3))
    h = g.sample("h", Bernoulli, logits=g.det("enc", nn.Linear(3, 3), x))
    b = g.sample("b", Bernoulli, logits=g.det("mid", nn.Linear(3, 2), h))
    z = g.sample("z", Normal, g.det("dec", nn.Linear(2, 2), b), 0.7)
    g.cost("fit", ((z - 0.4) ** 2).sum(-1))
    g.cost("bits", g.log_prob(b) + h.sum(-1))
    g.cost("size", (g.param("bias", torch.tensor(0.3)) - b[..., 0]) ** 2)
    return g


def compiled(policy: Policy, **options: Any) -> scg.Program:
    g = deep()
    torch.manual_seed(1)
    return scg.compile(g, policy, **options)


@cache
def ready(name: str) -> tuple[scg.Program, dict[str, Tensor]]:
    """Return a program, compiled once, and the state that it starts from."""
    program = awake(compiled(LEARNING[name]))
    return program, {key: value.clone() for key, value in program.state_dict().items()}


@pytest.fixture(params=LEARNING)
def program(request: pytest.FixtureRequest) -> Iterator[scg.Program]:
    program, state = ready(request.param)
    yield program
    program.float().train().requires_grad_(True).zero_grad()
    program.load_state_dict(state)


def gradients(program: scg.Program, **given: Any) -> dict[str, Tensor]:
    return running.gradients(program, **{"x": X, **given})


def close(one: Mapping[str, Tensor], other: Mapping[str, Tensor], scale: float = 1e-6) -> bool:
    return one.keys() == other.keys() and all(
        torch.allclose(one[name], other[name], rtol=1e-5, atol=scale) for name in one
    )


# ---- one backward


def test_every_parameter_gets_a_finite_gradient(program: scg.Program) -> None:
    found = gradients(program, seed=0)
    assert found.keys() == dict(program.named_parameters()).keys()
    assert all(gradient.isfinite().all() and float(gradient.abs().max()) > 0 for gradient in found.values())


def test_the_first_call_is_like_the_later_ones(program: scg.Program) -> None:
    first, second, third = (gradients(program, seed=seed) for seed in (3, 4, 3))
    assert all(torch.equal(first[name], third[name]) for name in first)
    assert not all(torch.equal(first[name], second[name]) for name in first)


def test_one_optimizer_trains_model_and_controls(program: scg.Program) -> None:
    before = {name: p.detach().clone() for name, p in program.named_parameters()}
    optimizer = torch.optim.Adam(program.parameters(), lr=0.01)
    for seed in range(3):
        optimizer.zero_grad()
        program(x=X, seed=seed).loss.backward()
        optimizer.step()
    assert not any(torch.equal(p, before[name]) for name, p in program.named_parameters())


def test_two_optimizers_divide_the_parameters(program: scg.Program) -> None:
    model, controls = list(program.model_parameters()), list(program.control_parameters())
    everything = {id(p) for p in program.parameters()}
    assert {id(p) for p in model} | {id(p) for p in controls} == everything
    assert len(model) + len(controls) == len(everything)
    kept = [p.detach().clone() for p in model]
    optimizer = torch.optim.SGD(controls, lr=0.1)
    program(x=X, seed=0).loss.backward()
    optimizer.step()
    assert all(torch.equal(p, old) for p, old in zip(model, kept, strict=True))
    gradients(program, seed=0)


def test_gradients_of_two_backwards_add(program: scg.Program) -> None:
    one, other = gradients(program, seed=1), gradients(program, seed=2)
    program.zero_grad()
    for seed in (1, 2):
        program(x=X, seed=seed).loss.backward()
    assert close(grads(program), {name: one[name] + other[name] for name in one})


def test_one_backward_of_two_losses_adds_as_well(program: scg.Program) -> None:
    one, other = gradients(program, seed=1), gradients(program, seed=2)
    program.zero_grad()
    (program(x=X, seed=1).loss + 2.0 * program(x=X, seed=2).loss).backward()
    expected = {name: one[name] + 2.0 * other[name] for name in one}
    assert close(grads(program), expected)


def test_all_gradients_can_be_clipped_together(program: scg.Program) -> None:
    whole = gradients(program, seed=0)
    norm = torch.nn.utils.clip_grad_norm_(program.parameters(), 1e-2)
    found = grads(program)
    assert close(found, {name: g * (1e-2 / float(norm)) for name, g in whole.items()}, scale=1e-7)


def test_scaling_the_loss_scales_every_gradient(program: scg.Program) -> None:
    expected = gradients(program, seed=1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    optimizer = torch.optim.SGD(program.parameters(), lr=0.0)
    program.zero_grad()
    scaler.scale(program(x=X, seed=1).loss).backward()
    scaler.unscale_(optimizer)
    assert close(grads(program), expected)
    scaler.step(optimizer)
    scaler.update()


def test_training_the_controls_leaves_the_value_of_the_loss(program: scg.Program) -> None:
    before = program(x=X, seed=1)
    with torch.no_grad():
        for parameter in program.control_parameters():
            parameter.add_(0.3)
    after = program(x=X, seed=1)
    assert torch.equal(before.loss, after.loss)
    assert all(torch.equal(before.samples[name], after.samples[name]) for name in before.samples)


# ---- parts that do not learn


def test_frozen_controls_get_no_gradient_and_the_model_its_own(program: scg.Program) -> None:
    expected = gradients(program, seed=1)
    for parameter in program.control_parameters():
        parameter.requires_grad_(False)
    found = gradients(program, seed=1)
    model = {name: g for name, g in expected.items() if not name.startswith("controls.")}
    assert close(found, model)


def test_some_frozen_controls_leave_the_others_their_gradient(program: scg.Program) -> None:
    expected = gradients(program, seed=1)
    frozen = [name for name, _ in program.named_parameters() if name.endswith(("log", "bias"))]
    frozen = [name for name in frozen if name.startswith("controls.")]
    for name in frozen:
        program.get_parameter(name).requires_grad_(False)
    assert close(gradients(program, seed=1), {n: g for n, g in expected.items() if n not in frozen})


def test_a_frozen_model_has_nothing_to_estimate(program: scg.Program) -> None:
    kept = program(x=X, seed=1)
    for parameter in program.model_parameters():
        parameter.requires_grad_(False)
    estimate = program(x=X, seed=1)
    assert not estimate.loss.requires_grad and torch.equal(estimate.loss, kept.loss)


def test_a_frozen_encoder_leaves_the_rest_its_gradient(program: scg.Program) -> None:
    expected = gradients(program, seed=1)
    program.get_parameter("enc.weight").requires_grad_(False)
    program.get_parameter("enc.bias").requires_grad_(False)
    found = gradients(program, seed=1)
    assert found.keys() <= expected.keys() and "mid.weight" in found
    assert not any(name.startswith(("enc.", "controls.h.")) for name in found)
    assert close(found, {name: expected[name] for name in found})


copies = pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled], ids=["deepcopy", "pickle"])


# ---- networks of several nodes


class Net(nn.Module):
    """A network of bits and of whatever else it is given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, 4), nn.Tanh(), nn.Linear(4, 1))

    def forward(self, *values: Tensor) -> Tensor:
        found: Tensor = self.layers(torch.cat(values, -1))
        return found


def siblings(first: int = 2, second: int = 2) -> scg.Graph:
    torch.manual_seed(0)
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.linspace(-1.0, 1.0, 12).view(4, 3))
    a = g.sample("a", Bernoulli, logits=g.det("ha", nn.Linear(3, first), x))
    b = g.sample("b", Bernoulli, logits=g.det("hb", nn.Linear(3, second), x))
    g.cost("c", (a.sum(-1) - 0.3 * b.sum(-1)) ** 2)
    return g


def test_one_instance_gives_its_nodes_one_network_whose_gradients_add() -> None:
    torch.manual_seed(2)
    net = Net(2)
    shared = scg.RELAX(net)
    together = scg.compile(siblings(), {"a": shared, "b": shared})
    apart = scg.compile(siblings(), {name: scg.RELAX(copy.deepcopy(net)) for name in ("a", "b")})
    assert together.controls["a"].net is together.controls["b"].net is net
    one, two = gradients(together, seed=1), gradients(apart, seed=1)
    for key, _ in net.named_parameters():
        assert f"controls.b.net.{key}" not in one
        summed = two[f"controls.a.net.{key}"] + two[f"controls.b.net.{key}"]
        assert torch.allclose(one[f"controls.a.net.{key}"], summed, atol=1e-6)
    for key in ("ha.weight", "hb.bias", "controls.b.eta.log"):
        assert torch.allclose(one[key], two[key], atol=1e-6)


def test_a_default_network_is_shared_by_an_instance_and_not_by_a_name() -> None:
    shared, named = scg.compile(siblings(), scg.RELAX()), scg.compile(siblings(), "relax")
    assert shared.controls["a"].net is shared.controls["b"].net
    assert named.controls["a"].net is not named.controls["b"].net
    network: Any = named.controls["b"].net
    more = len(list(network.parameters()))
    assert len(list(named.parameters())) == len(list(shared.parameters())) + more


@copies
def test_a_shared_network_stays_shared_in_copies_and_states(duplicate: Any) -> None:
    shared = scg.RELAX(Net(2))
    program = scg.compile(siblings(), shared)
    copied = duplicate(program)
    assert copied.controls["a"].net is copied.controls["b"].net
    assert copied.controls["a"].net is not program.controls["a"].net
    with torch.no_grad():
        for parameter in program.parameters():
            parameter.add_(0.1)
    copied.load_state_dict(program.state_dict())
    assert close(gradients(copied, seed=3), gradients(program, seed=3))


def test_a_shared_network_of_two_shapes_is_refused_by_name() -> None:
    with pytest.raises(
        scg.EstimatorError, match="given to 'a' and 'b', .*share its network.*differ in shape"
    ):
        scg.compile(siblings(2, 3), scg.RELAX())
    with pytest.raises(scg.EstimatorError, match=r"the network of 'b' raised .*of shape \(4, 3\)"):
        scg.compile(siblings(2, 3), scg.RELAX(Net(2)))
    assert len(scg.compile(siblings(2, 3), "relax").controls) == 2


def test_a_network_of_the_model_is_no_control() -> None:
    net = nn.Linear(2, 1)
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("t", torch.zeros(2)))
    g.cost("c", g.det("d", net, b)[..., 0])
    with pytest.raises(scg.PolicyError, match="parameter of the graph as well: .*network of its own"):
        scg.compile(g, scg.RELAX(net))


# ---- copies and modes


@copies
def test_a_copy_learns_the_same_and_on_its_own(program: scg.Program, duplicate: Any) -> None:
    gradients(program, seed=0)
    copied = duplicate(program)
    expected = gradients(program, seed=1)
    assert close(gradients(copied, seed=1), expected)
    before = {key: value.clone() for key, value in program.state_dict().items()}
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in program.state_dict().items())
    assert close(gradients(program, seed=1), expected)


def test_a_state_is_saved_and_loaded(program: scg.Program) -> None:
    other = copy.deepcopy(program)
    with torch.no_grad():
        for parameter in program.parameters():
            parameter.add_(0.2)
    file = io.BytesIO()
    torch.save(program.state_dict(), file)
    file.seek(0)
    assert not close(gradients(other, seed=2), gradients(program, seed=2))
    other.load_state_dict(torch.load(file))
    assert close(gradients(other, seed=2), gradients(program, seed=2))


def test_an_optimizer_goes_on_after_its_state_was_loaded(program: scg.Program) -> None:
    def step(trained: scg.Program, optimizer: torch.optim.Optimizer, seed: int) -> None:
        optimizer.zero_grad()
        trained(x=X, seed=seed).loss.backward()
        optimizer.step()

    optimizer = torch.optim.Adam(program.parameters(), lr=0.01)
    step(program, optimizer, 0)
    other = copy.deepcopy(program)
    resumed = torch.optim.Adam(other.parameters(), lr=0.01)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(program, optimizer, 1)
    step(other, resumed, 1)
    assert close(dict(other.named_parameters()), dict(program.named_parameters()))


def test_modes_and_types_do_not_matter_to_what_is_learned(program: scg.Program) -> None:
    expected = gradients(program, seed=1)
    assert close(gradients(program.eval(), seed=1), expected)
    double = gradients(program.train().double(), x=X.double(), seed=1)
    assert all(gradient.dtype == torch.float64 for gradient in double.values())
    assert close({name: g.float() for name, g in double.items()}, expected, scale=1e-4)


def test_controls_can_be_replaced_in_a_functional_call(program: scg.Program) -> None:
    new = {n: p.detach() + 0.1 for n, p in program.named_parameters() if n.startswith("controls.")}
    leaves = {name: value.clone().requires_grad_() for name, value in new.items()}
    program.zero_grad()
    functional_call(program, leaves, (), {"x": X, "seed": 1}).loss.backward()
    model = grads(program)
    found = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    assert not model.keys() & leaves.keys()
    with torch.no_grad():
        for name, value in new.items():
            program.get_parameter(name).copy_(value)
    assert close({**model, **found}, gradients(program, seed=1))


# ---- parameters from elsewhere


@pytest.mark.parametrize(
    "policy", [scg.REBAR(), scg.RELAX(), scg.RELAX(relaxed_cost=False)], ids=["rebar", "relax", "net"]
)
def test_captured_parameters_get_nothing_from_control_variates(policy: scg.Estimator) -> None:
    """Under the same noise, what the cost captures has the gradient of the cost, bit by bit."""
    torch.manual_seed(0)
    scale, out = nn.Parameter(torch.tensor(0.5)), nn.Linear(2, 1)
    g = scg.Graph()
    t = g.param("t", torch.tensor([0.8, -0.3]))
    b = g.sample("b", Bernoulli, logits=g.det("logits", lambda t: t * scale, t))
    g.cost("c", lambda b: (out(b)[0] - 0.2) ** 2, b)
    captured = nn.ParameterDict({"scale": scale, "weight": out.weight, "bias": out.bias})

    def run(policy: Any, samples: int | None) -> dict[str, Tensor]:
        torch.manual_seed(3)
        program = awake(scg.compile(g, policy, samples=samples))
        captured.zero_grad()
        program(seed=3).loss.backward()
        return grads(captured)

    plain, found = run("score", None), run(policy, None)
    assert torch.equal(found["weight"], plain["weight"]) and torch.equal(found["bias"], plain["bias"])
    assert not torch.equal(found["scale"], plain["scale"])
    exact, simulated = run("enumerate", None), run(policy, 40_000)
    assert float(exact["scale"].abs()) > 0.02
    assert torch.allclose(simulated["scale"], exact["scale"], atol=0.003)


@pytest.mark.parametrize("name", ["rebar", "relax"])
def test_an_encoder_outside_the_graph_is_trained(name: str) -> None:
    torch.manual_seed(0)
    encoder = nn.Linear(3, 2)

    def build(inside: bool) -> scg.Program:
        g = scg.Graph()
        given = g.input("given", plates="batch", example=torch.zeros(4, 3 if inside else 2))
        logits = g.det("e", encoder, given) if inside else given
        b = g.sample("b", Bernoulli, logits=logits)
        g.cost("c", ((b - 0.3) ** 2).sum(-1) + b[..., 0] * b[..., 1])
        torch.manual_seed(1)
        return awake(scg.compile(g, name))

    found: list[dict[str, Tensor]] = []
    for program, given in ((build(True), X), (build(False), encoder(X))):
        encoder.zero_grad()
        program(given=given, seed=1).loss.backward()
        found.append({**grads(encoder), **grads(program.controls)})
    assert close(found[0], found[1])
    assert not build(False)(given=torch.zeros(4, 2), seed=1).loss.requires_grad


@pytest.mark.parametrize("name", ["rebar", "relax"])
def test_a_second_derivative_is_refused(name: str) -> None:
    program = compiled({"h": name, "b": name})
    leaf = program.get_parameter("mid.weight")
    with pytest.raises(scg.EstimatorError, match=r"order=1 was differentiated with create_graph=True"):
        torch.autograd.grad(program(x=X, seed=0).loss, leaf, create_graph=True)
    control = program.get_parameter("controls.b.eta.log")
    with pytest.raises(scg.EstimatorError, match=r"order=1 was differentiated with create_graph=True"):
        torch.autograd.grad(program(x=X, seed=0).loss, control, create_graph=True)
    gradients(program, seed=0)


# ---- several processes


def build_distributed() -> scg.Program:
    return awake(compiled({"h": "relax", "b": "relax", "z": "reparam"}))


def of_rank(program: scg.Program, rank: int, step: int) -> Tensor:
    loss: Tensor = program(x=X + rank, seed=rank + 10 * step).loss
    return loss


def run_rank(rank: int, path: str) -> dict[str, Tensor]:
    """Run two steps as one of two processes and return what is left in ``.grad``."""
    meeting = (Path(path) / "meeting").as_uri()
    limit = timedelta(minutes=2)
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=limit)
    try:
        program = build_distributed()
        parallel: Any = nn.parallel.DistributedDataParallel(program)
        for step in range(2):
            program.zero_grad()
            of_rank(parallel, rank, step).backward()
        del parallel  # before the group that its threads belong to
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()
    return grads(program)


def run_other(_: int, path: str) -> None:
    """Be the second of two processes, which ends without waiting for threads that torch leaves behind."""
    torch.set_num_threads(1)
    torch.save(run_rank(1, path), Path(path) / "other.pt")
    os._exit(0)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_processes_with_seeds_of_their_own_average_all_gradients(tmp_path: Path) -> None:
    context = spawn(run_other, (str(tmp_path),), join=False)
    one = run_rank(0, str(tmp_path))
    while not context.join():
        pass
    other = torch.load(tmp_path / "other.pt")
    program, alone = build_distributed(), []
    for rank in range(2):
        program.zero_grad()
        of_rank(program, rank, 1).backward()
        alone.append(grads(program))
    assert one.keys() == dict(program.named_parameters()).keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not close(alone[0], alone[1])
    assert close(one, {name: (alone[0][name] + alone[1][name]) / 2 for name in one})


# ---- learning


@dataclass(frozen=True)
class Problem:
    """A graph whose logits have an input of zeros added to them, in an outermost plate of copies.

    The gradient of such an input in one copy is the estimate of that copy.
    """

    graph: scg.Graph
    asides: Mapping[str, tuple[int, ...]]

    def compiled(self, policy: Policy) -> scg.Program:
        torch.manual_seed(1)
        return scg.compile(self.graph, policy)

    def inputs(self, copies: int) -> dict[str, Tensor]:
        return {name: torch.zeros(copies, *shape) for name, shape in self.asides.items()}

    def train(
        self,
        program: scg.Program,
        parameters: Iterable[nn.Parameter],
        *,
        steps: int,
        copies: int,
        rate: float,
    ) -> None:
        optimizer, inputs = torch.optim.Adam(parameters, lr=rate), self.inputs(copies)
        for seed in range(steps):
            optimizer.zero_grad()
            program(seed=seed, **inputs).loss.backward()
            optimizer.step()

    def variance(self, program: scg.Program, copies: int = 10_000) -> Tensor:
        """Return the variance of every entry of the estimates."""
        leaves = {name: zeros.requires_grad_() for name, zeros in self.inputs(copies).items()}
        found = torch.autograd.grad(program(seed=1_000_000, **leaves).loss, list(leaves.values()))
        return torch.cat([copies * part.flatten(1) for part in found], 1).var(0)


def problem(**events: tuple[int, ...]) -> tuple[Problem, Iterator[scg.Node]]:
    g = scg.Graph()
    asides = {f"aside_{name}": event for name, event in events.items()}
    nodes = [g.input(name, plates="copy", example=torch.zeros(2, *event)) for name, event in asides.items()]
    return Problem(g, asides), iter(nodes)


def toy() -> Problem:
    """Minimise E (b - .499)^2, 32 times side by side."""
    g = scg.Graph()
    g.plate("problem", size=32, reduce="sum")
    aside = g.input("aside", plates=("copy", "problem"), example=torch.zeros(2, 32))
    b = g.sample("b", Bernoulli, logits=aside + g.param("theta", torch.zeros(32), plates="problem"))
    g.cost("c", (b - 0.499) ** 2)
    return Problem(g, {"aside": (32,)})


def test_relax_finds_the_variate_of_the_toy_problem() -> None:
    """Grathwohl et al. (2018), figure 1: the cost hardly differs, and the score hardly tells."""
    bits = toy()
    program, plain = bits.compiled("relax"), bits.compiled("score")
    bits.train(program, program.parameters(), steps=1500, copies=1, rate=0.03)
    score, relax = bits.variance(plain), bits.variance(program)
    assert float(score.min()) > 10 * float(relax.max())
    assert float(program.get_parameter("theta").detach().max()) < -0.5


def layers() -> Problem:
    """Two layers of bits whose costs are not linear in them."""
    torch.manual_seed(0)
    bits, asides = problem(h=(4,), b=(4,))
    g = bits.graph
    t, w = g.param("t", torch.randn(4)), g.param("w", torch.randn(4, 4))
    h = g.sample("h", Bernoulli, logits=t + next(asides))
    b = g.sample("b", Bernoulli, logits=2 * (2 * h - 1) @ w + next(asides))
    target = torch.tensor([0.1, 0.4, 0.6, 0.9])
    g.cost("c", 2 * ((b - target) ** 2).sum(-1) + 3 * (b[..., 0] - b[..., 1] * h[..., 1]) ** 2)
    g.cost("d", 0.3 * g.log_prob(b))
    return bits


def chain() -> Problem:
    """Three categorical variables in a row."""
    torch.manual_seed(0)
    rows, asides = problem(a=(3,), b=(3,), d=(3,))
    g = rows.graph
    t, w, v = (g.param(n, torch.randn(s)) for n, s in (("t", (3,)), ("w", (3, 3)), ("v", (3, 3))))
    a = g.sample("a", OneHotCategorical, logits=t + next(asides))
    b = g.sample("b", OneHotCategorical, logits=a @ w + next(asides))
    d = g.sample("d", OneHotCategorical, logits=b @ v + next(asides))
    one, two, three = torch.tensor([[1.0, 2.0, 4.0], [1.0, -1.0, 2.0], [0.0, 1.0, 3.0]])
    g.cost("c", 0.2 * ((a * one).sum(-1) - (d * two).sum(-1) * (b * three).sum(-1)) ** 2)
    return rows


@pytest.mark.parametrize("build", [layers, chain])
@pytest.mark.parametrize(("policy", "least"), [("rebar", 0.92), ("relax", 0.6)])
def test_training_the_controls_lowers_the_variance(
    build: Callable[[], Problem], policy: str, least: float
) -> None:
    variables = build()
    program = variables.compiled(policy)
    score = float(variables.variance(variables.compiled("score")).sum())
    before = float(variables.variance(program).sum())
    variables.train(program, program.control_parameters(), steps=100, copies=64, rate=0.03)
    after = float(variables.variance(program).sum())
    assert after < least * before and before < score
