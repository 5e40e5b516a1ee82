"""Guards: a factory that makes another law than its program was compiled for is told so by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import constraints

import scg
from scg.laws import law_of


class Setting:
    """What the factories below read besides their parents."""

    number: float = 1.0
    dist: Any = td.Normal
    mode: str = "wide"


class Own(td.Distribution):
    """A normal with a width that is a number, and a mode."""

    arg_constraints = {"loc": constraints.real}
    support = constraints.real

    def __init__(
        self, loc: Tensor, width: float = 1.0, style: str = "wide", validate_args: Any = None
    ) -> None:
        self.loc, self.width, self.style = loc, width, style
        super().__init__(loc.shape, validate_args=False)

    @property
    def _normal(self) -> td.Normal:
        return td.Normal(self.loc, self.width if self.style == "wide" else self.width / 2)

    def log_prob(self, value: Tensor) -> Tensor:
        return self._normal.log_prob(value)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self._normal.sample(sample_shape)


class Hidden(Own):
    """Keeps an argument under another name, so that it cannot be made again."""

    def __init__(self, loc: Tensor, power: float = 1.0) -> None:
        super().__init__(loc)
        self._exponent = power


class Scaled(td.Normal):
    """Keeps an argument other than it was given."""

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: Any = None) -> None:
        super().__init__(loc, 2 * scale, validate_args=False)


class Stretch(td.Transform):
    """A transform with a number; it has no equality of its own."""

    bijective = True
    domain = codomain = constraints.real

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def _call(self, x: Tensor) -> Tensor:
        return x * self.by

    def _inverse(self, y: Tensor) -> Tensor:
        return y / self.by

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.full_like(x, self.by).log()


def image(mu: Tensor, transform: td.Transform) -> td.Distribution:
    return td.TransformedDistribution(td.Normal(mu, 1.0), [transform])


SETTINGS = Setting()
"""An object: torch 2.11 compiles what a class holds as a constant."""
FACTORIES: dict[str, Any] = {
    "affine": lambda mu: image(mu, td.AffineTransform(0.0, SETTINGS.number)),
    "own transform": lambda mu: image(mu, Stretch(SETTINGS.number)),
    "own number": lambda mu: Own(mu, SETTINGS.number),
    "own mode": lambda mu: Own(mu, style=SETTINGS.mode),
    "class": lambda mu: SETTINGS.dist(mu, 1.0),
    "nested": lambda mu: td.Independent(image(mu, td.AffineTransform(0.0, SETTINGS.number)), 0),
}
CHANGES = {"number": 2.0, "mode": "narrow", "dist": td.Laplace}
CHANGED = {"own mode": "mode", "class": "dist"}


def graph_of(factory: Any, kind: str) -> scg.Graph:
    g = scg.Graph()
    mu = g.param("mu", torch.tensor([0.3, 0.1, -0.2]), plates="p" if kind == "plate" else ())
    if kind == "density":
        x = g.sample("x", td.Normal, mu, 1.0)
        g.cost("c", g.log_prob(factory, x, mu))
    else:
        g.cost("c", lambda z: z if kind == "plate" else z.sum(-1), g.sample("z", factory, mu))
    return g


@pytest.mark.parametrize("kind", ["plate", "event", "replicates", "density"])
@pytest.mark.parametrize("name", FACTORIES)
def test_another_law_is_refused_by_name(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = scg.compile(graph_of(FACTORIES[name], kind), samples=3 if kind == "replicates" else None)
    for seed in range(2):
        program(seed=seed).loss.backward()
    key = CHANGED.get(name, "number")
    monkeypatch.setattr(SETTINGS, key, CHANGES[key])
    node = "log_prob_1" if kind == "density" else "z"
    with pytest.raises(scg.GraphError, match=f"'{node}' .*its factory made a .*compiled for.*g.input"):
        program(seed=2)


def test_a_choice_by_a_value_is_refused_when_it_changes() -> None:
    g = scg.Graph()
    n = g.input("n", example=torch.tensor(1.0))
    g.cost("c", g.sample("z", lambda n: td.Normal(n, 1.0) if n > 0 else td.Laplace(n, 1.0), n))
    program = scg.compile(g)
    program(n=torch.tensor(2.0), seed=0)
    with pytest.raises(scg.GraphError, match="'z' .*made a Laplace, but .*compiled for a Normal"):
        program(n=torch.tensor(-1.0), seed=0)


def test_numbers_that_are_tensors_are_live(monkeypatch: pytest.MonkeyPatch) -> None:
    program = scg.compile(
        graph_of(lambda mu: image(mu, td.AffineTransform(0.0, torch.tensor(SETTINGS.number))), "event")
    )
    before = program(seed=0).samples["z"]
    monkeypatch.setattr(SETTINGS, "number", 2.0)
    torch.testing.assert_close(program(seed=0).samples["z"], 2 * before)


def test_a_count_within_the_example_is_live_and_one_beyond_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SETTINGS, "number", 3)
    program = scg.compile(graph_of(lambda mu: td.Binomial(SETTINGS.number, logits=mu), "plate"))
    assert program.policy["z"].name == "enumerate"
    monkeypatch.setattr(SETTINGS, "number", 2)
    program(seed=0).loss.backward()
    torch.testing.assert_close(program.mu.grad, 2 * td.Bernoulli(logits=program.mu).variance.detach() / 3)
    monkeypatch.setattr(SETTINGS, "number", 6)
    with pytest.raises(scg.GraphError, match=r"'z' .*total_count over 3.*total_count=node"):
        program(seed=0)


@pytest.mark.usefixtures("compiling")
@pytest.mark.parametrize("name", ["affine", "class", "own number"])
def test_guards_hold_in_what_is_compiled(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = scg.compile(graph_of(FACTORIES[name], "plate")).compile(backend="eager")
    if name == "own number" and torch.__version__ < "2.12":
        pytest.skip("torch cannot compile classes of distributions that it does not know")
    noise = program.draw_noise(0)
    for _ in range(2):
        program(noise=noise)
    key = CHANGED.get(name, "number")
    monkeypatch.setattr(SETTINGS, key, CHANGES[key])
    with pytest.raises(scg.GraphError, match="'z' .*its factory made a .*compiled for"):
        program(noise=noise)


def test_arguments_outside_arg_constraints_are_kept() -> None:
    law, parameters = law_of(Own(torch.zeros(2), 3.0, "narrow"))
    again = law.distribution(parameters)
    assert isinstance(again, Own) and (again.width, again.style) == (3.0, "narrow")
    assert (
        law == law_of(Own(torch.ones(2), 3.0, "narrow"))[0] != law_of(Own(torch.zeros(2), 2.0, "narrow"))[0]
    )


@pytest.mark.parametrize(
    ("dist", "lost"),
    [(Hidden(torch.zeros(2), 2.0), "_exponent"), (Scaled(torch.zeros(2), torch.ones(2)), "scale")],
)
def test_arguments_that_cannot_be_kept_are_refused_by_name(dist: td.Distribution, lost: str) -> None:
    with pytest.raises(scg.GraphError, match=f"loses '{lost}'.*keep every argument under its own name"):
        law_of(dist)


def test_a_factory_of_discrete_laws_is_guarded_in_slices_as_well() -> None:
    """The law that is relaxed there is another than the one the factory makes."""
    g = scg.Graph()
    above = g.sample("above", td.Bernoulli, logits=g.param("w", torch.tensor(0.3)))
    below = g.sample("below", lambda h: td.Categorical(logits=torch.stack([h, -h, 0 * h], -1)), above)
    read = g.det("read", lambda k: (k == 1).float(), below, relaxed=lambda soft: soft[..., 1])
    g.cost("c", read**2)
    program = scg.compile(g, {"above": "rebar", "below": "score"})
    program(seed=0).loss.backward()
    assert program.w.grad is not None
