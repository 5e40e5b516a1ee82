"""The smoothness probe judges every function of two tables rightly, and leaves no trace."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, distributions, nn
from torch.distributions import Distribution

from scg.probes.known import ELEMENTWISE, KNOWN_BROKEN, KNOWN_SMOOTH
from scg.probes.smoothness import Smoothness, Verdict, probe

law: Any = distributions  # its methods carry no types
Function = Callable[..., Any]
Build = Callable[[], Function]  # made anew for every probe, under one seed


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return grads[0] * x


class RightBackward(WrongBackward):
    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return 2 * grads[0] * x


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2))


def on(net: nn.Module, *shape: int) -> Function:
    return lambda x: net(x.reshape(shape))


def own_generator() -> Function:
    generator = torch.Generator()
    return lambda x: x + torch.rand(6, generator=generator).to(x)


def attention(x: Tensor) -> Any:
    q = x.reshape(1, 2, 3)
    return F.scaled_dot_product_attention(q, 2 * q, q.sin())


def relu_by_branch(x: Tensor) -> Any:
    return x.sum() if x.sum() > 0 else 0 * x.sum()


def positive_only(x: Tensor) -> Any:
    if bool((x <= 0).any()):
        raise ValueError("x must be positive")
    return x.log().sum()


def write_in_place(x: Tensor) -> Any:
    y = torch.zeros_like(x)
    y[0] = x[0] ** 2
    y[1:] += x[1:].sin()
    return y


def covariance_log_prob(x: Tensor) -> Any:
    m = x.reshape(2, 3) @ x.reshape(2, 3).mT
    return law.MultivariateNormal(x.new_ones(2), m + torch.eye(2).to(x)).log_prob(x[:2])


def log_prob(x: Tensor) -> Any:
    return law.Normal(x[:3], x[3:].exp()).log_prob(0.3 * x[:3] + 1)


def far(x: Tensor) -> Tensor:
    return x + 1 if bool((x > 100).any()) else 2 * x


def loop(x: Tensor) -> Any:
    for _ in range(8):
        x = torch.where(x > 0, 0.9 * x, 0.5 * x)
    return x


def drop(x: Tensor) -> Any:
    return nn.Dropout(0.5)(x.repeat(4))


def numpy_noise(x: Tensor) -> Any:
    return x * float(np.random.randn()) + random.random()


def stopped_at_nan(x: Tensor) -> Tensor:
    y = x.exp()
    if y.isnan().any():
        raise ValueError("NaN")
    return y


SMOOTH: dict[str, Build] = {
    "guarded by nan_to_num": lambda: lambda x: torch.nan_to_num(x.sin()),
    "guarded by where": lambda: lambda x: torch.where(x.isnan(), 0.0, x * x),
    "guarded by an error": lambda: stopped_at_nan,
    "nansum": lambda: lambda x: x.square().nansum(),
    "fmax": lambda: lambda x: torch.fmax(x, 0.3 * x),
    "fmax of a logarithm": lambda: lambda x: torch.fmax(x.log(), torch.full_like(x, -3.0)).clamp(min=-3),
    "F.relu": lambda: F.relu,
    "relu by where": lambda: lambda x: torch.where(x > 0, x, 0),
    "relu by mask": lambda: lambda x: x * (x > 0),
    "branches that agree": lambda: lambda x: 2 * x if x.sum() > 0 else x + x,
    "relu by branch": lambda: relu_by_branch,
    "nn.ReLU": nn.ReLU,
    "abs": lambda: torch.abs,
    "max values": lambda: lambda x: x.reshape(2, 3).max(1).values,
    "maximum": lambda: lambda x: torch.maximum(x, 0.3 * x.sin()),
    "minimum": lambda: lambda x: torch.minimum(x[:3], x[3:]),
    "continuous where": lambda: lambda x: torch.where(x > 1, x**2, 2 * x - 1),
    "clamp": lambda: lambda x: x.clamp(-0.5, 0.5),
    "sort": lambda: lambda x: x.sort().values * torch.arange(6).to(x),
    "gather by argsort": lambda: lambda x: x.gather(0, x.argsort()) * torch.arange(6).to(x),
    "topk": lambda: lambda x: x.topk(2).values,
    "median": lambda: lambda x: x[:5].median(),
    "max_pool2d": lambda: lambda x: F.max_pool2d(x.reshape(1, 1, 2, 3), 2, 1),
    "softplus": lambda: F.softplus,
    "sigmoid": lambda: torch.sigmoid,
    "steep sigmoid": lambda: lambda x: torch.sigmoid(30 * x),
    "Conv2d": lambda: on(nn.Conv2d(1, 2, 2), 1, 1, 2, 3),
    "LayerNorm": lambda: on(nn.LayerNorm(6), 6),
    "BatchNorm train": lambda: on(nn.BatchNorm1d(2), 3, 2),
    "BatchNorm eval": lambda: on(nn.BatchNorm1d(2).eval(), 3, 2),
    "GRU": lambda: on(nn.GRU(3, 4), 2, 1, 3),
    "LSTM": lambda: on(nn.LSTM(3, 4, 2, dropout=0.5), 2, 1, 3),
    "ReLU network": lambda: on(nn.Sequential(*[nn.Linear(6, 6), nn.ReLU()] * 4), 6),
    "Transformer": lambda: on(nn.TransformerEncoderLayer(3, 1, 8), 2, 1, 3),
    "MLP": mlp,
    "attention": lambda: attention,
    "log_softmax": lambda: lambda x: x.log_softmax(0),
    "cumsum": lambda: lambda x: x.cumsum(0),
    "einsum": lambda: lambda x: torch.einsum("i,j->ij", x, x.sin()),
    "logsumexp": lambda: lambda x: x.logsumexp(0),
    "logsumexp by hand": lambda: lambda x: (x - x.max().detach()).exp().sum().log() + x.max().detach(),
    "shift by item": lambda: lambda x: (x - x.max().item()).exp().sum().log() + x.max().item(),
    "rational": lambda: lambda x: x / (1 + x**2),
    "reciprocal": lambda: lambda x: 1 / x,
    "log": lambda: torch.log,
    "logit": lambda: torch.logit,
    "root of abs": lambda: lambda x: x.abs().sqrt() + x,
    "huber": lambda: lambda x: F.huber_loss(x, torch.zeros(6).to(x), reduction="none"),
    "gelu": lambda: F.gelu,
    "elu": lambda: F.elu,
    "dropout": lambda: drop,
    "noise": lambda: lambda x: x + torch.randn_like(x),
    "noise of numpy": lambda: numpy_noise,
    "Normal.log_prob": lambda: log_prob,
    "Uniform.log_prob": lambda: lambda x: law.Uniform(-1 + 0 * x, 1 + 0 * x).log_prob(x),
    "MultivariateNormal.log_prob": lambda: covariance_log_prob,
    "solve": lambda: lambda x: torch.linalg.solve(x[:4].reshape(2, 2) + 2 * torch.eye(2).to(x), x[4:]),
    "norm": lambda: torch.linalg.vector_norm,
    "prod": lambda: torch.prod,
    "constant": lambda: lambda x: torch.ones(3),
    "shape only": lambda: lambda x: torch.zeros_like(x) + len(x),
    "identity": lambda: lambda x: x,
    "nested output": lambda: lambda x: {"a": (x.sin(), [x.sum()]), "b": 3.0, "c": torch.arange(3)},
    "domain by raising": lambda: positive_only,
    "finite check": lambda: lambda x: x.exp() if bool(torch.isfinite(x).all()) else x,
    "writes in place": lambda: write_in_place,
    "writes its argument": lambda: lambda x: x.mul_(2).sin_(),
    "loop of where": lambda: loop,
    "own backward": lambda: RightBackward.apply,
    "float32 inside": lambda: lambda x: x.float().sin().double(),
    "vmap of grad": lambda: torch.func.vmap(torch.func.grad(lambda a: a.sin() * a)),
    "unused sort": lambda: lambda x: (x.sort(), x.sin())[1],
}

BROKEN: dict[str, Build] = {
    "number for NaN": lambda: lambda x: torch.nan_to_num(x.log(), nan=-1.0).clamp(-3, 3),
    "number for NaN by where": lambda: (
        lambda x: torch.where(x.log().isnan(), -1.0, x.log().clamp(-3, 3)).clamp(-3, 3)
    ),
    "number for NaN by a mask": lambda: (
        lambda x: x.log().clamp(-3, 3).masked_fill(~(x.log() == x.log()), -1.0)
    ),
    "number for NaN by fmax": lambda: lambda x: torch.fmax(x.sqrt(), torch.full_like(x, -1.0)),
    "number for NaN by nansum": lambda: lambda x: (2 + x.sqrt()).nansum(),
    "number for NaN by Python": lambda: lambda x: x.new_ones(()) if x.log().isnan().any() else x.exp().sum(),
    "sign": lambda: torch.sign,
    "round": lambda: torch.round,
    "round_": lambda: lambda x: (2 * x).round_(),
    "floor": lambda: torch.floor,
    "ceil": lambda: torch.ceil,
    "floor division": lambda: lambda x: x // 1,
    "remainder": lambda: lambda x: x % 1,
    "fmod": lambda: lambda x: x.fmod(1),
    "cast": lambda: lambda x: (x > 0).float(),
    "step": lambda: lambda x: (x > 1).to(x) + x,
    "comparison": lambda: lambda x: x > 0,
    "long": lambda: lambda x: x.long(),
    "one-hot argmax": lambda: lambda x: F.one_hot(x.argmax(), 6).to(x),
    "argmax": lambda: torch.argmax,
    "scatter by argmax": lambda: lambda x: torch.zeros_like(x).scatter(0, x.argmax(0, keepdim=True), 1.0),
    "hardshrink": lambda: F.hardshrink,
    "threshold": lambda: lambda x: F.threshold(x, 0.2, -1.0),
    "detach": lambda: lambda x: x * x.detach(),
    "only detached": lambda: lambda x: x.detach(),
    "detached on one side": lambda: lambda x: torch.where(x > 0, x, x.detach()),
    "straight-through": lambda: lambda x: x.round() + x - x.detach(),
    "straight-through sigmoid": lambda: lambda x: (x > 0).to(x) + x.sigmoid() - x.sigmoid().detach(),
    "item branch": lambda: lambda x: 2 * x if x.sum().item() > 0 else 3 * x,
    "tensor branch": lambda: lambda x: x + 1 if x.sum() > 0 else x,
    "item": lambda: lambda x: x * x.sum().item(),
    "numpy": lambda: lambda x: torch.from_numpy(2 * x.detach().numpy()),
    "numpy output": lambda: lambda x: np.sin(x.detach().numpy()),
    "numpy step": lambda: lambda x: x + torch.from_numpy(np.floor(x.detach().numpy())),
    "quantised": lambda: lambda x: (4 * x).floor() / 4,
    "finely quantised": lambda: lambda x: (255 * x).round() / 255,
    "jump in one coordinate": lambda: lambda x: x + (x > 1).to(x) * torch.tensor([0, 0, 0, 1, 0, 0]).to(x),
    "unrecorded jump in one": lambda: lambda x: x.sin().sum() + F.hardshrink(x[3]),
    "jump by where": lambda: lambda x: torch.where(x > 0.5, x**2, x),
    "small jump": lambda: lambda x: x + 0.01 * (x > 0.5),
    "indices as numbers": lambda: lambda x: x.argsort().to(x),
    "bucketize": lambda: lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0]).to(x)).to(x),
    "max and its indices": lambda: lambda x: x.reshape(2, 3).max(1),
    "NaN by where": lambda: lambda x: torch.where(x > 0, x.log1p().sqrt(), 0),
    "histogram": lambda: lambda x: torch.histc(x, 4, -2, 2),
    "selection": lambda: lambda x: x[x > 0],
    "wrong backward": lambda: WrongBackward.apply,
    "threshold of a mean": lambda: lambda x: x * (x.mean() > 0.5),
    "bernoulli": lambda: lambda x: torch.bernoulli(x.sigmoid()),
    "multinomial": lambda: lambda x: torch.multinomial(x.softmax(0), 2).to(x),
    "hidden in a nest": lambda: lambda x: {"a": [x.sin()], "b": (x.cos(), x.round())},
}

UNKNOWN: dict[str, Build] = {
    "far branch": lambda: far,
    "far branch in a branch": lambda: lambda x: far(x) if x.sum() > 0 else 2 * x,
    "far where": lambda: lambda x: torch.where(x > 100, x**2, x),
    "far item branch": lambda: lambda x: 2 * x if x.sum().item() > 1000 else 3 * x,
    "far numpy branch": lambda: lambda x: 2 * x if x.detach().numpy().sum() > 1000 else 3 * x,
    "far hardshrink": lambda: lambda x: F.threshold(x, -100, 5.0),
    "far remainder": lambda: lambda x: (x + 500).fmod(1000),
    "raises": lambda: lambda x: x.no_such_method(),
    "never finite": lambda: lambda x: x / 0 * 0,
    "own generator": own_generator,
    "not tensors": lambda: lambda x: object(),
}

TABLE = [
    (name, build, expected)
    for table, expected in (
        (SMOOTH, Smoothness.SMOOTH),
        (BROKEN, Smoothness.BROKEN),
        (UNKNOWN, Smoothness.UNKNOWN),
    )
    for name, build in table.items()
]


@pytest.fixture
def dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """The type of points and parameters."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


