"""Programs of kinds that users bring, all of them right: functions of one event, which keep elements apart.

Each is a function of a sample z [*plates, 4, 6], of Normal or Bernoulli elements, that gives one number or
more for each element of the plate. Functions that are made anew come with modules in double precision.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

from tests.truth.building import Fn, double

STEPS, WIDTH = 4, 6


class Called(nn.Module):
    """A function with modules of its own."""

    def __init__(self, fn: Fn, *parts: nn.Module) -> None:
        super().__init__()
        self.fn = fn
        self.parts = nn.ModuleList(parts)

    def forward(self, *args: Any) -> Any:
        return self.fn(*self.parts, *args)


def padding(count: Tensor) -> Tensor:
    """Return True where a step of an element, of which so many count, is padding."""
    return torch.arange(STEPS) >= count[:, None]


def masked_attention(z: Tensor, count: Tensor) -> Tensor:
    scores = z @ z.transpose(-1, -2) / math.sqrt(WIDTH)
    return scores.masked_fill(padding(count)[:, None, :], -math.inf).softmax(-1) @ z


def packed_attention(z: Tensor, count: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(z, z, z, attn_mask=~padding(count)[:, None, :])


def multihead(attention: nn.Module, z: Tensor, count: Tensor) -> Tensor:
    found: Tensor = attention(z, z, z, key_padding_mask=padding(count), need_weights=False)[0]
    return found


def masked_transformer(layer: nn.Module, z: Tensor, count: Tensor) -> Tensor:
    found: Tensor = layer(z, src_key_padding_mask=padding(count))
    return found


def masked_mean(z: Tensor, count: Tensor) -> Tensor:
    keep = (~padding(count)).to(z.dtype)[..., None]
    return (z * keep).sum(1) / keep.sum(1)


def last_step(net: nn.Module, z: Tensor, count: Tensor) -> Tensor:
    """Return the state at the last step that counts."""
    return net(z)[0].gather(1, (count - 1)[:, None, None].expand(-1, 1, 5))[:, 0]


def segments(z: Tensor) -> Tensor:
    """Sums over an index within the event, which has nothing to do with the plate."""
    group = torch.tensor([0, 1, 1, 0, 2, 2])
    return torch.zeros(*z.shape[:-1], 3, dtype=z.dtype).index_add(-1, group, z)


def scattered(z: Tensor) -> Tensor:
    group = torch.tensor([0, 1, 1, 0, 2, 2]).expand(z.shape)
    return torch.zeros(*z.shape[:-1], 3, dtype=z.dtype).scatter_add(-1, group, z)


def recurrence(cell: nn.Module, z: Tensor) -> Tensor:
    state = z.new_zeros(len(z), 5)
    for step in z.unbind(1):
        state = cell(step, state)
    return state


def lstm_recurrence(cell: nn.Module, z: Tensor) -> Tensor:
    state = z.new_zeros(len(z), 5), z.new_zeros(len(z), 5)
    for step in z.unbind(1):
        state = cell(step, state)
    return state[0]


def state_space(z: Tensor) -> Tensor:
    state, seen = torch.zeros_like(z[:, 0]), []
    for step in range(z.shape[1]):
        state = 0.8 * state + z[:, step]
        seen.append(state)
    return torch.stack(seen, 1)


@dataclass
class Output:
    """What large libraries return."""

    logits: Tensor
    hidden: Tensor | None = None


class Mapped(OrderedDict[str, Tensor]):
    """An ordered dict with its entries as attributes."""

    def __getattr__(self, name: str) -> Tensor:
        if name not in self:
            raise AttributeError(name)
        return self[name]


class Cube(torch.autograd.Function):
    """A cube with a gradient written by hand, and right."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        result: Tensor = 3 * z**2 * grad
        return result


def scripted(z: Tensor) -> Tensor:
    return torch.tanh(z) * 0.5 + z


def gram(z: Tensor) -> Tensor:
    return z @ z.transpose(-1, -2) + torch.eye(STEPS, dtype=z.dtype)


