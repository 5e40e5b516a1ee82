"""Verify: right programs are called unbiased, wrong ones biased, and what cannot be told is said."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Normal, Poisson, Uniform

import scg
from scg.__main__ import main
from scg.laws import is_transformed
from scg.noise import NoiseSpec
from scg.verification.draws import _batched, _looped, controls_still, drawer
from scg.verification.noises import tilted
from scg.verification.sequential import quantile
from scg.verification.trial import trial
from tests.selection import EVERYTHING


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@dataclass(frozen=True)
class Wrong(scg.Cut):
    """The score, times a number."""

    name: ClassVar[str] = "wrong"

    scale: float = 0.98

    def refuses(self, facts: scg.NodeFacts) -> scg.Refusal | None:
        return None

    def gradient(self, site: scg.Site) -> dict[str, Tensor]:
        found = site.score(site.value, site.credit)
        return {name: self.scale * part for name, part in found.items()}


def toy() -> scg.Graph:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", 0.3))
    g.cost("f", (b - 0.1) ** 2)
    return g


def rare() -> scg.Graph:
    g = scg.Graph()
    k = g.sample("k", Categorical, logits=g.param("theta", torch.tensor([0.01, 0.09, 0.9]).log()))
    g.cost("f", lambda k: (k == 0) * 10.0 + (k == 1) * 1.0 + (k == 2) * 0.1, k)
    return g


def coin(p: float = 0.001) -> scg.Graph:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", math.log(p / (1 - p))))
    g.cost("f", b * 100.0)
    return g


def heavy() -> scg.Graph:
    g = scg.Graph()
    z = g.sample("z", Normal, g.param("mu", 0.3), 1.0)
    g.cost("f", torch.exp(z))
    return g


def chain() -> scg.Graph:
    """Bits below bits for each of three elements, through a module."""
    torch.manual_seed(0)
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.tensor([0.3, -0.8, 0.5]))
    b = g.sample("b", Bernoulli, logits=g.det("h", nn.Linear(1, 2), x[..., None]))
    y = g.sample("y", Bernoulli, logits=g.det("m", nn.Linear(2, 2), b))
    g.cost("c", lambda b, y: (b.sum(-1) - 0.3) ** 2 + (y * b).sum(-1), b, y)
    return g


CASES: dict[str, tuple[Callable[[], scg.Graph], Any]] = {
    "toy score": (toy, "score"),
    "toy rebar": (toy, "rebar"),
    "toy relax": (toy, "relax"),
    "toy parts": (toy, {"b": scg.Parts({"f": "disarm"})}),
    "rare": (rare, "score"),
    "coin": (coin, "score"),
    "heavy score": (heavy, "score"),
    "heavy lax": (heavy, "lax"),
    "heavy reparam": (heavy, "reparam"),
    "chain rebar": (chain, "rebar"),
    "chain score": (chain, scg.Score(baseline="moving-average")),
}


@pytest.mark.parametrize("case", CASES)
def test_right_programs_are_seldom_called_biased(case: str) -> None:
    make, policy = CASES[case]
    program = scg.compile(make(), policy)
    seeds, resolution = (1000, 0.05 if case == "toy score" else 0.3) if EVERYTHING else (10, 0.3)
    found = [scg.verify(program, resolution=resolution, noise=seed, draws=2**18) for seed in range(seeds)]
    words = [one.verdict for one in found]
    assert words.count("biased") <= max(0.02 * seeds, 1)
    assert words.count("biased") >= 0.003 * seeds or not EVERYTHING or case != "toy score"
    assert words.count("unbiased") >= 0.9 * seeds
    assert {one.reference for one in found} == {"the exact gradient"}


def moving() -> scg.Graph:
    """A uniform number whose support moves, which the score function cannot have, above a bit."""
    g = scg.Graph()
    u = g.sample("u", Uniform, 0.0, g.det("end", torch.exp, g.param("theta", 0.3)))
    b = g.sample("b", Bernoulli, logits=u)
    g.cost("f", u**2)
    g.cost("g", u + b)
    return g


def test_a_program_in_parts_is_not_held_against_itself() -> None:
    parts = scg.Parts({"f": "reparam", "g": "reparam"})
    with pytest.raises(scg.GraphError, match="nothing to hold this program against"):
        scg.verify(scg.compile(moving(), {"u": parts, "b": "score"}))
    found = scg.verify(scg.compile(moving(), {"u": parts, "b": "rebar"}), resolution=0.3, draws=2**12)
    assert "; u as they are" in found.reference and found.verdict != "biased"


def test_a_parameter_whose_gradient_cancels_up_to_rounding_is_not_called_biased() -> None:
    """The bias before BatchNorm has no gradient, and float32 leaves it a little that is the same each run."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.randn(16, 3))
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    b = g.sample("b", Bernoulli, logits=g.det("h", net, x, mixes="batch"))
    g.cost("c", lambda b: (b.sum(-1) - 1.3) ** 2, b)
    found = scg.verify(scg.compile(g, "score"), resolution=0.3, draws=2**11)
    assert found.verdict != "biased", str(found)


