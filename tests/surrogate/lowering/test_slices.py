"""Slices: one that goes on as that of a node below gives what one written in full gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

import scg
from scg.surrogate.lowering import slices
from tests.support.running import awake, gradients, label

Build = Callable[[scg.Graph, scg.Node], list[scg.Node]]


def chain(g: scg.Graph, x: scg.Node) -> list[scg.Node]:
    """x -> z0 -> z1 -> z2, by one network."""
    net, nodes = nn.Linear(2, 2), [x]
    for index in range(3):
        nodes.append(g.sample(f"z{index}", Bernoulli, logits=g.det(f"m{index}", net, nodes[-1])))
    return nodes[1:]


def diamond(g: scg.Graph, x: scg.Node) -> list[scg.Node]:
    """z0 -> (z1, z2) -> cost, in which the slice of z0 goes on as neither of the others."""
    z0 = g.sample("z0", Bernoulli, logits=x * g.param("t", 0.3))
    z1 = g.sample("z1", Bernoulli, logits=g.param("u", 0.5) - z0)
    z2 = g.sample("z2", Bernoulli, logits=0.7 * z0 + g.param("v", -0.2))
    return [z0, z1 * z2]


def through_a_normal(g: scg.Graph, x: scg.Node) -> list[scg.Node]:
    """z0 -> h -> z1, with a continuous draw on the way."""
    z0 = g.sample("z0", Bernoulli, logits=x * g.param("t", 0.3))
    h = g.sample("h", Normal, loc=z0 - 0.5, scale=0.5)
    return [z0, g.sample("z1", Bernoulli, logits=h + g.param("u", 0.1))]


def scored(g: scg.Graph, x: scg.Node) -> list[scg.Node]:
    """z0 -> z1, whose log-probability reads what lies between."""
    z0 = g.sample("z0", Bernoulli, logits=x * g.param("t", 0.3))
    z1 = g.sample("z1", Bernoulli, logits=1.5 * z0 + g.param("u", -0.4))
    return [z0, (g.log_prob(z1) + z1.sum(-1))[..., None]]


def program(build: Build, policy: str, samples: int | None, *, is_full: bool) -> scg.Program:
    """Compile; a cost that reads the first node as well, times 0, has a slice of it written in full."""
    torch.manual_seed(0)
    g = scg.Graph()
    nodes = build(g, g.input("x", plates="batch", example=torch.linspace(-1, 1, 6).view(3, 2)))
    first, last = nodes[0], nodes[-1]
    loss = ((last - 0.4) ** 2).sum(-1)
    g.cost("loss", loss + 0.0 * first.sum(-1) if is_full else loss)
    return awake(scg.compile(g, policy={"z*": policy}, samples=samples))


@pytest.mark.parametrize("samples", [None, 2])
@pytest.mark.parametrize("policy", ["rebar", "relax"])
@pytest.mark.parametrize("build", [chain, diamond, through_a_normal, scored], ids=label)
def test_a_slice_that_goes_on_is_one_written_in_full(build: Build, policy: str, samples: int | None) -> None:
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    found, expected = (
        gradients(program(build, policy, samples, is_full=is_full), x=x, seed=3) for is_full in (False, True)
    )
    assert found.keys() == expected.keys() and found
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], msg=lambda m, name=name: f"{name}: {m}")


def averaged(g: scg.Graph, x: scg.Node) -> list[scg.Node]:
    """z0 -> its mean over the plate -> z1, so that elements of z0 have other costs than those of z1."""
    z0 = g.sample("z0", Bernoulli, logits=x * g.param("t", 0.3))
    m = g.det("m", lambda z: z.mean(0, keepdim=True).expand_as(z) - 0.3, z0, mixes=("batch",))
    return [z0, g.sample("z1", Bernoulli, logits=m)]


def skipping(g: scg.Graph, x: scg.Node) -> list[scg.Node]:
    """z0 -> z1, and what lies below z1 reads z0 as well."""
    z0 = g.sample("z0", Bernoulli, logits=x * g.param("t", 0.3))
    z1 = g.sample("z1", Bernoulli, logits=1.5 * z0 + g.param("u", -0.4))
    return [z0, z1 * z0 + z1]


@pytest.mark.parametrize("build", [chain, diamond, averaged, skipping], ids=label)
def test_going_on_is_a_matter_of_length_alone(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(1))
    found = gradients(program(build, "rebar", None, is_full=False), x=x, seed=3)
    monkeypatch.setattr(slices, "_goes_on", lambda *_: False)
    expected = gradients(program(build, "rebar", None, is_full=False), x=x, seed=3)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=lambda m, name=name: f"{name}: {m}")


def estimate(cost: Callable[[Tensor], Tensor], hard: Tensor, u: Tensor, w: Tensor, heat: float) -> Tensor:
    """REBAR at a bit of logit 0.3 by its formula, with a relaxed cost below it and a hard one."""
    logit = torch.tensor(0.3, dtype=torch.double, requires_grad=True)
    z = logit + u.logit()
    sign = 2 * (z > 0).double() - 1
    again = sign * (torch.log1p(w * torch.exp(sign * logit)) - torch.log1p(-w))
    soft, soft_again = (cost(torch.sigmoid(x / heat)) for x in (z, again))
    (path,) = torch.autograd.grad(soft - soft_again, logit)
    return path + (hard - soft_again).detach() * ((z > 0).double() - torch.sigmoid(logit)).detach()


@pytest.mark.parametrize("u", [0.25, 0.8])
@pytest.mark.parametrize("kind", ["bit", "normal"])
def test_what_lies_below_is_drawn_from_the_noise_of_the_run(kind: str, u: float) -> None:
    """A bit is relaxed there, at the temperature of the node above, and a normal number is moved."""
    noise = {"b": u, "b.1": 0.35, "y": 0.7}
    heat, given = 0.8, {name: torch.tensor(value).double() for name, value in noise.items()}
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("t", torch.tensor(0.3, dtype=torch.double)))
    y = (
        g.sample("y", Bernoulli, logits=1.5 * b - 0.4)
        if kind == "bit"
        else g.sample("y", Normal, 1.5 * b, 0.5)
    )
    g.cost("c", (y - 0.2) ** 3)

    def below(value: Tensor) -> Tensor:
        if kind == "normal":
            return (1.5 * value + 0.5 * given["y"] - 0.2) ** 3
        return (torch.sigmoid((1.5 * value - 0.4 + given["y"].logit()) / heat) - 0.2) ** 3

    drawn = (given["b"].logit() + 0.3 > 0).double()
    bit = (1.5 * drawn - 0.4 + given["y"].logit() > 0).double()
    hard = (bit - 0.2) ** 3 if kind == "bit" else below(drawn)
    program = scg.compile(
        g, {"b": scg.REBAR(temperature=heat), "y": "reparam" if kind == "normal" else "score"}
    )
    program(noise=given).loss.backward()
    expected = estimate(below, hard, given["b"], given["b.1"], heat)
    torch.testing.assert_close(program.t.grad, expected, rtol=1e-9, atol=0.0)


def test_a_chain_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    emit = slices.emit_record

    def noted(world: slices.World, record: slices.Record) -> None:
        if not world.is_program:
            written.append(record.name)
        emit(world, record)

    monkeypatch.setattr(slices, "emit_record", noted)
    program(chain, "rebar", None, is_full=False)
    assert written.count("z2") == 1 and written.count("z1") == 1


def test_a_chain_of_slices_is_compiled_by_torch() -> None:
    x = torch.linspace(-1, 1, 6).view(3, 2)
    plain = program(chain, "rebar", None, is_full=False)
    expected = gradients(plain, x=x, seed=3)
    plain.compile(backend="aot_eager")
    for _ in range(2):
        found = gradients(plain, x=x, seed=3)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name])


def test_a_long_chain_is_evaluated_in_proportion_to_its_length() -> None:
    calls = [0]

    def step(z: Tensor) -> Tensor:
        calls[0] += 1
        return 0.5 - z

    def count(nodes: int) -> int:
        calls[0], g = 0, scg.Graph()
        z = g.param("t", torch.zeros(2))
        for index in range(nodes):
            z = g.sample(f"z{index}", Bernoulli, logits=g.det(f"m{index}", step, z))
        g.cost("loss", (z**2).sum(-1))
        scg.compile(g, policy="rebar")
        return calls[0]

    few, more, most = map(count, (6, 12, 18))
    assert most - more == more - few
