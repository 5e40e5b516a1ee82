"""Crossing: functions whose elements read each other are found, and harmless ones are left alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

import scg

Function = Callable[..., Any]
SIZE = 6


class PerElement(nn.Module):
    """A GRU over the event of each element."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(1, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.gru(x[..., None])[0]
        return out.flatten(1)


def on_images(net: nn.Module) -> Function:
    return nn.Sequential(nn.Unflatten(1, (1, 2, 2)), net)


def shuffled(x: Tensor) -> Tensor:
    return x[torch.randperm(len(x))]


def attention(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x[None], x[None], x[None])[0]


def in_numpy(x: Any) -> Any:
    return np.asarray(x) - np.asarray(x).mean(0)


def by_branch(x: Tensor) -> Tensor:
    return x if bool(x.sum() > 0.5 * x.numel()) else 2 * x


def by_running_sum(x: Tensor) -> Tensor:
    """Only a sum that no example reaches joins elements, in a loop with many reads."""
    total, rows = 0.0, []
    for row in x:
        total += float(row.sum())
        rows.append(row if total < 1e5 else 2 * row)
    return torch.stack(rows)


def by_element(x: Tensor) -> Tensor:
    return torch.stack([2 * row if row.sum() > 0.5 else row - 0.3 for row in x])


def until_all_are_done(x: Tensor) -> Tensor:
    """Each element goes on until it is done itself; the loop ends once all are."""
    done, total = torch.zeros_like(x, dtype=torch.bool), torch.zeros_like(x)
    for step in range(3):
        total = torch.where(done, total, total + x + 0.2 * step)
        done = total > 0.5
        if done.all():
            break
    return total


CROSSING: dict[str, Callable[[], Function]] = {
    "mean": lambda: lambda x: x - x.mean(0, keepdim=True),
    "mean of everything": lambda: lambda x: x * x.mean(),
    "softmax": lambda: lambda x: x.softmax(0),
    "sort": lambda: lambda x: x.sort(0).values,
    "argsort": lambda: lambda x: x.argsort(0).float(),
    "flip": lambda: lambda x: x.flip(0),
    "roll": lambda: lambda x: x.roll(1, 0),
    "shuffle": lambda: shuffled,
    "cumsum": lambda: lambda x: x.cumsum(0),
    "attention": lambda: attention,
    "batch norm": lambda: nn.BatchNorm1d(4),
    "wrong layout": lambda: (lambda net: lambda x: net(x)[0])(nn.GRU(4, 2)),
    "branch on a sum": lambda: by_branch,
    "branch on a running sum": lambda: by_running_sum,
    "all": lambda: lambda x: torch.where((x > 0).all(), 2 * x, x),
    "any": lambda: lambda x: torch.where((x > 9).any(), 2 * x, x),
    "branch on all": lambda: lambda x: 2 * x if (x > 0).all() else x,
    "branch on any": lambda: lambda x: 2 * x if (x > 9).any() else x,
    "branch on the largest": lambda: lambda x: 2 * x if x.max() > 9 else x,
    "count": lambda: lambda x: x + (x > 9).count_nonzero(),
    "median": lambda: lambda x: x + x.median(),
    "norm": lambda: lambda x: x / x.norm(),
}

KEEPING: dict[str, Callable[[], Function]] = {
    "elementwise": lambda: lambda x: (x - 0.3) ** 2 + x.sigmoid(),
    "branch of each element": lambda: by_element,
    "stopped once all are done": lambda: until_all_are_done,
    "linear": lambda: nn.Linear(4, 2),
    "mlp": lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)),
    "conv": lambda: on_images(nn.Conv2d(1, 2, 2)),
    "layer norm": lambda: nn.LayerNorm(4),
    "group norm": lambda: on_images(nn.GroupNorm(1, 1)),
    "gru": PerElement,
    "batch norm in eval": lambda: nn.BatchNorm1d(4).eval(),
    "dropout": lambda: nn.Dropout(0.5),
    "softmax of the event": lambda: lambda x: x.softmax(-1),
    "sort of the event": lambda: lambda x: x.sort(-1).values,
    "constant": lambda: lambda x: torch.ones_like(x),
    "nan": lambda: lambda x: x / x,
    "position": lambda: lambda x: x * torch.arange(len(x))[:, None],
}


def bits(fn: Function, **options: Any) -> scg.Graph:
    """Return a graph in which ``fn`` reads a Bernoulli sample [batch, 4]."""
    torch.manual_seed(0)
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.zeros(SIZE, 4))
    node = g.det("h", fn, g.sample("b", Bernoulli, logits=x), **options)
    g.cost("c", lambda h: (h[0] if isinstance(h, tuple) else h).flatten(1).sum(-1), node)
    return g


CROSSES = r"node 'h' \(.*\) crosses plate 'batch': elements read each other.*mixes=\"batch\""


@pytest.mark.parametrize("name", CROSSING)
def test_functions_that_cross_are_refused(name: str) -> None:
    with pytest.raises(scg.PlateError, match=CROSSES):
        bits(CROSSING[name]()).check()


