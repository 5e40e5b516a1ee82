"""REBAR, RELAX and LAX as users meet them: what their networks see, what is relaxed, what stays as it was."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Distribution, Normal, OneHotCategorical

import scg
from scg.estimators.parts.variates import Squash
from scg.laws import law_for
from tests.support.running import awake, gradients, is_mean, label

Fn = Callable[..., Any]
CASES: dict[str, Callable[[], scg.Estimator]] = {
    "rebar": scg.REBAR,
    "relax": scg.RELAX,
    "net": lambda: scg.RELAX(relaxed_cost=False),
}


def lone(
    dist: type[Distribution],
    parameter: Tensor,
    cost: Fn,
    given: str = "logits",
    copies: int | None = None,
    **options: Any,
) -> scg.Graph:
    """t -> (b) -> [c], in one copy or in a plate of several."""
    g = scg.Graph()
    if copies is not None:
        g.plate("copy", size=copies)
    t: Any = {given: g.param("t", parameter)}
    b = g.sample("b", dist, plates=() if copies is None else ("copy",), **t)
    g.cost("c", g.det("h", cost, b, **options))
    return g


def squares(b: Any) -> Any:
    return 1.5 * ((b - 0.3) ** 2).sum(-1)


def ranked(b: Tensor) -> Tensor:
    """Return a cost of one-hot vectors, and of points of the simplex."""
    return 1.5 * ((b * torch.arange(b.shape[-1], dtype=b.dtype)).sum(-1) - 0.3) ** 2


def exact(g: scg.Graph) -> Tensor:
    return scg.exact_gradient(g)["t"]


def is_unbiased(build: Callable[[int | None], scg.Graph], policy: Any) -> bool:
    """Say whether the mean over many copies is the exact gradient of one."""
    program = awake(scg.compile(build(600), policy))
    found = torch.stack([gradients(program, seed=seed)["t"] for seed in range(30)])
    return is_mean(found, exact(build(None)))


# ---- extremes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=label)
@pytest.mark.parametrize("case", CASES)
def test_extreme_logits_give_finite_gradients_and_vanishing_ones(case: str, dtype: torch.dtype) -> None:
    g = lone(Bernoulli, torch.tensor([40.0, -40.0, 0.0, 300.0, -300.0], dtype=dtype), squares)
    program = awake(scg.compile(g, CASES[case](), samples=2000))
    drawn = []
    for seed in range(40):
        found = gradients(program, seed=seed)
        assert all(gradient.isfinite().all() for gradient in found.values())
        assert float(found["t"][[0, 1, 3, 4]].abs().max()) < 1e-12
        drawn.append(found["t"])
    assert is_mean(torch.stack(drawn), exact(g))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=label)
@pytest.mark.parametrize("dist", [Categorical, OneHotCategorical])
@pytest.mark.parametrize("case", CASES)
def test_extreme_rows_of_logits_are_right_where_they_do_not_vanish(
    case: str, dist: type[Distribution], dtype: torch.dtype
) -> None:
    """Two outcomes that happen, and one that never does."""
    logits = torch.tensor([40.0, -40.0, 39.0], dtype=dtype)
    options: dict[str, Any] = {"relaxed": ranked} if dist is Categorical else {}
    fn = ranked if not options else (lambda b: 1.5 * (b.to(dtype) - 0.3) ** 2)
    g = lone(dist, logits, fn, **options)
    program = awake(scg.compile(g, CASES[case](), samples=300))
    drawn = []
    for seed in range(30):
        found = gradients(program, seed=seed)
        assert all(gradient.isfinite().all() for gradient in found.values())
        assert float(found["t"][1].abs()) < 1e-12
        drawn.append(found["t"])
    assert is_mean(torch.stack(drawn), exact(g))


class Slow(nn.Module):
    """A network that has not yet saturated at z = 40."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, 0.5], dtype=dtype))

    def forward(self, z: Tensor) -> Tensor:
        return (self.weight[0] * torch.tanh(z / 40 - self.weight[1])).sum(-1)


def slow(dist: type[Distribution], dtype: torch.dtype, copies: int | None = None) -> scg.Graph:
    logits = torch.tensor([40.0, -40.0, 0.2 if dist is Bernoulli else 39.0], dtype=dtype)
    return lone(dist, logits, ranked, copies=copies)


