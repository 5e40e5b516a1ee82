"""Noise by name: no name of a node meets a name that the compiler makes, and every noise is drawn anew."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Normal, Poisson

import scg
from scg.estimators.protocol.site import Site
from scg.noise import substream
from scg.oracle import exact_gradient
from tests.support.running import gradients

SEEN: list[tuple[Tensor, ...]] = []
RATES = torch.full((50,), 5.0)


@dataclass(frozen=True, eq=False)
class Noisy(scg.Scored):
    """The score, with three noises that it keeps for the test."""

    name: ClassVar[str] = "noisy"
    kind: str = "base"

    def refuses(self, facts: scg.NodeFacts) -> scg.Refusal | None:
        return None

    def asks(self, facts: scg.NodeFacts) -> scg.Asks:
        return scg.Asks(fresh=(self.kind,) * 3)

    def baseline(self, site: Site) -> Tensor:
        SEEN.append((site.noise, *(site.fresh_noise(index) for index in range(3))))
        return torch.zeros(())


@pytest.mark.parametrize("kind", ["base", "normal"])
@pytest.mark.parametrize("samples", [None, 3])
@pytest.mark.parametrize("seed", [None, 4])
def test_fresh_noises_are_independent(seed: int | None, samples: int | None, kind: str) -> None:
    g = scg.Graph()
    z = g.sample("z", Normal, g.param("m", torch.zeros(4096)), 1.0)
    g.cost("c", (z**2).sum())
    program = scg.compile(g, Noisy(kind), samples=samples)
    SEEN.clear()
    program(seed=seed)
    drawn = torch.stack([noise.flatten() for noise in SEEN[-1]])
    assert drawn.shape == (4, 4096 * (samples or 1))
    z = (drawn @ drawn.mT / drawn.shape[1] - torch.eye(4)) * drawn.shape[1] ** 0.5
    assert float(z.abs().max()) < 5.0


def test_what_given_noise_lacks_is_not_drawn_like_what_it_has() -> None:
    g = scg.Graph()
    z = g.sample("z", Normal, g.param("m", torch.zeros(8)), 1.0)
    g.cost("c", (z**2).sum())
    program = scg.compile(g, Noisy("normal"))
    noise = program.draw_noise(4)
    for name in [name for name in noise if name != "z"]:
        del noise[name]
    SEEN.clear()
    program(noise=noise)
    one, *fresh = SEEN[-1]
    assert torch.equal(one, noise["z"]) and not any(torch.allclose(one, other) for other in fresh)


def test_fresh_noise_of_what_has_no_base_noise_is_refused() -> None:
    g = scg.Graph()
    g.cost("c", g.sample("n", Poisson, g.param("rate", 2.0)))
    with pytest.raises(scg.EstimatorError, match=r"'n'.*a Poisson has no base noise.*site\.distribution"):
        scg.compile(g, Noisy())


def counts(*names: str) -> dict[str, Tensor]:
    """The values of Poisson nodes of these names, for one seed."""
    g = scg.Graph()
    for name in names:
        g.sample(name, Poisson, RATES)
    return scg.compile(g)(seed=1).samples


def same_low_words() -> tuple[str, str]:
    """Two names whose streams agree in the 32 bits that torch's own seeding of a CPU keeps."""
    found: dict[int, str] = {}
    for index in range(1_000_000):
        low = substream(1, f"n{index}") & (2**32 - 1)
        if low in found:
            return found[low], f"n{index}"
        found[low] = f"n{index}"
    raise AssertionError("no such names")


def test_names_that_some_hash_confuses_have_draws_of_their_own() -> None:
    assert zlib.crc32(b"plumless") == zlib.crc32(b"buckeroo")
    for one, other in (("plumless", "buckeroo"), same_low_words()):
        drawn = counts(one, other)
        assert not torch.equal(drawn[one], drawn[other])