@pytest.mark.parametrize("name", CROSSING)
def test_declared_mixing_is_accepted(name: str) -> None:
    g = bits(CROSSING[name](), mixes="batch")
    g.check()
    assert "(all of batch)" in scg.compile(g, policy="score").explain()


@pytest.mark.filterwarnings("ignore:.*does not change with it:scg.GradientWarning")
@pytest.mark.parametrize("name", KEEPING)
def test_functions_that_keep_elements_apart_pass(name: str) -> None:
    bits(KEEPING[name]()).check()


@pytest.mark.parametrize("name", CROSSING)
def test_crossing_of_inputs_alone_is_harmless(name: str) -> None:
    torch.manual_seed(0)
    g = scg.Graph()
    h = g.det("h", CROSSING[name](), g.input("x", plates="batch", example=torch.randn(SIZE, 4)))
    first = g.det("first", lambda h: h[0] if isinstance(h, tuple) else h, h)
    b = g.sample("b", Bernoulli, logits=first)
    g.cost("c", lambda b: b.flatten(1).sum(-1), b)
    g.check()


def test_black_boxes_are_probed_as_well() -> None:
    with pytest.raises(scg.PlateError, match=CROSSES):
        bits(in_numpy, differentiable=False).check()
    bits(lambda x: np.asarray(x) * 2.0, differentiable=False).check()


@pytest.mark.parametrize(
    "cross", [lambda b: b.flip(0), lambda b: torch.softmax(b, 0), lambda b: b - b.mean(0)]
)
def test_operations_on_handles_are_probed_as_well(cross: Callable[[scg.Node], scg.Node]) -> None:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.zeros(4, 4))
    g.cost("c", cross(g.sample("b", Bernoulli, logits=x)).sum(-1))
    with pytest.raises(scg.PlateError):
        g.check()


def test_factories_of_distributions_are_probed_as_well() -> None:
    g = bits(lambda x: x)
    g.sample("z", lambda h: Normal(h.mean(0, keepdim=True) + 0 * h, 1.0), g["h"])
    with pytest.raises(scg.PlateError, match="'z'.*crosses plate 'batch'"):
        g.check()


def test_a_plate_that_broadcasting_turns_into_an_event_is_crossed() -> None:
    """[batch, 1] - [batch] is [batch, batch]: each element reads every other."""
    g = scg.Graph()
    target = g.input("target", plates="batch", example=torch.zeros(4, 1))
    b = g.sample("b", Bernoulli, logits=g.input("x", plates="batch", example=torch.zeros(4)))
    g.cost("c", ((target - b) ** 2).mean(-1))
    with pytest.raises(scg.PlateError, match="'sub_1'.*crosses plate 'batch'"):
        g.check()


def test_only_the_plate_that_is_crossed_is_named() -> None:
    g = scg.Graph()
    x = g.input("x", plates=("a", "b"), example=torch.zeros(4, 5))
    s = g.sample("s", Bernoulli, logits=x)
    g.cost("c", g.det("h", lambda s: s.cumsum(1), s))
    with pytest.raises(scg.PlateError, match="crosses plate 'b'") as error:
        g.check()
    assert "plate 'a'" not in str(error.value)


def test_crossing_below_an_aggregate_of_the_plate_is_harmless() -> None:
    g = bits(lambda x: x)
    total = g.det("total", lambda h: h.sum(0), g["h"], plates=())
    spread = g.det("spread", lambda t, x: t + x.flip(0), total, g["x"])
    g.cost("d", spread.sum(-1))
    g.check()


def test_several_crossings_are_reported_together() -> None:
    g = bits(lambda x: x.flip(0))
    g.cost("d", g.det("k", lambda x: x.cumsum(0), g["b"]).sum(-1))
    with pytest.raises(scg.PlateError, match=r"'h'(.|\n)*'k'"):
        g.check()


def ordered(fn: Function) -> scg.Graph:
    g = scg.Graph()
    time = g.plate("time", ordered=True)
    x = g.input("x", plates=time, example=torch.zeros(SIZE, 4))
    g.cost("c", g.det("h", fn, g.sample("b", Bernoulli, logits=x)).sum(-1))
    return g


CAUSAL: dict[str, Function] = {
    "cumsum": lambda x: x.cumsum(0),
    "before": lambda x: torch.cat([torch.zeros(1, 4), x[:-1]]),
    "running maximum": lambda x: x.cummax(0).values,
    "each its own": lambda x: x * 2,
}
ANTICAUSAL: dict[str, Function] = {
    "reverse cumsum": lambda x: x.flip(0).cumsum(0).flip(0),
    "after": lambda x: torch.cat([x[1:], torch.zeros(1, 4)]),
    "mean": lambda x: x - x.mean(0),
    "flip": lambda x: x.flip(0),
}


@pytest.mark.parametrize("name", CAUSAL)
def test_an_ordered_plate_lets_later_elements_read_earlier_ones(name: str) -> None:
    ordered(CAUSAL[name]).check()