@pytest.mark.parametrize(
    ("dtype", "seed"),
    [(torch.float32, 0), (torch.float64, 1), (torch.float32, 2)],
    indirect=["dtype"],
    ids=["float32-0", "float64-1", "float32-2"],
)
@pytest.mark.parametrize(("name", "build", "expected"), TABLE, ids=[name for name, _, _ in TABLE])
def test_judges_rightly(name: str, build: Build, expected: Smoothness, seed: int, dtype: torch.dtype) -> None:
    torch.manual_seed(seed)
    function = build()
    x = 0.7 * torch.randn(6)
    verdict = probe(lambda values: function(values["x"]), {"x": x}, "x", seed=seed)
    assert verdict.smoothness is expected, verdict.reason


@pytest.mark.parametrize("start", [0.0, 1.0, 1e-9, 500.0])
def test_a_point_may_be_special(start: float) -> None:
    def judge(function: Function) -> Smoothness:
        return probe(lambda values: function(values["x"]), {"x": torch.full((4,), start)}, "x").smoothness

    for smooth in (F.relu, torch.abs, lambda x: (x - 1).clamp(min=0), lambda x: x.sort().values, torch.sin):
        assert judge(smooth) is Smoothness.SMOOTH
    for broken in (torch.sign, torch.round, lambda x: x * x.detach(), lambda x: (x > start).to(x)):
        assert judge(broken) is Smoothness.BROKEN