def test_an_error_of_scale_is_found() -> None:
    program = scg.compile(toy(), Wrong())
    seeds = 200 if EVERYTHING else 3
    found = [scg.verify(program, resolution=0.02, noise=seed) for seed in range(seeds)]
    assert sum(one.verdict == "biased" for one in found) >= 0.9 * seeds
    assert abs(found[0].scale.value - 0.98) < 0.01  # type: ignore[union-attr]
    assert not found[0]


def test_an_error_of_one_entry_is_found_and_named() -> None:
    @dataclass(frozen=True)
    class Off(Wrong):
        name: ClassVar[str] = "off"

        def gradient(self, site: scg.Site) -> dict[str, Tensor]:
            found = site.score(site.value, site.credit)
            bias = torch.zeros_like(found["logits"])
            bias[..., 1] = 0.05
            return {"logits": found["logits"] + bias}

    found = scg.verify(scg.compile(chain(), {"b": Off(), "y": "enumerate"}))
    assert found.verdict == "biased"
    worst = min(found.parameters, key=lambda name: found.parameters[name].p_value)
    assert worst.startswith("h.")
    assert found.parameters["h.bias"].entry == (1,)


def test_the_score_is_the_reference_where_nothing_is_exact() -> None:
    def wide() -> scg.Graph:
        g = scg.Graph()
        b = g.sample("b", Bernoulli, logits=g.param("theta", torch.linspace(-1, 1, 40)))
        z = g.sample("z", Normal, b.sum(-1) * 0.1, g.param("s", 0.5))
        g.cost("f", lambda b, z: (b.sum(-1) - 20) ** 2 / 40 + z**2, b, z)
        return g

    right = scg.verify(scg.compile(wide(), {"b": "rebar", "z": "reparam"}), resolution=0.2)
    assert right.verdict == "unbiased"
    assert right.reference.startswith("the score function on the same graph")
    wrong = scg.verify(scg.compile(wide(), {"b": Wrong(scale=0.6), "z": "reparam"}), resolution=0.2)
    assert wrong.verdict == "biased"
    with pytest.raises(scg.GraphError, match="nothing to hold this program against"):
        scg.verify(scg.compile(wide(), "score"))


def noisy() -> scg.Graph:
    """Many bits whose score varies so much that its mean over few runs points anywhere."""
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", torch.linspace(-1, 1, 40)))
    z = g.sample("z", Normal, b.sum(-1) * 0.1, 0.5)
    g.cost("f", lambda b, z: (b.sum(-1) - 20) ** 2 / 40 + z**2 + 30, b, z)
    return g


def test_what_is_beside_a_reference_that_noise_hides_is_not_called_small() -> None:
    wrong = scg.compile(noisy(), {"b": Wrong(scale=0.6), "z": "reparam"})
    found = scg.verify(wrong, resolution=0.2, draws=2**13)
    assert found.verdict == "undecided"
    assert found.reason.startswith("the reference for theta is not told from 0")
    assert found.scale is None


def test_the_length_is_that_of_the_reference_and_not_of_what_it_is_beside() -> None:
    programs = [scg.compile(noisy(), {"b": Wrong(scale), "z": "reparam"}) for scale in (0.01, 1.0)]
    small, right = (trial(program, {}, ["theta"], 0) for program in programs)
    assert torch.allclose(small.gradient, right.gradient)


def test_what_is_verified_is_left_as_it_was() -> None:
    program = scg.compile(chain(), scg.Score(baseline="moving-average"))
    x = torch.tensor([0.3, -0.8, 0.5])
    program(x=x, seed=0).loss.backward()
    state = {name: value.clone() for name, value in program.state_dict().items()}
    grads = {name: p.grad.clone() for name, p in program.named_parameters()}
    generator = torch.get_rng_state()
    first = scg.verify(program, resolution=0.3, x=x)
    assert scg.verify(program, resolution=0.3, x=x) == first
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, state[name]) for name, value in program.state_dict().items())
    assert all(torch.equal(p.grad, grads[name]) for name, p in program.named_parameters())
    assert all(part.training for part in program.controls.modules())


@pytest.mark.parametrize("policy", ["score", "rebar", "relax", "disarm", "local", "enumerate"])
def test_many_gradients_at_once_are_those_of_single_runs(policy: str) -> None:
    program = scg.compile(chain(), policy, samples=2)
    x = torch.tensor([0.3, -0.8, 0.5])
    names = [name for name, _ in program.named_parameters() if not name.startswith("controls.")]
    several = [program.draw_noise(seed, x=x) for seed in range(8)]
    noise = {name: torch.stack([one[name] for one in several]) for name in several[0]}
    with controls_still(program):
        one, many = (fn(program, {"x": x}, names, noise) for fn in (_looped, _batched))
        assert drawer(program, {"x": x}, names, noise).is_batched
    assert torch.allclose(many, one, rtol=1e-12, atol=1e-12)


def test_rare_outcomes_are_those_of_the_parameters_as_they_are_now() -> None:
    """Not those of the example: training may have made one rare that was not."""
    program = scg.compile(coin(0.5), "score")
    now = trial(program, {}, ["theta"], 0).rare.probability
    with torch.no_grad():
        program.theta.fill_(-12.0)
    assert trial(program, {}, ["theta"], 0).rare.probability < 0.5 * now