def recorded(program: scg.Program, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The streams that one run draws values from."""
    seen: list[str] = []

    def noted(seed: int, stream: str) -> int:
        seen.append(stream)
        return substream(seed, stream)

    monkeypatch.setattr("scg.surrogate.runtime.ops.substream", noted)
    program(seed=0)
    return seen


@pytest.mark.parametrize("kind", ["branches", "below"])
def test_draws_of_other_worlds_have_streams_that_no_node_has(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(policy: Any) -> scg.Program:
        g = scg.Graph()
        b = g.sample("b", Bernoulli, logits=g.param("t", torch.tensor(0.3)))
        z = g.sample("z", Poisson, 1 + b + g.param("rate", 2.0))
        other = g.sample(f"z_{kind}", Poisson, 1 + b)
        g.cost("c", 0.1 * z * other)
        return scg.compile(g, {"b": policy, "z*": "score"})

    seen = recorded(
        build("enumerate" if kind == "branches" else scg.Score(baseline="self-critical")), monkeypatch
    )
    assert len(seen) == len(set(seen)) == 4
    assert {stream for stream in seen if stream.isidentifier()} == {"z", f"z_{kind}"}


ENDINGS = (
    "_noise _standard _fresh_1 _law _branches _below _relaxed _site _relax _score _credit _drawn _mass "
    "_log_prob"
).split()
BEGINNINGS = ("full_", "held_", "size_", "made_", "loop_", "fold_", "vmap_")


def graph(rename: dict[str, str]) -> scg.Graph:
    """Three stochastic nodes of other names, laws from factories and a batch along which values repeat."""
    torch.manual_seed(0)

    def of(name: str) -> str:
        return rename.get(name, name)

    g = scg.Graph()
    x = g.input(of("x"), plates="batch", example=torch.linspace(-1, 1, 3).double())
    a = g.sample(of("a"), Bernoulli, logits=g.param(of("t"), torch.tensor(0.3).double()))
    m = g.det(of("m"), lambda a, x: 0.5 * a + x, a, x)
    b = g.sample(of("b"), lambda m: Bernoulli(logits=m), m)
    z = g.sample(of("z"), lambda m: Independent(Bernoulli(logits=torch.stack([m, -m], -1)), 1), m)
    k = g.det(of("k"), lambda b, z: b + z.sum(-1), b, z)
    g.cost(of("c"), lambda k, x, a: (k - 0.4 * x) ** 2 + a, k, x, a)
    return g


POLICIES: dict[str, Any] = {
    "enumerate": "enumerate",
    "relax": "relax",
    "below": scg.Score(baseline="self-critical"),
}


def renamings() -> list[dict[str, str]]:
    taken = [f"{name}{ending}" for name in "abz" for ending in ENDINGS]
    found = [dict(zip("xtmkc", taken[start:], strict=False)) for start in range(0, len(taken), 5)]
    found += [
        {"a": f"{beginning}b", "z": f"{beginning}m", "m": "b_noise", "k": "m_noise", "x": "b_standard"}
        for beginning in BEGINNINGS
    ]
    return [
        *found,
        {"a": "size_batch", "b": "batch_noise", "z": "batch", "m": "temperature", "k": "Bernoulli_draw"},
    ]


@pytest.mark.parametrize("policy", POLICIES)
def test_what_nodes_are_called_changes_nothing(policy: str) -> None:
    x = torch.linspace(-1, 1, 4).double()
    plain = scg.compile(graph({}), POLICIES[policy])
    expected = gradients(plain, x=x, seed=3)["t"]
    values = plain(x=x, seed=3).samples
    for rename in renamings():
        program = scg.compile(graph(rename), POLICIES[policy])
        given = {rename.get("x", "x"): x}
        found = gradients(program, **given, seed=3)[rename.get("t", "t")]
        assert torch.allclose(found, expected, atol=1e-12), rename
        drawn = program(**given, seed=3).samples
        assert all(torch.equal(drawn[rename.get(name, name)], value) for name, value in values.items()), (
            rename
        )
    if policy == "enumerate":
        assert torch.allclose(expected, exact_gradient(graph({}), x=x)["t"])


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, -(2**80), np.int64(7), np.uint64(2**63 + 5), np.int8(-3)])
def test_seeds_are_any_integers(seed: Any) -> None:
    program = scg.compile(graph({}), "rebar")
    x = torch.zeros(3).double()
    one, other = program(x=x, seed=seed), program(x=x, noise=program.draw_noise(int(seed), x=x))
    assert all(torch.equal(one.samples[name], value) for name, value in other.samples.items())
    assert torch.equal(one.loss, other.loss)


@pytest.mark.parametrize(
    ("policy", "backend", "more"),
    [("score", "inductor", ()), ("relax", "eager", (np.int64(-5), np.int32(9), 2**63))],
)
def test_seeds_mean_the_same_where_the_whole_program_is_compiled(
    policy: str, backend: str, more: tuple[Any, ...], compiling: None
) -> None:
    """In two compilations for all seeds of 64 bits."""
    torch.manual_seed(0)
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.randn(4, 3))
    b = g.sample("b", Bernoulli, logits=g.det("encoder", nn.Linear(3, 2), x))
    z = g.sample("z", Normal, b - 0.3, 1.0)
    g.cost("c", ((b - 0.4) ** 2).sum(-1) + (z**2).sum(-1))
    program = scg.compile(g, {"b": policy, "z": "reparam"})
    whole, x = torch.compile(program, fullgraph=True, backend=backend), torch.randn(4, 3)
    for seed in (3, 4, 5, 0, -1, 6, 2**62, -(2**63), 2**63 - 1, 7, 8, *more):
        expected, found = program(x=x, seed=seed), whole(x=x, seed=seed)
        assert torch.equal(found.samples["b"], expected.samples["b"])
        assert torch.allclose(found.samples["z"], expected.samples["z"], atol=1e-6)
        assert torch.allclose(found.loss, expected.loss, atol=1e-5)


def test_values_that_are_drawn_have_streams_of_their_own_and_leave_torch_alone() -> None:
    g = scg.Graph()
    rate = torch.full((30,), 5.0)
    one, other = (g.sample(name, Poisson, rate) for name in ("one", "other"))
    g.cost("c", one.sum(-1) + other.sum(-1))
    program = scg.compile(g, "score")
    before = torch.get_rng_state()
    samples = program(seed=3).samples
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(samples["one"], samples["other"])
