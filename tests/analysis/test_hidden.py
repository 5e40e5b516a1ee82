"""Hidden draws are refused, lost gradients are warned of, and right functions pass without a word."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributions as D

import scg
from scg.errors import GradientWarning, GraphError

Function = Callable[[Tensor, Tensor], Tensor]


class Below(nn.Module):
    """A linear layer, and a function of its values and of the input."""

    def __init__(self, fn: Function) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self.linear(x), x)


class Outer(nn.Module):
    """A module within a module."""

    def __init__(self, fn: Function) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Identity(), Below(fn))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def graph(fn: Function, example: Tensor | None = None) -> scg.Graph:
    """A cost whose module computes it from what it learns; one value per element."""
    torch.manual_seed(0)
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.randn(4, 3) if example is None else example)
    g.cost("loss", Outer(fn), x)
    return g


def quietly(g: scg.Graph, **options: Any) -> scg.Program:
    """Compile, with every warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", GradientWarning)
        return scg.compile(g, **options)


class Rounded(torch.autograd.Function):
    """Rounds, and passes the gradient straight through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Drawn(torch.autograd.Function):
    """Draws, and passes the gradient straight through."""

    @staticmethod
    def forward(ctx: Any, p: Tensor) -> Tensor:
        return torch.bernoulli(p)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Doubled(torch.autograd.Function):
    """Brings its own gradient, which is right."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square() * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * 4 * x


class Noisy(torch.autograd.Function):
    """Adds scaled noise under a gradient of its own, which is right."""

    @staticmethod
    def forward(ctx: Any, mu: Tensor, scale: Tensor) -> Tensor:
        eps = torch.randn_like(mu)
        ctx.save_for_backward(eps)
        return mu + scale * eps

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        (eps,) = ctx.saved_tensors
        return gradient, gradient * eps


def silently(h: Tensor) -> Tensor:
    with torch.no_grad():
        return h + h.exp() * torch.randn_like(h)


def into(h: Tensor) -> Tensor:
    found = torch.empty_like(h)
    found.bernoulli_(h.sigmoid())
    return found


def by_threshold(h: Tensor) -> Tensor:
    keep = torch.zeros_like(h)
    keep[torch.rand(h.shape) < h.sigmoid()] = 1.0
    return keep


def by_inverse(h: Tensor) -> Tensor:
    return torch.searchsorted(h.softmax(-1).cumsum(-1), torch.rand(4, 1)).clamp(max=2)[:, 0]