@pytest.mark.parametrize("dist", [Bernoulli, OneHotCategorical])
def test_extreme_logits_teach_controls_the_slope_of_the_variance(dist: type[Distribution]) -> None:
    """By finite differences of |estimate|^2, where estimates of logits of 40 do not vanish."""
    program, single = (
        scg.compile(slow(dist, dtype), scg.RELAX(Slow(dtype))) for dtype in (torch.float64, torch.float32)
    )
    for seed in range(5):
        noise = single.draw_noise(seed)
        exact_noise = {name: value.double() for name, value in noise.items()}
        found = gradients(program, noise=exact_noise)
        assert float(found["t"].abs().min()) > 1e-6
        for name, parameter in program.controls.named_parameters():
            for index in range(parameter.numel()):
                flat, squared = parameter.data.view(-1), []
                before = float(flat[index])
                for step in (1e-5, -1e-5):
                    flat[index] = before + step
                    squared.append(float((gradients(program, noise=exact_noise)["t"] ** 2).sum()))
                flat[index] = before
                slope = (squared[0] - squared[1]) / 2e-5
                assert float(found[f"controls.{name}"].view(-1)[index]) == pytest.approx(slope, 1e-4, 1e-8)
        for name, gradient in gradients(single, noise=noise).items():
            assert torch.allclose(gradient.double(), found[name], rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize("dist", [Bernoulli, OneHotCategorical])
def test_extreme_logits_are_right_under_a_network_that_does_not_saturate(dist: type[Distribution]) -> None:
    assert is_unbiased(partial(slow, dist, torch.float64), scg.RELAX(Slow(torch.float64)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=label)
@pytest.mark.parametrize("case", CASES)
def test_certain_bits_have_a_finite_zero_where_enumeration_is_exact(case: str, dtype: torch.dtype) -> None:
    g = lone(Bernoulli, torch.tensor([0.0, 1.0, 0.5], dtype=dtype), squares, given="probs")
    program = awake(scg.compile(g, CASES[case]()))
    for seed in range(20):
        found = gradients(program, seed=seed)
        assert all(gradient.isfinite().all() for gradient in found.values())
        assert found["t"][:2].tolist() == [0.0, 0.0]
    expected = gradients(scg.compile(g, "enumerate"))["t"]
    assert expected.tolist() == pytest.approx([0.6, 0.6, 0.6], abs=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("probs", [(0.0, 0.4, 0.6), (1.0, 0.0, 0.0)], ids=label)
def test_impossible_outcomes_stay_finite(case: str, probs: tuple[float, ...]) -> None:
    g = lone(OneHotCategorical, torch.tensor(probs).double(), ranked, given="probs")
    program = awake(scg.compile(g, CASES[case](), samples=300))
    found = [gradients(program, seed=seed) for seed in range(30)]
    assert all(gradient.isfinite().all() for several in found for gradient in several.values())
    drawn, expected = torch.stack([several["t"] for several in found]), exact(g)
    if probs[0] == 0.0:
        assert is_mean(drawn[:, 1:], expected[1:])
    else:
        assert not drawn.any() and torch.allclose(gradients(scg.compile(g, "enumerate"))["t"], expected)


def test_a_large_batch_is_one_pass() -> None:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.zeros(2, 4))
    b = g.sample("b", Bernoulli, logits=x + g.param("t", torch.zeros(4)))
    g.cost("c", squares(b))
    for case in CASES.values():
        program = scg.compile(g, case())
        found = gradients(program, x=torch.zeros(50_000, 4), seed=0)["t"]
        assert torch.allclose(found, torch.full((4,), 0.15), atol=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=label)
@pytest.mark.parametrize("dist", [Bernoulli, OneHotCategorical])
@pytest.mark.parametrize("case", CASES)
def test_half_precision_gives_finite_gradients(
    case: str, dist: type[Distribution], dtype: torch.dtype
) -> None:
    weights = torch.tensor([1.0, 2.0], dtype=dtype)
    g = lone(dist, torch.tensor([0.4, -0.7], dtype=dtype), lambda b: ((b - 0.3) ** 2 * weights).sum(-1))
    found = gradients(awake(scg.compile(g, CASES[case]())), seed=0)
    assert found["t"].dtype == dtype
    assert all(gradient.isfinite().all() for gradient in found.values())
    several = gradients(awake(scg.compile(g, CASES[case](), samples=4096)), seed=0)["t"]
    expected = gradients(scg.compile(g, "enumerate"))["t"]
    assert torch.allclose(several.float(), expected.float(), atol=0.04)


# ---- what networks see


class Spy(nn.Module):
    """A network that keeps what it is given; an event of z has ``rank`` dimensions."""

    def __init__(self, rank: int, *, trailing: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.3))
        self.rank = rank
        self.trailing = trailing
        self.seen: list[tuple[Tensor, ...]] = []

    def forward(self, *values: Tensor) -> Tensor:
        self.seen.append(values)
        z = values[0]
        flat = torch.tanh(z).flatten(z.dim() - self.rank) if self.rank else torch.tanh(z)[..., None]
        return self.weight * flat.sum(-1, keepdim=self.trailing)

    def saw(self, points: int, *shapes: tuple[int, ...]) -> bool:
        """Say whether one call was given values of these shapes, z at so many points, context to match."""
        ((z, *context),) = self.seen
        for value, shape in zip((z, *context), shapes, strict=True):
            front = value.dim() - len(shape)
            if value.shape[front:] != shape:
                return False
            added = z.shape[: z.dim() - len(shapes[0])]
            if torch.broadcast_shapes(value.shape[:front], added) != added:
                return False
        apart = not any(value.requires_grad for value in context)
        return apart and z.shape[: z.dim() - len(shapes[0])].numel() == points


SIZES = {"left": 2, "right": 3}


def plated(
    plates: Sequence[str], event: tuple[int, ...], dist: type[Distribution] = Bernoulli
) -> tuple[scg.Graph, Tensor]:
    """x, t -> (b) -> [c] in plates, with context in the same plates and without any."""
    g = scg.Graph()
    for plate in plates:
        g.plate(plate, size=SIZES[plate])
    x = torch.zeros([SIZES[plate] for plate in plates] + list(event))
    given = g.input("x", plates=tuple(plates), example=x)
    mean = given + g.param("t", torch.zeros(event)) + 0.0 * g.param("k", torch.ones(5)).sum()
    b = g.sample("b", dist, mean, 1.0) if dist is Normal else g.sample("b", dist, logits=mean)
    count = len(event)
    g.cost("c", lambda b: b.flatten(b.dim() - count).cumsum(-1).sum(-1) ** 2 if count else b**2, b)
    return g, x


EVENTS: list[tuple[int, ...]] = [(), (3,), (2, 3)]
PLATES: list[tuple[str, ...]] = [(), ("left",), ("left", "right")]


@pytest.mark.parametrize("samples", [None, 4])
@pytest.mark.parametrize("event", EVENTS, ids=label)
@pytest.mark.parametrize("plates", PLATES, ids=label)
@pytest.mark.parametrize("trailing", [False, True])
def test_a_network_sees_plates_and_event_and_detached_context(
    plates: tuple[str, ...], event: tuple[int, ...], samples: int | None, trailing: bool
) -> None:
    g, x = plated(plates, event)
    net = Spy(len(event), trailing=trailing)
    program = scg.compile(g, scg.RELAX(net, context=["x", "k"]), samples=samples)
    net.seen.clear()
    found = gradients(program, x=x, seed=0)
    assert all(gradient.isfinite().all() for gradient in found.values())
    lead = tuple(x.shape[: len(plates)])
    assert net.saw(2 * (samples or 1), (*lead, *event), (*lead, *event), (*lead, 5))


def test_a_network_that_takes_nothing_more_sees_plates_and_event_alone() -> None:
    g, x = plated(("left",), (3,))
    seen: list[torch.Size] = []

    def looping(z: Tensor) -> Tensor:
        seen.append(z.shape)
        if z.shape != (2, 3) or float(z.detach().sum()) == 0.5:
            raise ValueError("one evaluation at a time, of numbers that can be read")
        return torch.tanh(z).sum(-1)

    program = scg.compile(g, scg.RELAX(looping), samples=3)
    assert "added dimensions by loop" in program.explain()
    seen.clear()
    gradients(program, x=x, seed=0)
    assert seen == [torch.Size((2, 3))] * 6


@pytest.mark.parametrize("dist", [Categorical, OneHotCategorical])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_a_network_of_a_categorical_sees_its_outcomes_last(
    dist: type[Distribution], batch: tuple[int, ...]
) -> None:
    g = scg.Graph()
    x = torch.zeros(4, *batch, 3)
    b = g.sample("b", dist, logits=g.input("x", plates="left", example=x) + g.param("t", torch.zeros(3)))
    g.cost("c", lambda b: b.float().flatten(1).cumsum(-1).sum(-1) if b.dim() > 1 else b.float(), b)
    net = Spy(len(batch) + 1)
    program = scg.compile(g, scg.RELAX(net, context="x"))
    net.seen.clear()
    gradients(program, x=x, seed=0)
    assert net.saw(2, (4, *batch, 3), (4, *batch, 3))


@pytest.mark.parametrize("samples", [None, 3])
def test_a_network_below_an_enumerated_node_sees_every_branch(samples: int | None) -> None:
    g = scg.Graph()
    x = g.input("x", plates="left", example=torch.zeros(4, 3))
    h = g.sample("h", Bernoulli, logits=x)
    b = g.sample("b", Bernoulli, logits=h - 0.5 + g.param("t", torch.zeros(3)))
    g.cost("c", (b.sum(-1) - h.sum(-1)) ** 2)
    net = Spy(1, trailing=True)
    policy: Any = {"h": "enumerate", "b": scg.RELAX(net, context=["h", "x"])}
    program = scg.compile(g, policy, samples=samples)
    net.seen.clear()
    gradients(program, x=torch.zeros(5, 3), seed=0)
    assert net.saw(2 * 8 * (samples or 1), (5, 3), (5, 3), (5, 3))


@pytest.mark.parametrize("samples", [None, 3])
def test_the_network_of_lax_is_given_the_value(samples: int | None) -> None:
    g, x = plated(("left",), (3,), Normal)
    seen: list[Tensor] = []

    def net(value: Tensor) -> Tensor:
        seen.append(value.detach())
        return torch.tanh(value).sum(-1)

    program = scg.compile(g, scg.LAX(net), samples=samples)
    seen.clear()
    estimate = program(x=x, seed=0)
    assert len(seen) == 1
    assert torch.allclose(seen[0].reshape(estimate.samples["b"].shape), estimate.samples["b"])


def test_the_network_of_relax_is_given_what_the_value_is_the_step_of() -> None:
    """z and z~ are both on the side of the value, and z is where the value came from."""
    g, x = plated(("left",), (3,))
    seen: list[Tensor] = []

    def net(z: Tensor) -> Tensor:
        seen.append(z.detach())
        return torch.tanh(z).sum(-1)

    program = scg.compile(g, scg.RELAX(net))
    seen.clear()
    noise = program.draw_noise(0, x=x)
    estimate = program(x=x, noise=noise)
    (points,) = seen
    assert torch.allclose(points[0], noise["b"].log() - (-noise["b"]).log1p(), atol=1e-5)
    assert all(torch.equal((z > 0).float(), estimate.samples["b"]) for z in points)
    assert not torch.allclose(points[0], points[1])


FITTING = [
    *[(dist, event) for dist in (Bernoulli, Normal) for event in EVENTS],
    *[(dist, event) for dist in (Categorical, OneHotCategorical) for event in EVENTS[1:]],
]


@pytest.mark.parametrize("context", [None, ["x", "k"]], ids=label)
@pytest.mark.parametrize("plates", PLATES[:2], ids=label)
@pytest.mark.parametrize(("dist", "event"), FITTING, ids=label)
def test_the_default_network_fits_every_shape(
    dist: type[Distribution], event: tuple[int, ...], plates: tuple[str, ...], context: Any
) -> None:
    g, x = plated(plates, event, dist) if dist is not Categorical else rows(plates, event)
    estimator = scg.LAX(context=context) if dist is Normal else scg.RELAX(context=context)
    program = awake(scg.compile(g, estimator, samples=2))
    found = gradients(program, x=x + 0.5, seed=0)
    assert found.keys() == dict(program.named_parameters()).keys()
    assert all(gradient.isfinite().all() for gradient in found.values())
    learned = {name: float(gradient.norm()) for name, gradient in found.items() if name.endswith("weight")}
    assert learned and all(size > 0 for size in learned.values())


def rows(plates: Sequence[str], event: tuple[int, ...]) -> tuple[scg.Graph, Tensor]:
    """x, t -> (b) -> [c], with indices that the cost takes as numbers."""
    g = scg.Graph()
    for plate in plates:
        g.plate(plate, size=SIZES[plate])
    x = torch.zeros([SIZES[plate] for plate in plates] + list(event))
    given = g.input("x", plates=tuple(plates), example=x)
    k = 0.0 * g.param("k", torch.ones(5)).sum()
    b = g.sample("b", Categorical, logits=given + g.param("t", torch.zeros(event)) + k)
    lead = len(plates)
    g.cost("c", lambda b: (b.float().flatten(lead).sum(-1) if b.dim() > lead else b.float()) ** 2, b)
    return g, x


def test_the_default_network_sees_the_hyperbolic_tangent_of_a_logistic_variable() -> None:
    law, _ = law_for(Bernoulli, {"logits": torch.zeros(())})
    z = torch.linspace(-5.0, 5.0, 7).double()
    torch.testing.assert_close(Squash(law)(z), torch.tanh(z))


def test_a_network_may_be_any_callable() -> None:
    def net(z: Tensor) -> Tensor:
        return 0.5 * torch.tanh(z).sum(-1)

    def build(copies: int | None) -> scg.Graph:
        return lone(Bernoulli, torch.tensor([0.4, -0.7]), squares, copies=copies)

    program = scg.compile(build(None), scg.RELAX(net))
    found = gradients(program, seed=0)
    assert {name.rpartition(".")[0] for name in found} == {"", "controls.b.temperature", "controls.b.eta"}
    assert is_unbiased(build, scg.RELAX(net))
    assert is_unbiased(build, scg.RELAX(net, relaxed_cost=False))


@pytest.mark.parametrize("dist", [Bernoulli, Normal])
def test_a_network_of_another_precision_is_spoken_to_in_its_own(dist: type[Distribution]) -> None:
    g = scg.Graph()
    t = g.param("t", torch.tensor([0.4, -0.7]).double())
    b = g.sample("b", dist, t, 1.0) if dist is Normal else g.sample("b", dist, logits=t)
    g.cost("c", squares(b))
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    found = gradients(scg.compile(g, scg.LAX(net) if dist is Normal else scg.RELAX(net)), seed=0)
    for name, gradient in found.items():
        assert gradient.dtype == (torch.float32 if ".net." in name else torch.float64)
        assert gradient.isfinite().all()


# ---- what is relaxed


def boxed(copies: int | None = None, *, smooth: bool) -> scg.Graph:
    """A cost behind a black box, and one that is smooth if asked for."""

    def box(b: Tensor) -> Tensor:
        return 2.0 * (b.sum(-1) > 1).to(b.dtype) + b[..., 0]

    g = lone(Bernoulli, torch.tensor([0.4, -0.7]).double(), box, copies=copies, differentiable=False)
    if smooth:
        g.cost("d", squares(g["b"]))
    return g


def test_above_a_black_box_relax_has_its_network_alone() -> None:
    program = scg.compile(boxed(smooth=False), "relax")
    text = program.explain()
    assert "charged with c; 1 evaluation below" in text and "relaxed at" not in text
    assert {name.split(".")[2] for name, _ in program.controls.named_parameters(prefix="controls")} == {"net"}
    assert "c is left to the network: the path b -> h -> c is not smooth" in program.explain()
    assert is_unbiased(partial(boxed, smooth=False), "relax")


@pytest.mark.parametrize(
    "policy", ["rebar", "relax", scg.RELAX(relaxed_cost=True)], ids=["rebar", "relax", "relaxed_cost=True"]
)
def test_only_the_smooth_of_several_costs_is_relaxed(policy: Any) -> None:
    text = scg.compile(boxed(smooth=True), policy).explain()
    assert "charged with c, d; 3 evaluations below" in text
    assert "relaxed at z and z~: d" in text
    assert "c keeps the plain score: the path b -> h -> c is not smooth" in text
    assert is_unbiased(partial(boxed, smooth=True), policy)


@pytest.mark.parametrize("policy", ["rebar", "relax"])
def test_a_cost_without_a_smooth_form_adds_the_plain_score(policy: str) -> None:
    """By hand: the estimate with both costs is that of the smooth one, plus the other times the score."""

    def run(rough: float, fine: float) -> Tensor:
        g = scg.Graph()
        b = g.sample("b", Bernoulli, logits=g.param("t", torch.tensor([0.4, -0.7]).double()))
        g.cost("c", g.det("h", lambda b: rough * (b.sum(-1) > 0).double(), b, differentiable=False))
        g.cost("d", fine * squares(b))
        torch.manual_seed(0)
        program = awake(scg.compile(g, policy))
        with torch.no_grad():
            for name, parameter in program.named_parameters():
                if name.endswith("scale"):
                    parameter.zero_()
        return torch.stack([gradients(program, seed=seed)["t"] for seed in range(5)])

    def score() -> Tensor:
        g = scg.Graph()
        b = g.sample("b", Bernoulli, logits=g.param("t", torch.tensor([0.4, -0.7]).double()))
        g.cost("c", g.det("h", lambda b: (b.sum(-1) > 0).double(), b))
        program = scg.compile(g, "score")
        return torch.stack([gradients(program, seed=seed)["t"] for seed in range(5)])

    assert torch.allclose(run(3.0, 1.0), run(0.0, 1.0) + 3.0 * score(), atol=1e-12)


def test_a_relaxed_function_is_what_the_control_variate_sees() -> None:
    table = torch.tensor([0.1, 0.5, 2.0]).double()

    def build(copies: int | None, **options: Any) -> scg.Graph:
        logits = torch.tensor([0.4, -0.7, 0.1]).double()
        return lone(Categorical, logits, lambda b: table[b], copies=copies, **options)

    declared = partial(build, relaxed=lambda soft: soft @ table)
    assert "relaxed at z and z~: c" in scg.compile(declared(None), "rebar").explain()
    assert is_unbiased(declared, "rebar")
    assert is_unbiased(build, "relax")


# ---- what is chosen


def long_chain(count: int) -> scg.Graph:
    """A chain of bytes, which have too many outcomes to be summed out."""
    g = scg.Graph()
    b = g.sample("b0", Bernoulli, logits=g.param("t", torch.full((8,), 0.3)))
    for index in range(1, count):
        b = g.sample(f"b{index}", Bernoulli, logits=2.0 * b - 1.0)
    g.cost("c", ((b - 0.3) ** 2).sum(-1))
    return g


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (squares, "rebar"),
        (lambda b: (b > 0.5).float().sum(-1), "score"),
        (lambda b: b.round().sum(-1), "score"),
    ],
)
def test_many_bits_get_rebar_where_the_cost_is_smooth(fn: Fn, expected: str) -> None:
    program = scg.compile(lone(Bernoulli, torch.zeros(20), fn))
    assert program.policy["b"].name == expected
    if expected == "score":
        assert "rebar: the path b -> h -> c is not smooth at relaxed values" in program.explain()


