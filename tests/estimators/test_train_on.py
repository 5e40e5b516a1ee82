"""``train_on``: the estimates of the whole plate, and on average its gradient of the variance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Normal, OneHotCategorical

import scg

SIZE = 5
Inputs = dict[str, Tensor]
Build = Callable[[], tuple[scg.Graph, Inputs]]
Make = Callable[[float], scg.Estimator]
KINDS: dict[str, Make] = {
    "rebar": lambda share: scg.REBAR(temperature=0.8, eta=0.7, train_on=share),
    "relax": lambda share: scg.RELAX(train_on=share),
    "network": lambda share: scg.RELAX(relaxed_cost=False, train_on=share),
    "leave-one-out": lambda share: scg.REBAR(baseline="leave-one-out", train_on=share),
}


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def plain() -> tuple[scg.Graph, Inputs]:
    g = scg.Graph()
    row = double(SIZE, 3)
    x = g.input("x", plates="batch", example=row)
    b = g.sample("b", Bernoulli, logits=g.param("theta", double(3)) * x)
    g.cost("c", lambda b, x, w: ((b * w - x) ** 2).sum(-1) + b.prod(-1), b, x, g.param("w", double(3)))
    return g, {"x": row}


def summed() -> tuple[scg.Graph, Inputs]:
    g = scg.Graph()
    g.plate("batch", reduce="sum")
    row = double(SIZE)
    x = g.input("x", plates="batch", example=row)
    b = g.sample("b", OneHotCategorical, logits=x[..., None] * g.param("theta", double(3)))
    g.cost("c", lambda b, x: (b @ torch.tensor([0.3, -1.0, 2.0]).double()) ** 2 * x, b, x)
    return g, {"x": row}


def chained() -> tuple[scg.Graph, Inputs]:
    """Two nodes that train on blocks of their own, a prior that reads the first, and a constant row."""
    g = scg.Graph()
    row = double(SIZE, 2)
    x = g.input("x", plates="batch", example=row)
    a = g.sample("a", Bernoulli, logits=x * g.param("theta", double(2)))
    b = g.sample(
        "b", OneHotCategorical, logits=g.det("h", lambda a: torch.cat((a, -a[..., :1]), -1) * 0.7, a)
    )
    g.cost("kl", g.log_prob(a) - g.log_prob(Bernoulli, a, logits=g.param("prior", double(2))))
    g.cost("c", lambda a, b: (a.sum(-1) - b[..., 0]) ** 2 + b[..., 1] * torch.sin(a[..., 0]), a, b)
    return g, {"x": row}


def nested(reduce: Literal["mean", "sum"] = "sum") -> tuple[scg.Graph, Inputs]:
    """The plate of the block is the inner, larger one, or the outer where only that is averaged over."""
    g = scg.Graph()
    g.plate("row", size=2, reduce=reduce)
    g.plate("item", size=SIZE, reduce="sum")
    theta = g.param("theta", double(2), plates="row")
    row = double(2, SIZE)
    x = g.input("x", plates=("row", "item"), example=row)
    b = g.sample("b", Bernoulli, logits=theta + x)
    g.cost("c", lambda b, x, theta: (b - 0.3 * x) ** 2 * theta.exp(), b, x, theta)
    return g, {"x": row}


def masked() -> tuple[scg.Graph, Inputs]:
    g = scg.Graph()
    row = double(SIZE)
    x = g.input("x", plates="batch", example=row)
    some = torch.tensor([True, False, True, True, False])
    there = g.input("there", plates="batch", example=some)
    b = g.sample("b", Bernoulli, logits=x * g.param("theta", double(())), where=there)
    g.cost("c", lambda b, x: (b - x) ** 2, b, x)
    return g, {"x": row, "there": some}


def summed_over() -> tuple[scg.Graph, Inputs]:
    """Below an enumerated node, whose branches are an axis, and above one that is drawn."""
    g = scg.Graph()
    row = double(SIZE)
    x = g.input("x", plates="batch", example=row)
    k = g.sample("k", Categorical, logits=x[..., None] * g.param("theta", double(3)))
    b = g.sample(
        "b", Bernoulli, logits=g.det("m", lambda k, x: k * 0.6 - x, k, x) + g.param("phi", double(()))
    )
    z = g.sample("z", Normal, b * 1.3, 0.5)
    g.cost("c", lambda b, k, z: (b - 0.4 * k) ** 2 + torch.tanh(z), b, k, z)
    return g, {"x": row}


def crossed() -> tuple[scg.Graph, Inputs]:
    """Below two enumerated nodes that are alike but for the plate in which each is set one by one."""
    g = scg.Graph()
    g.plate("row", size=2)
    g.plate("column", size=2, reduce="sum")
    u = g.sample("u", Bernoulli, logits=g.param("above", double(2), plates="row"))
    v = g.sample("v", Bernoulli, logits=g.param("beside", double(2), plates="column"))
    g.cost("rows", g.det("us", lambda u: u.sum(0), u, plates=()) ** 2)
    g.cost("columns", g.det("vs", lambda v: v.sum(0), v, plates=()) ** 2)
    w = g.param("w", double(2), plates="row")
    b = g.sample("b", Bernoulli, logits=g.det("m", lambda u, v, w: u * 1.3 - v * w, u, v, w))
    g.cost("c", lambda b, u, v: (b - 0.4 * u + 0.9 * v) ** 2 * torch.exp(0.5 * u - v * b), b, u, v)
    return g, {}


SHAPES: dict[str, tuple[Build, tuple[str, ...], dict[str, str]]] = {
    "plain": (plain, ("b",), {}),
    "summed": (summed, ("b",), {}),
    "chained": (chained, ("a", "b"), {}),
    "nested": (nested, ("b",), {}),
    "nested_mean": (lambda: nested("mean"), ("b",), {}),
    "masked": (masked, ("b",), {}),
    "crossed": (crossed, ("b",), {"u": "enumerate", "v": "enumerate"}),
    "summed_over": (summed_over, ("b",), {"k": "enumerate", "z": "reparam"}),
}


def gradients(program: scg.Program, noise: Inputs, inputs: Inputs) -> Inputs:
    program.zero_grad()
    program(noise=noise, **inputs).loss.backward()
    return {name: p.grad.clone() for name, p in program.named_parameters() if p.grad is not None}


def pair(shape: str, make: Make, samples: int | None) -> tuple[scg.Program, scg.Program, Inputs]:
    """A program that trains on a share, and one on all, with the same controls off their start."""
    build, names, besides = SHAPES[shape]
    torch.manual_seed(1)
    g, inputs = build()
    part, whole = (
        scg.compile(g, {**{name: make(share) for name in names}, **besides}, samples=samples)
        for share in (0.4, 1.0)
    )
    with torch.no_grad():
        for p in part.control_parameters():
            p.add_(0.3 * torch.randn_like(p))
    whole.load_state_dict(part.state_dict())
    return part, whole, inputs


def check(part: scg.Program, whole: scg.Program, inputs: Inputs) -> None:
    """Hold a program that trains on a share against one that trains on all, over all blocks."""
    noise = part.draw_noise(2, **inputs)
    starts = [name for name in noise if name.endswith(".block")]
    expected = gradients(whole, {name: value for name, value in noise.items() if name not in starts}, inputs)
    assert starts
    assert any(name.startswith("controls.") for name in expected)
    average: Inputs = {}
    count = 2 * SIZE  # every element of a plate of 2 or of SIZE begins the block equally often
    for start in range(count):
        moved = {name: torch.tensor((start + 0.5) / count) for name in starts}
        for name, found in gradients(part, {**noise, **moved}, inputs).items():
            if not name.startswith("controls."):
                torch.testing.assert_close(found, expected[name], rtol=1e-10, atol=1e-12)
            average[name] = average.get(name, torch.zeros_like(found)) + found / count
    assert average.keys() == expected.keys()
    for name, found in average.items():
        torch.testing.assert_close(found, expected[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_estimates_are_those_of_the_whole_and_training_is_on_average(shape: str, kind: str) -> None:
    check(*pair(shape, KINDS[kind], 3 if kind == "leave-one-out" else None))


def test_a_continuous_node_trains_its_network_on_a_share() -> None:
    def build(share: float) -> scg.Program:
        torch.manual_seed(1)
        g = scg.Graph()
        x = g.input("x", plates="batch", example=row)
        z = g.sample("z", Normal, x * g.param("theta", double(2)), 0.6)
        g.cost("c", lambda z: (z > 0.2).sum(-1).double(), z)
        return scg.compile(g, scg.LAX(train_on=share))

    row = double(SIZE, 2)
    part, whole = build(0.6), build(1.0)
    with torch.no_grad():
        part.get_parameter("controls.z.net.scale").fill_(0.8)
    whole.load_state_dict(part.state_dict())
    check(part, whole, {"x": row})


@pytest.mark.parametrize("kind", ["rebar", "relax"])
def test_a_batch_of_one_trains_on_its_element(kind: str) -> None:
    part, whole, inputs = pair("plain", KINDS[kind], None)
    one = {"x": inputs["x"][:1]}
    noise = part.draw_noise(3, **one)
    expected = gradients(whole, {name: noise[name] for name in ("b", "b.1")}, one)
    for name, found in gradients(part, noise, one).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["rebar", "relax"])
def test_compiled_programs_choose_the_same_block(kind: str) -> None:
    part, _, inputs = pair("chained", KINDS[kind], None)
    noise = part.draw_noise(3, **inputs)
    expected = gradients(part, noise, inputs)
    part.compile(backend="aot_eager")
    for name, found in gradients(part, noise, inputs).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-8, atol=1e-10)


def test_exported_modules_train_on_the_block(tmp_path: Path) -> None:
    part, _, _ = pair("plain", KINDS["rebar"], None)
    part.export(tmp_path / "written.py")  # which holds the loss and gradients against those of the program
    assert "def rebar_of_b_block" in (tmp_path / "written.py").read_text()


@pytest.mark.parametrize("share", [0, -0.5, 1.5, "some"])
def test_a_share_is_above_zero_and_at_most_one(share: float) -> None:
    with pytest.raises(scg.EstimatorError, match="train_on is a share of a plate"):
        scg.REBAR(train_on=share)


def refused(g: scg.Graph, estimator: scg.Estimator, match: str) -> None:
    with pytest.raises(scg.EstimatorError, match=match):
        scg.compile(g, {"b": estimator}, samples=2)


def test_what_cannot_be_evaluated_in_part_is_refused() -> None:
    alone = scg.Graph()
    b = alone.sample("b", Bernoulli, logits=alone.param("theta", double(3)))
    alone.cost("c", (b**2).sum(-1))
    refused(alone, scg.REBAR(train_on=0.25), "train_on=0.25: it has no plate")

    joined = scg.Graph()
    x = joined.input("x", plates="batch", example=double(SIZE))
    b = joined.sample("b", Bernoulli, logits=x * joined.param("theta", double(())))
    joined.cost("c", joined.det("mean", lambda b: b.mean(0), b, plates=()) ** 2)
    refused(joined, scg.REBAR(train_on=0.25), "'c' reads several elements of plate 'batch'")

    placed = scg.Graph()
    x = placed.input("x", plates="batch", example=double(SIZE))
    b = placed.sample("b", Bernoulli, logits=x * placed.param("theta", double(())))
    placed.cost("c", lambda b: b * torch.arange(len(b)), b)
    refused(placed, scg.REBAR(train_on=0.25), "'c' is not known to treat the elements of plate 'batch' alike")
    refused(placed, scg.RELAX(train_on=0.25, baseline="self-critical", relaxed_cost=False), "the baseline")


def test_runs_draw_a_block_anew() -> None:
    part, _, inputs = pair("plain", KINDS["rebar"], None)
    places = {float(part.draw_noise(seed, **inputs)["b.block"]) for seed in range(5)}
    assert len(places) == 5