DRAWS: dict[str, Function] = {
    "Categorical.sample": lambda h, x: h.gather(-1, D.Categorical(logits=h).sample()[:, None])[:, 0],
    "its index looks values up": lambda h, x: x.sum(-1) * torch.arange(3.0)[D.Categorical(logits=h).sample()],
    "Bernoulli.sample": lambda h, x: (D.Bernoulli(logits=h).sample() * h).sum(-1),
    "OneHotCategorical.sample": lambda h, x: (D.OneHotCategorical(logits=h).sample() * x).sum(-1),
    "straight-through one-hot": lambda h, x: (D.OneHotCategoricalStraightThrough(logits=h).rsample() * x).sum(
        -1
    ),
    "Normal.sample": lambda h, x: (D.Normal(h, 1.0).sample() ** 2).sum(-1),
    "Independent.sample": lambda h, x: D.Independent(D.Normal(h, 1.0), 1).sample().sum(-1),
    "Uniform.sample": lambda h, x: D.Uniform(h, h + 1).sample().sum(-1),
    "Laplace.sample": lambda h, x: D.Laplace(h, 1.0).sample().sum(-1),
    "Gamma.sample": lambda h, x: D.Gamma(h.exp(), 1.0).sample().sum(-1),
    "Beta.sample": lambda h, x: D.Beta(h.exp(), 1.0).sample().sum(-1),
    "LogNormal.sample": lambda h, x: D.LogNormal(h, 1.0).sample().sum(-1),
    "RelaxedOneHotCategorical.sample": lambda h, x: (
        D.RelaxedOneHotCategorical(torch.ones(()), logits=h).sample() * x
    ).sum(-1),
    "MultivariateNormal.sample": lambda h, x: D.MultivariateNormal(h, torch.eye(3)).sample().sum(-1),
    "Gumbel top-2": lambda h, x: x.gather(-1, (h - torch.rand(4, 3).log().neg().log()).topk(2).indices).sum(
        -1
    ),
    "a generator of its own": lambda h, x: (
        (torch.rand(4, 3, generator=torch.Generator().manual_seed(1)) < h.sigmoid()).float().sum(-1)
    ),
    "an index that Python reads": lambda h, x: (
        h.sum(-1) * torch.arange(3.0)[int(D.Categorical(logits=h[0]).sample())]
    ),
    "Poisson.sample": lambda h, x: D.Poisson(h.exp()).sample().sum(-1),
    "Binomial.sample": lambda h, x: D.Binomial(5, logits=h).sample().sum(-1),
    "Geometric.sample": lambda h, x: D.Geometric(logits=h).sample().sum(-1),
    "bernoulli": lambda h, x: (torch.bernoulli(h.sigmoid()) * x).sum(-1),
    "bernoulli of a detached law": lambda h, x: (h * torch.bernoulli(h.sigmoid().detach())).sum(-1),
    "bernoulli_": lambda h, x: (into(h) * x).sum(-1),
    "multinomial": lambda h, x: torch.multinomial(h.softmax(-1), 2, replacement=True).float().sum(-1),
    "poisson": lambda h, x: torch.poisson(h.exp()).sum(-1),
    "normal of a mean": lambda h, x: torch.normal(h, 1.0).sum(-1),
    "normal of a scale": lambda h, x: torch.normal(0.0, h.exp()).sum(-1),
    "rand_like < p": lambda h, x: (torch.rand_like(h) < h.sigmoid()).float().sum(-1),
    "where(rand < p)": lambda h, x: torch.where(torch.rand(4, 3) < h.sigmoid(), x, -x).sum(-1),
    "written where rand < p": lambda h, x: (by_threshold(h) * x).sum(-1),
    "floor(p + rand)": lambda h, x: (h.sigmoid() + torch.rand_like(h)).floor().sum(-1),
    "sign(p - rand)": lambda h, x: ((h.sigmoid() - torch.rand_like(h)).sign() * x).sum(-1),
    "heaviside of noise": lambda h, x: torch.heaviside(h + torch.randn_like(h), torch.ones(())).sum(-1),
    "argmax of Gumbels": lambda h, x: (h - (-torch.rand(4, 3).log()).log()).argmax(-1).float(),
    "hard gumbel_softmax": lambda h, x: (F.gumbel_softmax(h, hard=True) * x).sum(-1),
    "inverse of a cdf": lambda h, x: by_inverse(h).float() * x.sum(-1),
    "noise under no_grad": lambda h, x: silently(h).square().sum(-1),
    "its own straight-through": lambda h, x: (Drawn.apply(h.sigmoid()) * x).sum(-1),
    "straight-through by hand": lambda h, x: (
        (torch.bernoulli(h.sigmoid()) - h.sigmoid()).detach().sum(-1) + h.sigmoid().sum(-1)
    ),
    "vmapped": lambda h, x: torch.vmap(lambda r: torch.bernoulli(r).sum(), randomness="different")(
        h.sigmoid()
    ),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_from_a_law_of_what_is_learned_is_an_error(name: str) -> None:
    with pytest.raises(GraphError, match=r"node 'loss' .*draws inside its function.*g\.sample"):
        quietly(graph(DRAWS[name]))


def leave_by_numpy(h: Tensor) -> Tensor:
    return torch.from_numpy(np.tanh(h.detach().numpy())).sum(-1)


def leave_by_item(h: Tensor) -> Tensor:
    return torch.stack([torch.tensor(math) for math in (2 * h.sum(-1)).tolist()])


def under_no_grad(h: Tensor) -> Tensor:
    with torch.no_grad():
        return h.exp()


def in_place(h: Tensor) -> Tensor:
    found = torch.zeros(4, 3)
    found.copy_(h.detach())
    return found


def python_noise(h: Tensor) -> Tensor:
    return h.sum(-1) * float(random.random() < h.sigmoid().mean().item())


BREAKS: dict[str, tuple[Function, str]] = {
    "argmax": (lambda h, x: h.argmax(-1).float(), "argmax"),
    "one-hot of argmax": (lambda h, x: (F.one_hot(h.argmax(-1), 3) * x).sum(-1), "argmax"),
    "index of max": (lambda h, x: x.gather(-1, h.max(-1, keepdim=True).indices)[:, 0], "max"),
    "topk of another": (lambda h, x: x.gather(-1, h.topk(2).indices).sum(-1), "topk"),
    "round": (lambda h, x: h.round().sum(-1), "round"),
    "rounded below": (lambda h, x: (h * 3).floor().sum(-1) + h.sum(-1), "floor"),
    "ceil": (lambda h, x: h.ceil().sum(-1), "ceil"),
    "sign": (lambda h, x: (h.sign() * x).sum(-1), "sign"),
    "comparison": (lambda h, x: (h > 0).float().sum(-1), "gt"),
    "a gate": (lambda h, x: (x * (h > 0)).sum(-1), "gt"),
    "where": (lambda h, x: torch.where(h > 0, h + 1, h).sum(-1), "gt"),
    "a cast": (lambda h, x: h.mul(4).long().float().sum(-1), "cast"),
    "detach": (lambda h, x: (h.detach() * h).sum(-1), "detach"),
    "detached": (lambda h, x: h.detach().square().sum(-1), "detach"),
    "data": (lambda h, x: (h.data * x).sum(-1), "detach"),
    "no_grad": (lambda h, x: (under_no_grad(h) * h).sum(-1), "no_grad"),
    "written in place": (lambda h, x: (in_place(h) + h).sum(-1), "detach"),
    "NumPy": (lambda h, x: leave_by_numpy(h), "numpy"),
    "tolist": (lambda h, x: leave_by_item(h), "tolist"),
    "item": (lambda h, x: h.sum(-1) * h.mean().item(), "Python reads"),
    "a branch": (lambda h, x: h.sum(-1) * (3 if h.mean() > 0 else -1), "gt"),
    "straight-through rounding": (lambda h, x: (h + (h.round() - h).detach()).sum(-1), "round|detach"),
    "its own straight-through": (lambda h, x: Rounded.apply(h).sum(-1), "round|Rounded"),
    "Python's noise": (lambda h, x: python_noise(h), "generator of Python"),
    "a stopped attention": (lambda h, x: (h.softmax(-1).detach() * h).sum(-1), "detach"),
    "a gate of a Gamma draw": (
        lambda h, x: (D.Gamma(h.exp(), 1.0).rsample() * (h > 0)).sum(-1),
        "gt",
    ),
    "half-detached": (lambda h, x: (h[:, :1] * h[:, 1:].detach()).sum(-1), "detach"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_lost_gradient_is_warned_of(name: str) -> None:
    fn, operation = BREAKS[name]
    g = graph(fn)
    with pytest.warns(GradientWarning, match="node 'loss' .*loses the gradient") as seen:
        program = scg.compile(g)
    (only,) = seen
    assert any(part in str(only.message) for part in operation.split("|"))
    assert "test_hidden.py" in str(only.message)
    assert f"warning: {only.message}" in program.explain()
    assert "its gradient is right" not in program.explain()


class Mixture(nn.Module):
    """Experts by given ids."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        found = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            rows = (ids == index).nonzero()[:, 0]
            found = found.index_copy(0, rows, expert(x[rows]))
        return found.sum(-1)


class Averaged(nn.Module):
    """Keeps a moving average of its values, which it does not read."""

    average: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("average", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        centred = h - self.average
        with torch.no_grad():
            self.average.mul_(0.9).add_(0.1 * h.mean(0))
        return centred.square().sum(-1)


class Logging(nn.Module):
    """Remembers numbers that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.seen: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        self.seen.append(h.mean().item())
        _ = torch.bernoulli(h.sigmoid())
        _ = (h.argmax(-1) == 1).float().mean()
        return h.square().sum(-1)


class Attention(nn.Module):
    """Attention over a sequence whose end is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        padding = torch.arange(5) >= torch.tensor([3, 4, 5, 2])[:, None]
        out, _ = self.attention(x, x, x, key_padding_mask=padding, need_weights=False)
        return out.masked_fill(padding[..., None], 0.0).sum((-1, -2))


class Recurrent(nn.Module):
    """The last state of a GRU or an LSTM."""

    def __init__(self, cell: type[nn.Module]) -> None:
        super().__init__()
        self.cell = cell(4, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0][:, -1].sum(-1)


class Summed(nn.Module):
    """The sum of what a network gives."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).flatten(1).sum(-1)


RIGHT: dict[str, Function] = {
    "linear": lambda h, x: h.sum(-1),
    "dropout": lambda h, x: F.dropout(h).sum(-1),
    "relu of dropout by a mask": lambda h, x: (lambda d: (d * (d > 0)).sum(-1))(F.dropout(h)),
    "alpha dropout": lambda h, x: F.alpha_dropout(h, training=True).sum(-1),
    "noise": lambda h, x: (h + torch.randn_like(h)).square().sum(-1),
    "random augmentation": lambda h, x: torch.where(torch.rand(4, 1) < 0.5, h, -h).sum(-1),
    "a random permutation": lambda h, x: h[:, torch.randperm(3)].cumsum(-1).sum(-1),
    "reparameterised by hand": lambda h, x: (h + h.exp() * torch.randn_like(h)).square().sum(-1),
    "Normal.rsample": lambda h, x: D.Normal(h, h.exp()).rsample().square().sum(-1),
    "Laplace.rsample": lambda h, x: D.Laplace(h, h.exp()).rsample().square().sum(-1),
    "Gamma.rsample": lambda h, x: D.Gamma(h.exp(), 1.0).rsample().sum(-1),
    "Gamma.rsample through a detached maximum": lambda h, x: (
        lambda z: (z - z.amax(-1, keepdim=True).detach()).exp().sum(-1).log() + z.amax(-1).detach()
    )(D.Gamma(h.exp(), 1.0).rsample()),
    "Dirichlet.rsample": lambda h, x: (D.Dirichlet(h.exp()).rsample() * x).sum(-1),
    "Beta.rsample": lambda h, x: D.Beta(h.exp(), 2.0).rsample().sum(-1),
    "StudentT.rsample": lambda h, x: D.StudentT(5.0, h, 1.0).rsample().sum(-1),
    "Uniform.rsample": lambda h, x: D.Uniform(h, h + 2).rsample().square().sum(-1),
    "Gumbel.rsample": lambda h, x: D.Gumbel(h, 1.0).rsample().square().sum(-1),
    "LogNormal.rsample": lambda h, x: D.LogNormal(h, 0.5).rsample().sum(-1),
    "MultivariateNormal.rsample": lambda h, x: D.MultivariateNormal(h, torch.eye(3)).rsample().sum(-1),
    "RelaxedBernoulli.rsample": lambda h, x: D.RelaxedBernoulli(0.5, logits=h).rsample().sum(-1),
    "soft gumbel_softmax": lambda h, x: (F.gumbel_softmax(h) * x).sum(-1),
    "own function with noise": lambda h, x: Noisy.apply(h, h.exp()).square().sum(-1),
    "own function": lambda h, x: Doubled.apply(h).sum(-1),
    "data drawn from the input": lambda h, x: F.binary_cross_entropy_with_logits(
        h, torch.bernoulli(x.sigmoid()), reduction="none"
    ).sum(-1),
    "a mask of the input": lambda h, x: (h * (x > 0)).sum(-1),
    "index of the input's maximum": lambda h, x: h.gather(-1, x.argmax(-1, keepdim=True))[:, 0],
    "log_prob": lambda h, x: -D.Normal(h, h.exp()).log_prob(x).sum(-1),
    "log_prob of data": lambda h, x: -D.Categorical(logits=h).log_prob(torch.tensor([0, 1, 2, 0])),
    "cross_entropy": lambda h, x: F.cross_entropy(h, torch.tensor([0, 1, 2, 0]), reduction="none"),
    "huber": lambda h, x: F.huber_loss(h, x, reduction="none").sum(-1),
    "hinge": lambda h, x: (1 - h * x.sign()).clamp(min=0).sum(-1),
    "hinge by max": lambda h, x: torch.maximum(1 - h, torch.zeros(())).sum(-1),
    "relu": lambda h, x: F.relu(h).sum(-1),
    "relu by a mask": lambda h, x: (h * (h > 0)).sum(-1),
    "leaky relu by where": lambda h, x: torch.where(h > 0, h, 0.1 * h).sum(-1),
    "clamp": lambda h, x: h.clamp(-0.5, 0.5).sum(-1),
    "normalize": lambda h, x: F.normalize(h, dim=-1)[:, 0],
    "layer norm": lambda h, x: (F.layer_norm(h, (3,)) * x).sum(-1),
    "logsumexp with a detached maximum": lambda h, x: (
        (h - h.max(-1, keepdim=True).values.detach()).exp().sum(-1).log() + h.max(-1).values.detach()
    ),
    "softmax with a detached maximum": lambda h, x: (lambda e: (e / e.sum(-1, keepdim=True) * x).sum(-1))(
        (h - h.amax(-1, keepdim=True).detach()).exp()
    ),
    "sorted values": lambda h, x: (h.sort(-1).values * torch.arange(3.0)).sum(-1),
    "the largest two": lambda h, x: h.topk(2).values.sum(-1),
    "median": lambda h, x: h.median(-1).values,
    "abs and max": lambda h, x: h.abs().amax(-1),
    "max by argmax": lambda h, x: h.gather(-1, h.argmax(-1, keepdim=True))[:, 0],
    "guarded against NaN": lambda h, x: torch.where(h.isnan(), torch.zeros_like(h), h).sum(-1),
    "a constant detached": lambda h, x: (h * torch.ones(3, requires_grad=False).detach()).sum(-1),
    "an unused draw": lambda h, x: h.sum(-1) + 0 * torch.zeros_like(torch.bernoulli(h.sigmoid())).sum(-1),
    "checkpointed": lambda h, x: torch.utils.checkpoint.checkpoint(torch.tanh, h, use_reentrant=False).sum(
        -1
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_function_passes_without_a_word(name: str) -> None:
    quietly(graph(RIGHT[name]))


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "GRU": (lambda: Recurrent(nn.GRU), (4, 5, 4)),
    "LSTM": (lambda: Recurrent(nn.LSTM), (4, 5, 4)),
    "attention with padding": (Attention, (4, 5, 4)),
    "transformer layer": (lambda: Summed(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)), (4, 5, 4)),
    "batch norm in eval": (lambda: Summed(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval(), (4, 3)),
    "batch norm in train": (lambda: Summed(nn.Linear(3, 3), nn.BatchNorm1d(3)), (4, 3)),
    "dropout": (lambda: Summed(nn.Linear(3, 3), nn.Dropout(0.3), nn.ReLU()), (4, 3)),
    "convolution and pooling": (lambda: Summed(nn.Conv1d(2, 3, 2), nn.MaxPool1d(2)), (4, 2, 7)),
    "group norm": (lambda: Summed(nn.Linear(3, 4), nn.GroupNorm(2, 4), nn.GELU()), (4, 3)),
    "weight norm": (lambda: Summed(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))), (4, 3)),
    "moving average": (Averaged, (4, 3)),
    "logging": (Logging, (4, 3)),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_right_module_passes_without_a_word(name: str) -> None:
    make, shape = MODULES[name]
    torch.manual_seed(0)
    g = scg.Graph()
    g.cost("loss", make(), g.input("x", plates="batch", example=torch.randn(shape)))
    quietly(g)


def test_lookups_by_given_ids_pass_without_a_word() -> None:
    g = scg.Graph()
    ids = g.input("ids", plates="batch", example=torch.tensor([0, 1, 2, 1]))
    x = g.input("x", plates="batch", example=torch.randn(4, 3))
    g.cost("experts", Mixture(), x, ids)
    g.cost("embedded", Summed(nn.Embedding(3, 2)), ids)
    quietly(g)


def test_noise_is_listed_among_what_is_assumed() -> None:
    program = quietly(graph(lambda h, x: (F.dropout(h) + torch.randn_like(h)).sum(-1)))
    assert "assumed: noise whose law depends on nothing learned: dropout" in program.explain()
    assert "randn_like" in program.explain()


def test_noise_of_python_and_numpy_is_listed() -> None:
    program = quietly(graph(lambda h, x: h.sum(-1) * random.random() + float(np.random.rand())))
    assert "noise of the generator of Python at 'loss'" in program.explain()
    assert "noise of the generator of NumPy at 'loss'" in program.explain()


SLEEPING: dict[str, Function] = {
    "behind an input of zeros": lambda h, x: (x * (h > 0)).sum(-1),
    "an input of zeros times a detached value": lambda h, x: (x * h.detach()).sum(-1),
    "rounding behind an input of zeros": lambda h, x: (x * h.round()).sum(-1) + h.sum(-1),
}


@pytest.mark.parametrize("name", SLEEPING)
def test_an_example_of_zeros_hides_nothing(name: str) -> None:
    with pytest.warns(GradientWarning, match="loses the gradient"):
        scg.compile(graph(SLEEPING[name], torch.zeros(4, 3)))


def unless_zeros(inner: Callable[[Tensor], Tensor]) -> Function:
    return lambda h, x: inner(h).sum(-1) if bool((x > 0).any()) else h.sum(-1)


def from_a_number(inner: Callable[[Tensor], Tensor]) -> Function:
    return lambda h, x: h.sum(-1) if x.sum().item() < 0.5 else inner(h).sum(-1)


def behind_two(inner: Callable[[Tensor], Tensor]) -> Function:
    return unless_zeros(lambda h: inner(h) if h.shape[0] and bool(h.detach().mean() > 100) else h)


@pytest.mark.parametrize("gate", [unless_zeros, from_a_number, behind_two])
def test_branches_that_the_example_does_not_take_hide_nothing(gate: Callable[..., Function]) -> None:
    zeros = torch.zeros(4, 3)
    with pytest.raises(GraphError, match=r"draws inside its function, bernoulli"):
        scg.compile(graph(gate(lambda h: torch.bernoulli(h.sigmoid())), zeros))
    with pytest.warns(GradientWarning, match=r"loses the gradient .* at round"):
        scg.compile(graph(gate(torch.round), zeros))
    quietly(graph(gate(torch.tanh), zeros))


def test_a_check_that_would_raise_is_no_branch() -> None:
    def checked(h: Tensor, x: Tensor) -> Tensor:
        if x.isnan().any():
            raise ValueError(torch.bernoulli(h.sigmoid()))
        return h.sum(-1)

    quietly(graph(checked, torch.zeros(4, 3)))


class ReZero(nn.Module):
    """A branch behind a weight that starts at zero."""

    def __init__(self, branch: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.linear = nn.Linear(3, 3)
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        return (h + self.weight * self.branch(h)).sum(-1)


def test_a_weight_of_zero_hides_nothing() -> None:
    def declared(branch: Callable[[Tensor], Tensor]) -> scg.Graph:
        g = scg.Graph()
        g.cost("loss", ReZero(branch), g.input("x", plates="batch", example=torch.randn(4, 3)))
        return g

    with pytest.warns(GradientWarning, match="round"):
        scg.compile(declared(torch.round))
    with pytest.raises(GraphError, match="lt"):
        quietly(declared(lambda h: (torch.rand_like(h) < h.sigmoid()).float()))
    quietly(declared(torch.tanh))


def test_a_gate_that_was_drawn_shut_hides_nothing() -> None:
    g = scg.Graph()
    b = g.sample("b", D.Bernoulli, g.param("p", torch.tensor(0.01)))
    w = g.param("w", torch.tensor(0.3))
    g.cost("loss", lambda b, w: b * (w > 0).float() + w, b, w)
    with pytest.warns(GradientWarning, match="'w'"):
        scg.compile(g)


def test_captured_parameters_are_followed() -> None:
    w = nn.Parameter(torch.zeros(3))
    net = nn.Linear(3, 3)
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.randn(4, 3))
    g.cost("loss", lambda x: (torch.bernoulli(w.sigmoid()) * net(x)).sum(-1), x)
    with pytest.raises(GraphError, match="draws inside its function, bernoulli"):
        quietly(g)
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.randn(4, 3))
    g.cost("loss", lambda x: net(x).round().sum(-1), x)
    with pytest.warns(GradientWarning, match="round"):
        program = scg.compile(g)
    assert "its gradient is right" not in program.explain()


def test_draws_between_nodes_of_library_operations_are_seen() -> None:
    g = scg.Graph()
    p = g.param("p", torch.full((3,), 0.4)).sigmoid()
    u = torch.rand_like(p)
    g.cost("loss", (u < p).float().sum(-1))
    with pytest.raises(GraphError, match="'p'|sigmoid"):
        quietly(g)
    g = scg.Graph()
    g.cost("loss", torch.bernoulli(g.param("p", torch.full((3,), 0.4)).sigmoid()).sum(-1))
    with pytest.raises(GraphError, match="bernoulli"):
        quietly(g)


def test_factories_of_distributions_are_looked_into() -> None:
    g = scg.Graph()
    p = g.param("p", torch.tensor(0.4))
    z = g.sample("z", lambda p: D.Normal(torch.bernoulli(p), 1.0), p)
    g.cost("loss", z**2)
    with pytest.raises(GraphError, match="node 'z' .*draws inside its function"):
        quietly(g)


def test_only_outputs_that_lead_to_a_cost_count() -> None:
    def both(h: Tensor) -> tuple[Tensor, Tensor]:
        return h.square().sum(), (h > 0).float().mean()

    g = scg.Graph()
    loss, accuracy = g.det(("loss", "accuracy"), both, g.param("w", torch.ones(3)))
    g.cost("total", loss)
    quietly(g)
    g.cost("more", accuracy)
    with pytest.warns(GradientWarning, match="gt"):
        scg.compile(g)


def test_what_is_declared_is_believed() -> None:
    for fn in (torch.round, lambda h: torch.bernoulli(h.sigmoid())):
        g = scg.Graph()
        w = g.param("w", torch.ones(3))
        h = g.det("h", lambda w, fn=fn: fn(w), w, differentiable=False)
        g.cost("loss", (h * w).sum(-1))
        quietly(g)
        g = scg.Graph()
        w = g.param("w", torch.ones(3))
        h = g.det("h", lambda w, fn=fn: fn(w) + w - w.detach(), w, differentiable=True)
        g.cost("loss", (h * w).sum(-1))
        assert "assumed: the gradient through 'h' is meant as it is" in quietly(g).explain()


def test_check_reports_draws_with_other_faults_and_warns_of_breaks() -> None:
    g = graph(lambda h, x: torch.bernoulli(h.sigmoid()).sum(-1))
    g.cost("wrong", lambda x: x, g["x"])
    with pytest.raises(GraphError, match="(?s)'wrong'.*draws inside its function"):
        g.check()
    with pytest.warns(GradientWarning, match="round"):
        graph(lambda h, x: h.round().sum(-1)).check(x=torch.randn(2, 3))


def test_a_warning_is_given_once() -> None:
    with pytest.warns(GradientWarning) as seen:
        program = scg.compile(graph(lambda h, x: h.round().sum(-1)))
    assert len(seen) == 1
    program(x=torch.randn(4, 3))
    program(x=torch.randn(7, 3))
    program.double()
    program(x=torch.randn(4, 3).double())


def test_a_parameter_behind_a_black_box_is_named() -> None:
    g = scg.Graph()
    w, v = g.param("w", torch.ones(3)), g.param("v", torch.ones(3))
    h = g.det("h", nn.Linear(3, 3), w)
    g.cost("loss", g.det("box", lambda h: h.sum(), h, differentiable=False) + (v * w.detach()).sum())
    with pytest.warns(
        GradientWarning, match="no gradient ever reaches 'w', 'h.weight', 'h.bias'.*'box'"
    ) as seen:
        scg.compile(g)
    assert len(seen) == 1


def test_a_parameter_behind_operations_without_a_derivative_is_named() -> None:
    g = scg.Graph()
    w = g.param("w", torch.ones(3))
    g.cost("loss", (w > 0).float().sum())
    with pytest.warns(GradientWarning, match="no gradient ever reaches 'w'"):
        scg.compile(g)


@pytest.mark.parametrize(
    "operation",
    [
        lambda w: torch.heaviside(w, torch.ones(())),
        lambda w: w // 2,
        torch.floor_divide,
    ],
)
def test_what_torch_cannot_differentiate_is_an_error(operation: Callable[..., Any]) -> None:
    for fn in (operation, lambda *args: operation(*args)):
        g = scg.Graph()
        w = g.param("w", torch.ones(3))
        args = (w, w + 1) if operation is torch.floor_divide else (w,)
        g.cost("loss", (g.det("step", fn, *args) + w).sum())
        with pytest.raises(scg.GraphError, match="node 'step' .*derivative for aten::.* is not implemented"):
            scg.compile(g)


UNDEFINED: dict[str, Function] = {
    "nan_to_num": lambda h, x: torch.nan_to_num(torch.sqrt(h)).sum(-1),
    "nan_to_num, asleep": lambda h, x: torch.nan_to_num(torch.sqrt(h + 1)).sum(-1),
    "where": lambda h, x: torch.where(torch.isnan(h.sqrt()), 0.0, h.sqrt()).sum(-1),
    "nansum": lambda h, x: h.sqrt().nansum(-1),
}


@pytest.mark.parametrize("name", UNDEFINED)
def test_numbers_in_the_place_of_nan_are_warned_of(name: str) -> None:
    with pytest.warns(
        GradientWarning, match="node 'loss' .* derivative in 'loss.inner.1.*' stays NaN"
    ) as seen:
        scg.compile(graph(UNDEFINED[name]))
    assert len(seen) == 1


@pytest.mark.parametrize("start", [0.0, -1.0, 3.0])
def test_numbers_in_the_place_of_nan_are_warned_of_behind_a_gate(start: float) -> None:
    g = scg.Graph()
    a = g.param("a", torch.tensor(start))
    z = g.sample("z", D.Normal, torch.zeros(8), 1.0)
    g.cost("loss", lambda a, z: torch.nan_to_num(torch.sqrt(torch.relu(a) * z + 0.05)).sum(), a, z)
    with pytest.warns(GradientWarning, match="derivative in 'a' stays NaN"):
        scg.compile(g, "score")


def test_a_parameter_that_is_reached_some_way_is_not_named() -> None:
    g = scg.Graph()
    w = g.param("w", torch.ones(3))
    z = g.sample("z", D.Bernoulli, logits=w)
    g.cost("loss", g.det("box", lambda z: z.sum(), z, differentiable=False))
    g.cost("other", (w.round() + w * (w > 0).float()).sum())
    quietly(g)


def test_frozen_networks_may_hide_what_they_like() -> None:
    net = Below(lambda h, x: torch.bernoulli(h.sigmoid()).round().sum(-1)).requires_grad_(False)
    g = scg.Graph()
    g.cost("loss", net, g.input("x", plates="batch", example=torch.randn(4, 3)))
    assert "noise whose law depends on nothing learned: bernoulli" in quietly(g).explain()


def test_a_draw_given_a_sampled_value_is_the_cost_s_own_noise() -> None:
    """A simulator below a stochastic node: the score takes its noise for what it is."""
    g = scg.Graph()
    theta = g.param("theta", torch.tensor(0.3))
    z = g.sample("z", D.Bernoulli, logits=theta, plates=g.plate("many", size=200_000))
    g.cost("reward", lambda z: torch.bernoulli(0.2 + 0.6 * z), z)
    program = quietly(g, policy="score")
    torch.manual_seed(0)
    program(seed=1).loss.backward()
    p = torch.tensor(0.3).sigmoid()
    assert theta.value.grad.item() == pytest.approx(0.6 * float(p * (1 - p)), abs=0.01)


def test_an_input_that_comes_to_require_a_gradient_is_judged_then() -> None:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.rand(4, 3))
    w = g.param("w", torch.ones(3))
    drawn = g.det("drawn", lambda x: torch.bernoulli(x), x)
    rounded = g.det("rounded", lambda x: x.mul(3).round(), x)
    g.cost("loss", (drawn * w + rounded).sum(-1))
    program = quietly(g)
    program(x=torch.rand(4, 3)).loss.backward()
    with pytest.raises(GraphError, match="depends on 'x'"):
        program(x=torch.rand(4, 3, requires_grad=True))
    with torch.no_grad():
        program(x=torch.rand(4, 3, requires_grad=True))


def test_a_break_below_an_input_that_requires_a_gradient_is_warned_of_once() -> None:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.rand(4, 3))
    g.cost("loss", lambda x, w: (x.mul(3).round() * w).sum(-1), x, g.param("w", torch.ones(3)))
    program = quietly(g)
    with pytest.warns(GradientWarning, match="gradient of 'x'") as seen:
        program(x=torch.rand(4, 3, requires_grad=True))
    assert len(seen) == 1
    program(x=torch.rand(4, 3, requires_grad=True))