def mixture(z: Tensor) -> Tensor:
    """A mixture likelihood of points within an event."""
    centres = torch.linspace(-1.0, 1.0, 3, dtype=z.dtype)
    return -torch.logsumexp(-((z[..., None] - centres) ** 2) - math.log(3), -1).sum((-1, -2))


def experts(gate: nn.Module, one: nn.Module, other: nn.Module, z: Tensor) -> Tensor:
    """A sparse mixture of experts, each called for the rows that chose it."""
    flat = z.flatten(1)
    weight, chosen = gate(flat).softmax(-1).max(-1)
    out = torch.zeros_like(flat)
    for index, expert in enumerate((one, other)):
        rows = (chosen == index).nonzero()[:, 0]
        out = out.index_add(0, rows, weight[rows, None] * expert(flat[rows]))
    return out


def copied_experts(gate: nn.Module, one: nn.Module, other: nn.Module, z: Tensor) -> Tensor:
    """The same, written back by ``index_copy``."""
    flat = z.flatten(1)
    chosen = gate(flat).argmax(-1)
    out = torch.zeros_like(flat)
    for index, expert in enumerate((one, other)):
        rows = (chosen == index).nonzero()[:, 0]
        out = out.index_copy(0, rows, expert(flat[rows]))
    return out


def linear(*sizes: int) -> nn.Linear:
    return nn.Linear(*sizes).double()


def sequential(*parts: nn.Module) -> nn.Module:
    return nn.Sequential(*parts).double()


def by_channel(z: Tensor) -> Tensor:
    return z.transpose(1, 2)


def grid(z: Tensor) -> Tensor:
    where = torch.linspace(-0.8, 0.8, 8, dtype=z.dtype).view(1, 2, 2, 2).expand(len(z), 2, 2, 2)
    return F.grid_sample(z[:, None], where, align_corners=True)