def test_only_the_named_tensor_is_perturbed() -> None:
    point = {"x": torch.randn(3), "y": torch.randn(3), "index": torch.tensor([2, 0])}

    def call(values: dict[str, Tensor]) -> Any:
        return (values["x"] * values["y"].round())[values["index"]]

    assert probe(call, point, "x").smoothness is Smoothness.SMOOTH
    assert probe(call, point, "y").smoothness is Smoothness.BROKEN
    with pytest.raises(TypeError, match=r"'index' holds torch\.int64"):
        probe(call, point, "index")


def test_reads_of_other_tensors_are_no_branches() -> None:
    point = {"x": torch.randn(3), "y": torch.randn(3)}
    verdict = probe(lambda v: v["x"].exp() if v["y"].sum().item() > 100 else v["x"].sin(), point, "x")
    assert verdict.smoothness is Smoothness.SMOOTH


def test_symmetric_matrices_stay_symmetric() -> None:
    half = torch.randn(3, 3)
    point = {"covariance": half @ half.mT + torch.eye(3)}
    verdict = probe(lambda v: torch.linalg.cholesky(v["covariance"]), point, "covariance")
    assert verdict.smoothness is Smoothness.SMOOTH, verdict.reason


def test_an_empty_tensor_and_a_scalar() -> None:
    assert probe(lambda v: v["x"].round(), {"x": torch.zeros(0)}, "x").smoothness is Smoothness.SMOOTH
    assert probe(lambda v: v["x"].exp(), {"x": torch.tensor(0.3)}, "x").smoothness is Smoothness.SMOOTH
    verdict = probe(lambda v: v["x"] * (v["x"] > 0.37), {"x": torch.tensor(0.1)}, "x")
    assert verdict == Verdict(Smoothness.BROKEN, "jumps at 0.37")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("detach", r"autograd disagrees with finite differences \(.* against .*\)"),
        ("far branch", r"a branch on its value \(any\) was seen but never switched"),
        ("floor", r"jumps by 1\b"),
        ("raises", r"defined at no point that was tried \(AttributeError: .*\)"),
    ],
)
def test_reasons_are_readable(name: str, reason: str) -> None:
    function = {**BROKEN, **UNKNOWN}[name]()
    verdict = probe(lambda v: function(v["x"]), {"x": torch.linspace(-1, 1, 5)}, "x")
    assert re.match(reason, verdict.reason)