def test_automatic_choice_wants_every_cost_to_be_smooth() -> None:
    g = lone(Bernoulli, torch.zeros(20), squares)
    g.cost("d", g.det("box", lambda b: b.sum(-1), g["b"], differentiable=False))
    assert scg.compile(g).policy["b"].name == "score"


def test_few_bits_are_enumerated_all_the_same() -> None:
    assert scg.compile(lone(Bernoulli, torch.zeros(3), squares)).policy["b"].name == "enumerate"


def test_a_long_chain_gets_the_score_above_and_rebar_at_its_end() -> None:
    policy = scg.compile(long_chain(60)).policy
    names = [policy[f"b{index}"].name for index in range(60)]
    assert names[0] == "score" and names[-1] == "rebar"
    assert names == sorted(names, reverse=True)
    assert {e.name for e in scg.compile(long_chain(15)).policy.values()} == {"rebar"}


# ---- what stays as it was


def several() -> scg.Graph:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.zeros(2, 4))
    b = g.sample("b", Bernoulli, logits=x + g.param("t", torch.zeros(4)))
    z = g.sample("z", Normal, b.sum(-1), 1.0)
    k = g.sample("k", Categorical, logits=g.det("l", lambda b: b[..., :3] * 2.0, b))
    index = torch.arange(3.0)
    taken = g.det("e", lambda k: k.float() ** 2, k, relaxed=lambda soft: (soft @ index) ** 2)
    g.cost("c", (z - 1.0) ** 2 + b.sum(-1))
    g.cost("d", taken)
    return g


