"""Provenance: whose elements a result reads is judged rightly, whatever the values are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scg.probes.dependence import Label
from scg.probes.provenance import Provenance

Function = Callable[..., Any]
Build = Callable[[], tuple[Function, tuple[Tensor, ...]]]
SIZE = 5


def on(*shape: int) -> Callable[[Callable[[], Function]], Build]:
    """Make a case of a function of one tensor of ``SIZE`` elements of a shape."""
    return lambda build: lambda: (build(), (torch.randn(SIZE, *shape),))


def routed(spelled: Callable[[Tensor, Tensor, list[nn.Linear]], Tensor]) -> Build:
    """Make a case in which experts treat the elements that are sent to them."""

    def build() -> tuple[Function, tuple[Tensor, ...]]:
        experts = [nn.Linear(4, 4) for _ in range(3)]
        given = torch.randn(SIZE, 4), torch.tensor([0, 2, 0, 1, 2])
        return (lambda h, e: spelled(h, e, experts)), given

    return build


def copied(h: Tensor, e: Tensor, experts: list[nn.Linear]) -> Tensor:
    out = torch.empty_like(h)
    for index, expert in enumerate(experts):
        at = (e == index).nonzero().squeeze(-1)
        out = out.index_copy(0, at, expert(h[at]))
    return out


def added(h: Tensor, e: Tensor, experts: list[nn.Linear]) -> Tensor:
    out = torch.zeros_like(h)
    for index, expert in enumerate(experts):
        (at,) = torch.where(e == index)
        out.index_add_(0, at, expert(h[at]))
    return out


def masked(h: Tensor, e: Tensor, experts: list[nn.Linear]) -> Tensor:
    out = torch.zeros_like(h)
    for index, expert in enumerate(experts):
        out[e == index] = expert(h[e == index])
    return out


def centred(h: Tensor, e: Tensor, experts: list[nn.Linear]) -> Tensor:
    out = torch.zeros_like(h)
    for index in range(len(experts)):
        at = (e == index).nonzero().squeeze(-1)
        out = out.index_copy(0, at, h[at] - h[at].mean(0))
    return out


def padded_attention(z: Tensor) -> Tensor:
    mask = torch.where(torch.tensor([True, True, False, False]), 0.0, -torch.inf)
    return torch.softmax(z @ z.mT + mask, -1) @ z


def of_batch(z: Tensor) -> Tensor:
    """Attention in a flattened batch of five, each of which sees itself alone."""
    mask = torch.block_diag(*torch.ones(SIZE, 3, 3)).bool()
    flat = z.flatten(0, 1)
    return (torch.softmax((flat @ flat.T).masked_fill(~mask, -torch.inf), -1) @ flat).view(z.shape)


def written(z: Tensor) -> Tensor:
    out = torch.zeros(z.shape)
    out[:, 0] = z[:, 1]
    out[:, 1:] = 2 * z[:, :3]
    return out


def by_weights(w: Tensor) -> Function:
    return lambda z: z + w @ z


def by_mask(x: Tensor) -> Function:
    return lambda z: torch.where(x > 0, z.mean(), z)


def by_distance(x: Tensor) -> Function:
    return lambda z: torch.softmax(z @ z.T + x, -1) @ z


def with_heads(z: Tensor) -> Tensor:
    return nn.MultiheadAttention(4, 2, batch_first=True)(z, z, z)[0]


APART: dict[str, Build] = {
    "linear": on(4)(lambda: nn.Linear(4, 3)),
    "mlp": on(4)(lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))),
    "conv": on(1, 5, 5)(lambda: nn.Conv2d(1, 2, 3)),
    "pool": on(1, 4, 4)(lambda: nn.MaxPool2d(2)),
    "layer norm": on(4)(lambda: nn.LayerNorm(4)),
    "group norm": on(4, 3)(lambda: nn.GroupNorm(2, 4)),
    "batch norm in eval": on(4)(lambda: nn.BatchNorm1d(4).eval()),
    "gru cell": on(4)(lambda: nn.GRUCell(4, 6)),
    "gru": on(5, 4)(lambda: lambda z: nn.GRU(4, 6, batch_first=True)(z)[0]),
    "lstm": on(5, 4)(lambda: lambda z: nn.LSTM(4, 6, batch_first=True)(z)[0]),
    "transformer": on(5, 4)(lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()),
    "heads": on(5, 4)(lambda: with_heads),
    "padded attention": on(4, 4)(lambda: padded_attention),
    "attention in a flat batch": on(3, 4)(lambda: of_batch),
    "flip twice": on()(lambda: lambda z: z.flip(0).exp().flip(0)),
    "shuffled and back": on(4)(lambda: lambda z: z[torch.tensor([3, 1, 0, 4, 2])][[2, 1, 4, 0, 3]]),
    "flat and back": on(5, 4)(lambda: lambda z: nn.Linear(4, 3)(z.reshape(-1, 4)).reshape(len(z), 5, 3)),
    "one by one": on(4)(lambda: lambda z: torch.stack([z[i] * i for i in range(len(z))])),
    "softmax of the event": on(4)(lambda: lambda z: z.softmax(-1)),
    "sort of the event": on(4)(lambda: lambda z: z.sort(-1).values),
    "fft of the event": on(4)(lambda: lambda z: torch.fft.rfft(z).abs().sum(-1)),
    "windows of the event": on(6)(lambda: lambda z: z.unfold(1, 3, 1).sum(-1)),
    "einsum": on(4)(lambda: lambda z: torch.einsum("bi,ij->bj", z, torch.ones(4, 2))),
    "scatter": on(4)(
        lambda: (
            lambda z: torch.zeros(len(z), 3).scatter_add(1, torch.tensor([0, 1, 2, 0]).expand(len(z), 4), z)
        )
    ),
    "cholesky": on(4)(lambda: lambda z: torch.linalg.cholesky(z[..., None] * z[:, None] + torch.eye(4))),
    "cross entropy": on(4)(
        lambda: lambda z: F.cross_entropy(z, torch.zeros(len(z), dtype=torch.long), reduction="none")
    ),
    "dropout": on(4)(lambda: nn.Dropout(0.5)),
    "weights of zero": on(4)(lambda: lambda z: z + (z @ torch.zeros(4, 2)) @ torch.ones(2, 4)),
    "written into": on(4)(lambda: written),
    "in place": on(4)(lambda: lambda z: z.clone().mul_(2).add_(z)),
    "vmap": on(4)(lambda: torch.vmap(nn.Linear(4, 3))),
    "checkpoint": on(4)(lambda: lambda z: checkpoint(nn.Linear(4, 3), z, use_reentrant=False)),
    "weight norm": on(4)(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))),
    "experts, copied": routed(copied),
    "experts, added": routed(added),
    "experts, by mask": routed(masked),
    "constant": on(4)(lambda: torch.ones_like),
    "constant weights of zero": on()(lambda: lambda z: z + torch.zeros(len(z), len(z)) @ z),
    "one-hot": lambda: (lambda k: F.one_hot(k, 3).float(), (torch.tensor([0, 2, 0, 1, 2]),)),
    "embedding": lambda: (nn.Embedding(3, 4), (torch.tensor([0, 2, 0, 1, 2]),)),
    "table": lambda: (lambda k: torch.arange(3.0)[k], (torch.tensor([0, 2, 0, 1, 2]),)),
}

JOINED: dict[str, Build] = {
    "0 times a mean": on()(lambda: lambda z: z + 0.0 * z.mean(0, keepdim=True)),
    "a clip that sleeps": on()(lambda: lambda z: z * torch.clamp(1e6 / z.norm(), max=1.0)),
    "a branch that sleeps": on()(lambda: lambda z: torch.where(z.sum() > 1e6, z - z.mean(), z)),
    "0 times a softmax": on(4)(lambda: lambda z: z + 0.0 * z.softmax(0)),
    "weights of zero": on()(lambda: by_weights(nn.Parameter(torch.zeros(SIZE, SIZE)))),
    "a mask of zeros that may change": on()(lambda: by_mask(nn.Parameter(torch.zeros(SIZE)))),
    "a mask of infinities that may change": on(4)(
        lambda: by_distance(nn.Parameter(torch.full((SIZE, SIZE), -torch.inf).fill_diagonal_(0.0)))
    ),
    "a multiple of infinity": on()(lambda: lambda z: torch.where(z > 9, z.mean(), z)),
    "flip": on()(lambda: lambda z: z.flip(0)),
    "roll": on()(lambda: lambda z: z.roll(1, 0)),
    "cumsum": on()(lambda: lambda z: z.cumsum(0)),
    "first": on(4)(lambda: lambda z: z - z[0]),
    "next": on()(lambda: lambda z: torch.cat((z[1:] - z[:-1], z[:1]))),
    "pairs": on()(lambda: lambda z: (z[:, None] - z).abs().sum(1)),
    "gram": on(4)(lambda: lambda z: (z @ z.T).sum(1)),
    "batch norm": on(4)(lambda: nn.BatchNorm1d(4)),
    "attention": on(4)(lambda: lambda z: with_heads(z[None])[0]),
    "wrong layout": on(4)(lambda: lambda z: z.reshape(4, -1).T),
    "largest": on()(lambda: lambda z: z.max() - z),
    "written into": on()(lambda: lambda z: torch.zeros(SIZE).copy_(z.flip(0))),
    "means of groups": on()(
        lambda: lambda z: z - torch.zeros(2).index_add(0, torch.arange(SIZE) % 2, z)[torch.arange(SIZE) % 2]
    ),
    "experts, centred": routed(centred),
}

CAUSAL: dict[str, Function] = {
    "cumsum": lambda z: z.cumsum(0),
    "before": lambda z: torch.cat((torch.zeros(1, 4), z[:-1])),
    "running maximum": lambda z: z.cummax(0).values,
    "causal attention": lambda z: F.scaled_dot_product_attention(z[None], z[None], z[None], is_causal=True),
    "masked attention": lambda z: (
        torch.softmax((z @ z.T).masked_fill(~torch.ones(SIZE, SIZE).tril().bool(), -torch.inf), -1) @ z
    ),
    "recurrence": lambda z: nn.GRU(4, 4)(z)[0],
    "causal convolution": lambda z: F.conv1d(F.pad(z.T[None], (2, 0)), torch.ones(4, 4, 3))[0].T,
}
ANTICAUSAL: dict[str, Function] = {
    "reversed cumsum": lambda z: z.flip(0).cumsum(0).flip(0),
    "after": lambda z: torch.cat((z[1:], torch.zeros(1, 4))),
    "0 times a mean": lambda z: z - 0.0 * z.mean(0),
    "flip": lambda z: z.flip(0),
    "centred convolution": lambda z: F.conv1d(F.pad(z.T[None], (1, 1)), torch.ones(4, 4, 3))[0].T,
}


def followed(fn: Function, given: tuple[Tensor, ...], label: Label) -> tuple[Provenance, Tensor | None]:
    """Return the recording of a call and the owners of its result, the label in front."""
    with torch.no_grad(), Provenance({label: [(item, 0) for item in given]}) as provenance:
        result = fn(*given)
    owners = provenance.owners(label, result)
    return provenance, owners if owners is None or len(owners) == SIZE else owners[0]


def is_apart(owners: Tensor | None, *, ordered: bool = False) -> bool:
    if owners is None:
        return True
    own = torch.arange(1, SIZE + 1).view(-1, *(1,) * (owners.dim() - 1))
    return bool(((owners >= 0) & ((owners <= own) if ordered else (owners == 0) | (owners == own))).all())


@pytest.mark.parametrize("name", APART)
def test_elements_that_are_kept_apart(name: str) -> None:
    torch.manual_seed(0)
    fn, given = APART[name]()
    assert is_apart(followed(fn, given, Label("p", SIZE))[1])


@pytest.mark.parametrize("name", JOINED)
def test_elements_that_are_joined_whatever_the_values(name: str) -> None:
    torch.manual_seed(0)
    fn, given = JOINED[name]()
    assert not is_apart(followed(fn, given, Label("p", SIZE))[1])


@pytest.mark.parametrize("name", [*CAUSAL, *ANTICAUSAL])
def test_in_an_order_elements_may_read_earlier_ones(name: str) -> None:
    torch.manual_seed(0)
    fn = {**CAUSAL, **ANTICAUSAL}[name]
    _, owners = followed(fn, (torch.randn(SIZE, 4),), Label("t", SIZE, is_ordered=True))
    assert is_apart(owners, ordered=True) is (name in CAUSAL)


def test_what_joined_is_named() -> None:
    label = Label("p", SIZE)
    provenance, owners = followed(lambda z: (z / z.norm()).exp(), (torch.randn(SIZE),), label)
    assert owners is not None
    assert provenance.words(int(owners.min())) == "linalg_vector_norm"
    assert not provenance.is_unclear(int(owners.min()))


def test_values_that_leave_torch_are_noticed() -> None:
    label = Label("p", SIZE)
    provenance, _ = followed(lambda z: torch.as_tensor(np.asarray(z)), (torch.randn(SIZE),), label)
    assert provenance.left is not None
    provenance, _ = followed(lambda z: z * float(z.sum()), (torch.randn(SIZE),), label)
    assert len(provenance.of_elements) == len(provenance.reads.values) == 1


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda z: z * torch.arange(len(z)), True),
        (lambda z: z * torch.ones(len(z)).cumsum(0), True),
        (lambda z: z * torch.zeros(9)[: len(z)], True),
        (lambda z: z + torch.zeros(len(z)) @ torch.zeros(len(z), len(z)), False),
        (lambda z: z + torch.zeros(1).expand(len(z)), False),
        (lambda z: z * torch.full((len(z),), 2.0), False),
    ],
)
def test_functions_that_tell_elements_apart_by_their_place(fn: Function, expected: bool) -> None:
    provenance, _ = followed(fn, (torch.randn(SIZE),), Label("p", SIZE))
    assert provenance.is_positional is expected


def test_a_product_of_rows_is_read_off_and_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("scg.probes.provenance.dependence", lambda call, label: asked.append(label))
    x, weights, bias, label = torch.randn(SIZE, 3), torch.zeros(3, 4), torch.zeros(4), Label("plate", SIZE)
    with Provenance({label: [(x, 0)]}, given=[x]) as found:
        result = torch.addmm(bias, x, weights)
    owners = found.owners(label, result)
    assert owners is not None and torch.equal(owners, torch.arange(1, SIZE + 1)[:, None].expand(SIZE, 4))
    assert not asked


def test_a_product_along_the_plate_joins() -> None:
    x, label = torch.randn(SIZE, 3), Label("plate", SIZE)
    with Provenance({label: [(x, 0)]}, given=[x]) as found:
        turned, own = torch.mm(torch.randn(SIZE, SIZE), x), torch.mm(x.T, torch.randn(SIZE, 2))
    for result in (turned, own):
        owners = found.owners(label, result)
        assert owners is not None and bool((owners < 0).all())