def test_no_trace_is_left() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    net(torch.randn(5, 3)).sum().backward()
    x = torch.randn(5, 3, requires_grad=True)
    pending = net.eval()(x).sum()  # its backward must survive the probe

    def call(values: dict[str, Tensor]) -> Any:
        net.train()
        random.random()
        np.random.rand()
        return (
            law.Normal(values["x"].mul_(2), torch.ones(3)).log_prob(torch.randn(3)).sum()
            + net(values["x"]).sum()
        )

    def state() -> list[Any]:
        tensors = [*net.state_dict().values(), *(p.grad for p in net.parameters()), torch.get_rng_state(), x]
        identities = [id(b) for b in net.buffers()], [b._version for b in net.buffers()]
        flags = (
            [part.training for part in net.modules()],
            Distribution._validate_args,
            torch.is_grad_enabled(),
        )
        noise = random.getstate(), repr(np.random.get_state())
        return [t.detach().clone() for t in tensors if t is not None] + [identities, flags, noise]

    before = state()
    with torch.no_grad():
        verdict = probe(call, {"x": x}, "x", modules=[net])
    after = state()
    assert verdict.smoothness is Smoothness.SMOOTH, verdict.reason
    assert all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(before, after, strict=True)
    )
    assert x.grad is None
    pending.backward()
    assert x.grad is not None