SWAPPED: list[Any] = [
    "score",
    {"b": "rebar", "k": "rebar"},
    {"b": "relax", "k": "relax", "z": "lax"},
    {"b": "enumerate", "k": "rebar"},
    {"b": "rebar", "k": "enumerate", "z": "reparam"},
]
GIVEN = torch.linspace(-1.0, 1.0, 12).view(3, 4)


@pytest.mark.parametrize("samples", [None, 3])
def test_swapping_estimators_leaves_samples_and_costs_as_they_were(samples: int | None) -> None:
    first = scg.compile(several(), "score", samples=samples)(x=GIVEN, seed=5)
    for policy in SWAPPED[1:]:
        program = scg.compile(several(), policy, samples=samples)
        loud = program(x=GIVEN, seed=5)
        with torch.no_grad():
            quiet = program(x=GIVEN, seed=5)
        for found in (loud, quiet):
            assert torch.equal(found.loss.detach(), first.loss.detach())
            for mine, expected in ((found.samples, first.samples), (found.costs, first.costs)):
                assert mine.keys() == expected.keys()
                assert all(torch.equal(mine[name], expected[name]) for name in mine)


def test_noise_goes_from_program_to_program() -> None:
    programs = [scg.compile(several(), policy) for policy in SWAPPED]
    drawn = [program.draw_noise(5, x=GIVEN) for program in programs]
    assert list(drawn[0]) == ["b", "z", "k"] and "b.1" in drawn[1]
    first = programs[0](x=GIVEN, seed=5)
    for program, own in zip(programs, drawn, strict=True):
        for noise in drawn:
            estimate = program(x=GIVEN, noise=noise)
            assert all(torch.equal(estimate.samples[name], first.samples[name]) for name in first.samples)
            estimate.loss.backward()
            assert estimate.loss.isfinite()
        expected, found = (gradients(program, x=GIVEN, **given) for given in ({"seed": 5}, {"noise": own}))
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_noise_without_what_the_estimator_draws_decides_that_too() -> None:
    program = scg.compile(several(), SWAPPED[1])
    bare = {name: value for name, value in program.draw_noise(5, x=GIVEN).items() if "." not in name}
    one, other = gradients(program, x=GIVEN, noise=bare), gradients(program, x=GIVEN, noise=dict(bare))
    assert all(torch.equal(one[name], other[name]) for name in one)
    moved = {**bare, "b": 1 - bare["b"]}
    assert not torch.equal(gradients(program, x=GIVEN, noise=moved)["t"], one["t"])