def test_a_program_is_verified_at_the_parameters_that_it_has() -> None:
    """They need not be those of its graph any more."""
    program = copy.deepcopy(scg.compile(toy(), "score"))
    program.load_state_dict({"theta": torch.tensor(-2.0)}, assign=True)
    found = scg.verify(program, resolution=0.3)
    assert found.verdict == "unbiased"
    p = torch.sigmoid(torch.tensor(-2.0))
    assert found.parameters["theta"].reference == pytest.approx(float(0.8 * p * (1 - p)))


def test_a_look_that_comes_too_early_spends_nothing() -> None:
    """The first that counts is at the level of the first, and so is the bias that it would have shown."""
    found = scg.verify(scg.compile(coin(), "score"), resolution=0.9)
    assert found.verdict == "unbiased"
    assert found.draws > 1024
    error = (found.scale.high - found.scale.value) / quantile(0.01 / 2)  # type: ignore[union-attr]
    assert found.detectable == pytest.approx(error * (quantile(0.01 / 2 / 2) + quantile(0.05)))


class Different(nn.Module):
    """A program whose runs leave twice their gradient where torch transforms them."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(0.3))

    def forward(self, noise: dict[str, Tensor]) -> SimpleNamespace:
        scale = 2.0 if is_transformed() else 1.0
        return SimpleNamespace(loss=scale * self.theta * noise["u"])


def test_gradients_of_many_are_believed_where_they_are_those_of_one_at_a_time() -> None:
    noise = {"u": torch.tensor([0.2, 0.7, 0.4, 0.9])}
    found = drawer(Different(), {}, ["theta"], noise)
    assert not found.is_batched
    assert torch.allclose(found(noise)[:, 0], noise["u"])


def test_functions_that_cannot_be_batched_are_looped() -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", 0.3))
    g.cost("f", lambda b: torch.as_tensor((b.numpy() - 0.1) ** 2), b, differentiable=False)
    found = scg.verify(scg.compile(g, "score"), resolution=0.9, draws=2048)
    assert found.verdict == "unbiased"


def test_values_without_base_noise_are_drawn_for_every_run() -> None:
    g = scg.Graph()
    n = g.sample("n", Poisson, g.param("rate", 2.0))
    k = g.sample("k", Bernoulli, logits=n * g.param("w", 0.1))
    g.cost("f", n * 0.1 + k)
    found = scg.verify(scg.compile(g, {"n": "score", "k": "enumerate"}), resolution=0.6, draws=1024)
    assert found.verdict == "unbiased"
    assert "the score function" in found.reference


def test_weights_make_up_for_what_noise_is_sought() -> None:
    specs = {
        "u": NoiseSpec("u", "uniform", (2,), torch.float64),
        "z": NoiseSpec("z", "normal", (), torch.float64),
    }
    found = tilted(specs, 400_000, torch.Generator().manual_seed(0))
    assert float(found.weights.min()) > 0
    assert float(found.weights.max()) <= 2
    assert torch.allclose(found.weights.mean(), torch.tensor(1.0), atol=0.01)
    for value, mean in ((found.noise["u"][:, 1], 0.5), (found.noise["z"] ** 2, 1.0)):
        assert abs(float((found.weights * value).mean()) - mean) < 0.02
    met = (found.weights * (found.noise["u"][:, 0] < 1e-5)).mean()
    assert abs(float(met) - 1e-5) < 1e-6


def test_the_command_exits_by_its_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.py").write_text(
        "import scg\nfrom torch.distributions import Bernoulli\n\n\ndef graph():\n    g = scg.Graph()\n"
        "    b = g.sample('b', Bernoulli, logits=g.param('theta', 0.3))\n    g.cost('f', (b - 0.1) ** 2)\n"
        "    return g\n"
    )
    place = f"{tmp_path / 'model.py'}:graph"
    assert main(["verify", place, "--policy", "score"]) == 0
    assert capsys.readouterr().out.startswith("unbiased: ")
    assert main(["verify", place, "--policy", "score", "--draws", "1024", "--resolution", "0.001"]) == 2
    assert main(["verify", f"{tmp_path / 'model.py'}:grap"]) == 1
    assert "has no 'grap'" in capsys.readouterr().err


def test_what_has_its_value_for_noise_depends_on_what_is_above_it() -> None:
    """A value that was drawn under other values above, or in another branch, would have another law."""
    g = scg.Graph()
    z = g.sample("z", Bernoulli, logits=g.param("w", torch.tensor(0.4, dtype=torch.float64)))
    y = g.sample("y", Poisson, rate=g.det("rate", lambda z: torch.exp(1.5 * z), z))
    g.cost("c", lambda z, y: (z - 0.5) * y, z, y)
    program = scg.compile(g, {"z": "enumerate", "y": "score"})
    found = scg.verify(program, resolution=0.1, draws=2**10, alpha=1e-3)
    assert found.verdict != "biased", str(found)