def test_nothing_is_left_behind() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout())

    def fn(x: Tensor, w: Tensor) -> Tensor:
        noise = random.random() + np.random.rand()
        return (net(x) * (w > 0) * w.round().detach()).sum(-1) * noise

    net.train()
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.randn(4, 3))
    w = g.param("w", torch.ones(3))
    h = g.det("h", net, x)
    g.cost("loss", fn, h, w)
    before = [buffer.clone() for buffer in net.buffers()], torch.get_rng_state(), random.getstate()
    numbers = np.random.get_state()
    with pytest.warns(GradientWarning):
        g.check()
    assert all(torch.equal(a, b) for a, b in zip(before[0], net.buffers(), strict=True))
    assert torch.equal(before[1], torch.get_rng_state()) and before[2] == random.getstate()
    assert all(np.array_equal(a, b) for a, b in zip(numbers, np.random.get_state(), strict=True))
    assert all(parameter.grad is None for parameter in (*net.parameters(), w.value))
    assert all(part.training for part in net.modules())


def test_nodes_that_call_one_module_alike_share_a_recording() -> None:
    calls = 0

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, h: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return self.linear(h).tanh()

    def count(steps: int) -> int:
        nonlocal calls
        calls = 0
        g = scg.Graph()
        h, step = g.input("x", plates="batch", example=torch.randn(4, 3)), Step()
        for index in range(steps):
            h = g.det(f"h{index}", step, h)
        g.cost("loss", h.sum(-1))
        g.check()
        return calls

    assert count(12) - count(2) == 10