def test_what_the_estimator_draws_for_itself_changes_the_gradient_and_no_value() -> None:
    program = scg.compile(several(), SWAPPED[1])
    noise = dict(program.draw_noise(5, x=GIVEN))
    other = {**noise, "b.1": 1 - noise["b.1"]}
    one, two = program(x=GIVEN, noise=noise), program(x=GIVEN, noise=other)
    assert all(torch.equal(one.samples[name], two.samples[name]) for name in one.samples)
    assert not torch.equal(
        gradients(program, x=GIVEN, noise=noise)["t"], gradients(program, x=GIVEN, noise=other)["t"]
    )


@pytest.mark.parametrize("policy", ["rebar", "relax"])
def test_slices_leave_running_statistics_to_the_sample(policy: str) -> None:
    def run(policy: str) -> dict[str, Tensor]:
        torch.manual_seed(0)
        g = scg.Graph()
        x = g.input("x", plates="batch", example=GIVEN)
        b = g.sample("b", Bernoulli, logits=x + g.param("t", torch.zeros(4)))
        norm = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        g.cost("c", (g.det("h", norm, b, mixes="batch") ** 2).sum(-1) * (1.0 + b.sum(-1)))
        program = scg.compile(g, policy)
        started = program.state_dict()["h.1.running_mean"].clone()
        for seed in range(3):
            found = gradients(program, x=GIVEN, seed=seed)
            assert all(gradient.isfinite().all() for gradient in found.values())
        state = {k: v for k, v in program.state_dict().items() if "running" in k or "tracked" in k}
        assert not torch.equal(state["h.1.running_mean"], started)
        return state

    expected, found = run("score"), run(policy)
    assert expected["h.1.num_batches_tracked"] == 3
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("policy", ["rebar", "relax"])
def test_dropout_below_stays_unbiased(policy: str) -> None:
    torch.manual_seed(0)
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("t", torch.tensor([0.4, -0.7, 1.0]).double()))
    layer = nn.Linear(3, 3).double()
    g.cost("c", (g.det("h", nn.Sequential(layer, nn.Dropout(0.5)), b) ** 2).sum(-1))
    program = scg.compile(g, policy, samples=2000)
    found = torch.stack([gradients(program, seed=seed)["t"] for seed in range(20)])

    cases = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 3)
    t = torch.tensor([0.4, -0.7, 1.0]).double().requires_grad_()
    costs = (layer(cases).detach() ** 2).sum(-1) * 2.0  # a kept unit counts double, half of the time
    chances = (cases * t.sigmoid() + (1 - cases) * (1 - t.sigmoid())).prod(-1)
    (expected,) = torch.autograd.grad((chances * costs).sum(), t)
    assert is_mean(found, expected)