def test_no_trace_is_left_after_an_error() -> None:
    def interrupt(values: dict[str, Tensor]) -> Tensor:
        raise KeyboardInterrupt

    before = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        probe(interrupt, {"x": torch.zeros(2)}, "x")
    assert torch.equal(before, torch.get_rng_state())
    assert Distribution._validate_args


def test_validation_is_no_branch_and_comes_back() -> None:
    verdict = probe(lambda v: law.Normal(v["x"], 1.0).log_prob(torch.zeros(3)), {"x": torch.zeros(3)}, "x")
    assert verdict.smoothness is Smoothness.SMOOTH
    assert Distribution._validate_args


def test_one_seed_gives_one_verdict() -> None:
    point = {"x": torch.linspace(-1, 1, 4)}
    verdicts = {probe(lambda v: F.hardshrink(v["x"]).sum(), point, "x", seed=3) for _ in range(3)}
    assert len(verdicts) == 1


def unary(table: frozenset[Any]) -> list[Function]:
    """The functions from one tensor to one tensor; of a method and a function, the function."""
    found = []
    for function in {f for f in table if not hasattr(f, "__objclass__")}:
        with suppress(Exception):
            if isinstance(function(torch.rand(4)), Tensor):
                found.append(function)
    return sorted(found, key=repr)


@pytest.mark.parametrize("function", unary(KNOWN_SMOOTH))
def test_known_smooth_functions_pass_the_probe(function: Function) -> None:
    verdict = probe(lambda v: function(v["x"]), {"x": torch.tensor([0.31, 0.47, 0.74, 0.13])}, "x")
    assert verdict.smoothness is Smoothness.SMOOTH, verdict.reason


@pytest.mark.parametrize("function", unary(KNOWN_BROKEN))
def test_known_broken_functions_fail_the_probe(function: Function) -> None:
    verdict = probe(lambda v: function(v["x"]), {"x": torch.tensor([0.31, 0.47, 0.74, 0.13])}, "x")
    assert verdict.smoothness is not Smoothness.SMOOTH


@pytest.mark.parametrize("function", unary(ELEMENTWISE))
def test_elementwise_functions_see_one_element_at_a_time(function: Function) -> None:
    """Up to rounding, as processors take elements at the end of a row another way."""
    x = torch.rand(3, 4, dtype=torch.float64)
    torch.testing.assert_close(function(x[1:]), function(x)[1:], equal_nan=True)
    torch.testing.assert_close(function(x.flatten()[5]), function(x).flatten()[5], equal_nan=True)