@pytest.mark.parametrize("name", ANTICAUSAL)
def test_an_ordered_plate_refuses_what_reads_the_future(name: str) -> None:
    with pytest.raises(scg.PlateError, match="crosses plate 'time': an earlier element reads a later one"):
        ordered(ANTICAUSAL[name]).check()


def reversed_bits(size: int, is_ordered: bool) -> scg.Graph:
    g = scg.Graph()
    x = g.input("x", plates=g.plate("p", ordered=is_ordered), example=torch.zeros(size))
    g.cost("c", g.det("h", lambda b: b.flip(0), g.sample("b", Bernoulli, logits=x)))
    return g


@pytest.mark.parametrize("size", range(2, 12))
def test_ordered_plates_of_few_single_bits_are_probed_as_well(size: int) -> None:
    with pytest.raises(scg.PlateError, match="crosses plate 'p'"):
        reversed_bits(size, is_ordered=True).check()


def test_plates_of_few_single_bits_are_probed_as_well() -> None:
    for size in range(2, 12):
        with pytest.raises(scg.PlateError, match="crosses plate 'p'"):
            reversed_bits(size, is_ordered=False).check()


def test_one_element_that_reads_one_other_is_found() -> None:
    for reader, read in itertools.permutations(range(SIZE), 2):
        order = list(range(SIZE))
        order[reader] = read
        with pytest.raises(scg.PlateError):
            bits(lambda x, order=order: x[order]).check()


def test_one_element_that_reads_the_next_is_found() -> None:
    for reader in range(SIZE - 1):
        order = list(range(SIZE))
        order[reader] = reader + 1
        with pytest.raises(scg.PlateError):
            ordered(lambda x, order=order: x[order]).check()


def test_a_plate_of_one_example_is_enlarged_for_the_probe() -> None:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.zeros(1, 3))
    g.cost("c", g.det("h", nn.LayerNorm(3), g.sample("b", Bernoulli, logits=x)).sum(-1))
    assert "assumed: plate 'batch' has one element" in scg.compile(g, policy="score").explain()
    g.cost("d", g.det("k", lambda b: b - b.mean(0), g["b"]).sum(-1))
    with pytest.raises(scg.PlateError, match="'k'.*crosses plate 'batch'"):
        g.check()


def test_probing_leaves_buffers_and_generators_as_they_were() -> None:
    norm = nn.BatchNorm1d(4)
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    g = bits(norm, mixes="batch")
    state = torch.random.get_rng_state()
    g.check()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(buffer, before[name]) for name, buffer in norm.named_buffers())


BRANCHES: dict[str, Callable[..., Tensor]] = {
    "a flag": lambda b, x, flag: b - b.mean(0) if flag > 0 else b,
    "a number": lambda b, x, flag: b - b.mean(0) if flag.item() > 20 else b,
    "any of an input": lambda b, x, flag: b - b.mean(0) if bool((x > 0).any()) else b,
    "a branch of a branch": lambda b, x, flag: (b.cumsum(0) if x.max() > 3 else b) if flag > 0 else b,
    "what is drawn": lambda b, x, flag: b.flip(0) if torch.rand(()) < 1e-9 else b,
    "a count": lambda b, x, flag: sum((b.mean(0) * b for _ in range(int(flag))), b),
}


def branching(fn: Callable[..., Tensor]) -> scg.Graph:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.zeros(SIZE, 4))
    flag = g.input("flag", example=torch.zeros(()))
    g.cost("c", g.det("h", fn, g.sample("b", Bernoulli, logits=x), x, flag).sum(-1))
    return g


@pytest.mark.parametrize("name", BRANCHES)
def test_branches_that_the_example_does_not_take_are_looked_at(name: str) -> None:
    with pytest.raises(scg.PlateError, match="on a branch that the example does not take"):
        branching(BRANCHES[name]).check()


SAVING: dict[str, Callable[[Tensor], Tensor]] = {
    "masked": lambda b: b.masked_fill(b > 0.5, 2.0) if (b > 0.5).any() else b,
    "where": lambda b: b if not (b > 0.5).any() else torch.where(b > 0.5, b.exp(), b),
    "all": lambda b: b * 3.0 if bool((b > 0.5).all()) else torch.where(b > 0.5, b * 3.0, 0.0 * b),
}


@pytest.mark.parametrize("name", SAVING)
def test_branches_that_only_save_work_pass(name: str) -> None:
    bits(SAVING[name]).check()


@pytest.mark.parametrize(
    "fn",
    [
        lambda b: b * 3.0 if bool((b > 0.5).all()) else b,
        lambda b: b.masked_fill(b > 0.5, 2.0) if (b > 0.5).any() else b - 1.0,
    ],
)
def test_branches_that_decide_for_others_are_refused(fn: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(scg.PlateError, match="Python reads"):
        bits(fn).check()


def test_branches_that_keep_elements_apart_pass() -> None:
    def fn(b: Tensor, x: Tensor, flag: Tensor) -> Tensor:
        if x.isnan().any():
            raise ValueError(b.mean(0))
        return b.tanh() if flag > 0 else b

    branching(fn).check()