def test_inference_mode_only_samples() -> None:
    program = scg.compile(several(), SWAPPED[2])
    with torch.inference_mode():
        quiet = program(x=GIVEN, seed=5)
    loud = program(x=GIVEN, seed=5)
    assert all(torch.equal(quiet.samples[name], loud.samples[name]) for name in loud.samples)


def test_autocast_leaves_gradients_in_the_type_of_their_parameters() -> None:
    torch.manual_seed(0)
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.zeros(4, 3))
    b = g.sample("b", Bernoulli, logits=g.det("e", nn.Linear(3, 2), x))
    g.cost("c", g.det("d", nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), b) ** 2)
    for policy in ("rebar", "relax"):
        program = awake(scg.compile(g, policy))
        program.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = program(x=torch.linspace(-1, 1, 15).view(5, 3), seed=0).loss
        loss.backward()
        for parameter in program.parameters():
            assert parameter.grad is not None
            assert parameter.grad.dtype == torch.float32 and parameter.grad.isfinite().all()


def test_training_holds_on_to_nothing() -> None:
    """No cycle keeps a run alive once its estimate is gone."""
    program = scg.compile(several(), SWAPPED[2])
    for seed in range(3):
        gradients(program, x=GIVEN, seed=seed)

    def alive() -> int:
        return sum(type(item) is torch.Tensor for item in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = alive()
        for seed in range(5):
            gradients(program, x=GIVEN, seed=seed)
        assert alive() <= before + 3
    finally:
        gc.enable()


class Sleeping(nn.Module):
    """A network of one number times a scale that starts at 0, with something wrong behind it."""

    def __init__(self, wrong: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(1, 8), nn.Linear(8, 1)
        self.scale = nn.Parameter(torch.zeros(()))
        self.wrong = wrong

    def forward(self, z: Tensor) -> Tensor:
        hidden = self.wrong(self.inner(z[..., None]), z[..., None])
        return self.outer(torch.tanh(hidden)).squeeze(-1) * self.scale


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda h, z: h - h.mean(0, keepdim=True), "plate elements influence each other"),
        (lambda h, z: nn.functional.batch_norm(h, None, None, training=True), "influence each other"),
        (lambda h, z: h * torch.clamp(30 / h.norm(), max=1), "influence each other"),
        (lambda h, z: h * (z > 0), "not smooth in the value of 'b'"),
        (lambda h, z: h * h.detach(), "not smooth in the value of 'b'"),
    ],
    ids=["mean", "batch norm", "sleeping clip", "step", "detach"],
)
def test_a_scale_of_0_hides_nothing(wrong: Callable[[Tensor, Tensor], Tensor], told: str) -> None:
    def graph() -> scg.Graph:
        g = scg.Graph()
        x = g.input("x", plates="left", example=torch.zeros(4))
        b = g.sample("b", Bernoulli, logits=x + g.param("t", 0.2))
        g.cost("c", (b - 0.3) ** 2)
        return g

    net = Sleeping(wrong)
    before = [(p, p.data_ptr(), p._version, p.detach().clone()) for p in net.parameters()]
    with pytest.raises(scg.errors.EstimatorError, match=told):
        scg.compile(graph(), scg.RELAX(net))
    for p, place, version, value in before:
        assert p.data_ptr() == place and p._version == version and torch.equal(p, value)
    scg.compile(graph(), scg.RELAX(Sleeping(lambda h, z: h.relu())))