RIGHT: dict[str, Callable[[], Fn]] = {
    "multilayer": lambda: sequential(nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3)),
    "sparse experts": lambda: Called(experts, linear(24, 2), linear(24, 24), linear(24, 24)),
    "copied experts": lambda: Called(copied_experts, linear(24, 2), linear(24, 24), linear(24, 24)),
    "causal attention": lambda: lambda z: F.scaled_dot_product_attention(z, z, z, is_causal=True),
    "transformer": lambda: nn.TransformerEncoderLayer(WIDTH, 2, 8, batch_first=True).double().eval(),
    "GRUCell": lambda: Called(recurrence, nn.GRUCell(WIDTH, 5).double()),
    "LSTMCell": lambda: Called(lstm_recurrence, nn.LSTMCell(WIDTH, 5).double()),
    "GRU": lambda: Called(lambda net, z: net(z)[0], nn.GRU(WIDTH, 5, batch_first=True).double()),
    "LSTM": lambda: Called(lambda net, z: net(z)[1][0][-1], nn.LSTM(WIDTH, 5, batch_first=True).double()),
    "state space": lambda: state_space,
    "BatchNorm in eval": lambda: sequential(nn.Flatten(), nn.BatchNorm1d(24), nn.Linear(24, 2)).eval(),
    "Dropout": lambda: sequential(nn.Flatten(), nn.Linear(24, 8), nn.Dropout(0.4), nn.Linear(8, 2)),
    "LayerNorm": lambda: sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2)),
    "GroupNorm": lambda: sequential(nn.GroupNorm(2, STEPS), nn.Flatten(), nn.Linear(24, 2)),
    "RMSNorm": lambda: sequential(nn.RMSNorm(WIDTH), nn.Linear(WIDTH, 2)),
    "einsum": lambda: lambda z: torch.einsum("bij,jk->bik", z, torch.eye(WIDTH, 2, dtype=z.dtype)),
    "bilinear einsum": lambda: lambda z: torch.einsum("bij,bkj->bik", z, z),
    "scatter": lambda: (
        lambda z: torch.zeros_like(z).scatter(-1, torch.tensor([5, 4, 3, 2, 1, 0]).expand(z.shape), z)
    ),
    "scatter_add": lambda: scattered,
    "segment sums": lambda: segments,
    "sort": lambda: lambda z: z.sort(-1).values * torch.linspace(0, 1, WIDTH, dtype=z.dtype),
    "topk": lambda: lambda z: z.topk(2, -1).values,
    "median": lambda: lambda z: z.median(-1).values,
    "quantile": lambda: lambda z: z.quantile(0.4, -1),
    "windows": lambda: lambda z: z.unfold(-1, 3, 1).mean(-1),
    "unfold": lambda: lambda z: F.unfold(z[:, None], (2, 2)),
    "conv1d": lambda: sequential(nn.Conv1d(STEPS, 3, 3), nn.Tanh()),
    "conv2d": lambda: sequential(nn.Unflatten(1, (1, STEPS)), nn.Conv2d(1, 2, 3), nn.ELU(), nn.Flatten()),
    "FFT": lambda: lambda z: torch.fft.rfft(z).abs().square(),
    "complex": lambda: lambda z: (torch.complex(z, 0.5 * z) * torch.complex(z, z)).real,
    "cumsum": lambda: lambda z: z.cumsum(1),
    "solve": lambda: lambda z: torch.linalg.solve(gram(z), z),
    "cholesky": lambda: lambda z: torch.linalg.cholesky(gram(z)),
    "logdet": lambda: lambda z: torch.logdet(gram(z)),
    "dataclass": lambda: lambda z: Output(2 * z, None).logits,
    "cross_entropy": lambda: (
        lambda z: F.cross_entropy(by_channel(z), torch.zeros(len(z), STEPS).long(), reduction="none")
    ),
    "kl_div": lambda: lambda z: F.kl_div(z.log_softmax(-1), torch.full_like(z, 1 / WIDTH), reduction="none"),
    "pairwise distances": lambda: lambda z: torch.cdist(z, z + 0.1),
    "max-pool": lambda: lambda z: F.max_pool1d(z, 2),
    "adaptive pool": lambda: lambda z: F.adaptive_avg_pool1d(z, 3),
    "interpolate": lambda: lambda z: F.interpolate(z, 9, mode="linear"),
    "grid_sample": lambda: grid,
    "where": lambda: lambda z: torch.where(torch.arange(WIDTH) < 3, z, z.square()),
    "vmap of a function": lambda: torch.func.vmap(lambda row: row.sum(0) * row.max()),
    "vmap of a module": lambda: torch.func.vmap(sequential(nn.Flatten(0), nn.Linear(24, 3), nn.Tanh())),
    "custom autograd": lambda: Cube.apply,
    "checkpoint": lambda: Called(
        lambda net, z: checkpoint(net, z, use_reentrant=False), sequential(nn.Linear(WIDTH, 5), nn.Tanh())
    ),
    "script": lambda: torch.jit.script(scripted),
    "weight_norm": lambda: weight_norm(linear(WIDTH, 3)),
    "spectral_norm": lambda: spectral_norm(linear(WIDTH, 3)).eval(),
    "mixture likelihood": lambda: mixture,
    "loop over elements": lambda: lambda z: torch.stack([row.square().sum(0) for row in z]),
    "linear method": lambda: Called(lambda net, z: F.gelu(net(z)) + F.silu(z[..., :3]), linear(WIDTH, 3)),
    "embedding bag by matmul": lambda: Called(
        lambda table, z: z @ table.weight, nn.Embedding(WIDTH, 3).double()
    ),
    "distance to a set": lambda: (
        lambda z: (z[:, :, None] - double([0.0, 1.0, -1.0])[:, None]).square().amin(2)
    ),
}
"""A function by its kind; ``RIGHT[kind]()`` makes it."""

RAGGED: dict[str, Callable[[], Fn]] = {
    "masked attention": lambda: masked_attention,
    "scaled_dot_product_attention": lambda: packed_attention,
    "MultiheadAttention": lambda: Called(
        multihead, nn.MultiheadAttention(WIDTH, 2, batch_first=True).double()
    ),
    "padded transformer": lambda: Called(
        masked_transformer, nn.TransformerEncoderLayer(WIDTH, 2, 8, batch_first=True).double().eval()
    ),
    "masked mean": lambda: masked_mean,
    "last step of a GRU": lambda: Called(last_step, nn.GRU(WIDTH, 5, batch_first=True).double()),
}
"""Functions that also read how many steps of each element count, [batch]."""
