"""``program.compile()`` and ``torch.compile(program)``: the same results, any batch, named errors."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Poisson

import scg
from scg.program import compiling
from scg.program.compiling import is_fixed
from tests.selection import EVERYTHING, by_turns, some
from tests.support.running import gradients, pickled

X = torch.linspace(-1.0, 1.0, 12).view(4, 3)
SETTINGS = {"scale": 1.0}


pytestmark = pytest.mark.usefixtures("compiling")


def itself(b: Tensor) -> Tensor:
    return b


def bits(fn: Callable[[Tensor], Tensor] = itself, *, example: Tensor | None = X) -> scg.Graph:
    torch.manual_seed(0)
    g = scg.Graph()
    x = g.input("x", plates="batch", example=example)
    b = g.sample("b", Bernoulli, logits=g.det("encoder", nn.Linear(3, 2), x))
    h = g.det("h", fn, b)
    g.cost("c", ((h - 0.4) ** 2).sum(-1))
    return g


BACKENDS = ("aot_eager", "inductor")
TRACED = "aot_eager" if EVERYTHING else "eager"
"""For what torch makes of Python, whatever becomes of the operations."""


def compiled(policy: Any = "rebar", **options: Any) -> scg.Program:
    return scg.compile(bits(), policy).compile(backend=TRACED, **options)


def remembering() -> scg.Score:
    return scg.Score(baseline="moving-average", normalise=True)


@pytest.mark.parametrize(("backend", "dtype"), by_turns(BACKENDS, [torch.float32, torch.float64]))
def test_averages_move_as_in_the_plain_program(backend: str, dtype: torch.dtype) -> None:
    """The gradient of a step is of the averages before it, and the next step has new ones."""
    program, plain = (scg.compile(bits(), remembering()).to(dtype) for _ in range(2))
    program.compile(backend=backend)
    for seed in range(4):
        found, expected = (gradients(p, x=X.to(dtype), seed=seed) for p in (program, plain))
        assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in expected.items())
        for name, held in plain.named_buffers():
            assert torch.allclose(program.get_buffer(name), held)
    assert float(program.get_buffer("controls.b.mass")) == pytest.approx(1 - 0.9**4)


@pytest.mark.parametrize("policy", some(["enumerate", "score"], 2))
def test_inductor_gives_what_the_plain_program_gives(policy: str) -> None:
    program, plain = scg.compile(bits(), policy).compile(), scg.compile(bits(), policy)
    plain.load_state_dict(program.state_dict())
    for seed, size in enumerate([4, 4]):
        x = torch.randn(size, 3)
        found, expected = (gradients(p, x=x, seed=seed) for p in (program, plain))
        assert found.keys() == expected.keys()
        assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in expected.items())


@pytest.mark.parametrize("policy", some(["relax", "rebar", "score"], 2))
def test_every_call_is_what_the_plain_program_gives(policy: str) -> None:
    program, plain = scg.compile(bits(), policy).compile(backend="aot_eager"), scg.compile(bits(), policy)
    plain.load_state_dict(program.state_dict())
    for seed, size in enumerate([4, 4, 5, 7, 1, 4]):
        x = torch.randn(size, 3)
        found, expected = (gradients(p, x=x, seed=seed) for p in (program, plain))
        assert found.keys() == expected.keys()
        assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in expected.items())


def scaled(b: Tensor) -> Tensor:
    scale: float = SETTINGS["scale"]
    return b * scale


CHANGED = list(itertools.product(["a module", "a closure", "a submodule"], ["score", "rebar", "enumerate"]))


@pytest.mark.parametrize(("case", "samples"), by_turns(some(CHANGED, 4), [None, 2]), ids=str)
def test_what_a_user_changes_afterwards_is_seen(
    case: tuple[str, str], samples: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_in, policy = case
    own = {"scale": 1.0}

    class Scaled(nn.Module):
        scale = 1.0

        def forward(self, b: Tensor) -> Tensor:
            return b * self.scale

    layer = Scaled()
    functions: dict[str, Any] = {
        "a module": scaled,
        "a closure": lambda b: b * own["scale"],
        "a submodule": nn.Sequential(layer),
    }
    g = bits(functions[kept_in])
    plain, program = (scg.compile(g, policy, samples=samples) for _ in range(2))
    program.compile(backend=TRACED)
    for scale in (1.0, 1.0, 3.0, 1.0):
        monkeypatch.setitem(SETTINGS, "scale", scale)
        own["scale"] = layer.scale = scale
        found, expected = (gradients(p, x=X, seed=1) for p in (program, plain))
        shared = found.keys() & expected.keys()
        assert shared and all(torch.allclose(found[name], expected[name], atol=1e-6) for name in shared)


@pytest.mark.parametrize("mode", [None, "default"])
def test_guards_are_left_alone_under_a_mode_of_torch(
    mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def noted(guard: Any, run: Any) -> bool:
        asked.append(guard.name)
        return is_fixed(guard, run)

    monkeypatch.setattr(compiling, "is_fixed", noted)
    program = scg.compile(bits(), "score").compile(backend=TRACED, mode=mode)
    plain = scg.compile(bits(), "score")
    for _ in range(2):
        found, expected = (gradients(p, x=X, seed=1) for p in (program, plain))
        assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in expected.items())
    assert bool(asked) is (mode is None)


def test_few_guards_are_about_anything_but_what_may_change() -> None:
    watched: list[str] = []

    def kept(guards: Any) -> list[bool]:
        watched.extend(guard.name for guard in guards)
        return [True] * len(guards)

    program = compiled()
    program(x=X)
    run = next(iter(program._prepared.values())).surrogate(program).run
    program.compile(backend=TRACED, options={"guard_filter_fn": kept})
    program(x=X)
    assert len(watched) > 300
    left = [name for name in watched if not is_fixed(SimpleNamespace(name=name), run)]
    assert len(left) < len(watched) / 2


def test_without_a_seed_the_global_generator_decides() -> None:
    program = compiled()
    program(x=X)
    torch.manual_seed(3)
    first = program(x=X).loss
    assert not program(x=X).loss.equal(first)
    torch.manual_seed(3)
    assert program(x=X).loss.equal(first)


def test_only_sampling_is_compiled_as_well() -> None:
    program = compiled()
    with torch.no_grad():
        losses = [program(x=X, seed=1).loss for _ in range(3)]
    assert losses[0].equal(losses[1]) and losses[1].equal(losses[2])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled], ids=["copy", "pickle"])
def test_copies_are_compiled_too(duplicate: Callable[[scg.Program], scg.Program]) -> None:
    program = compiled()
    assert not any("_orig_mod" in name for name in program.state_dict())
    other = duplicate(program)
    for _ in range(2):
        found, expected = gradients(other, x=X, seed=2), gradients(program, x=X, seed=2)
        assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in expected.items())


def broken(b: Tensor) -> Tensor:
    torch._dynamo.graph_break()
    return b


def test_what_cannot_be_compiled_is_named() -> None:
    program = scg.compile(bits(broken), "score").compile(backend=TRACED)
    program(x=X)
    with pytest.raises(scg.CompileError, match=r"cannot take node 'h' .*fallback=True"):
        program(x=X)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_what_cannot_be_compiled_runs_as_it_is_if_asked() -> None:
    program = scg.compile(bits(broken), "score").compile(backend=TRACED, fallback=True)
    first, second = (gradients(program, x=X, seed=0) for _ in range(2))
    assert all(torch.allclose(first[name], value) for name, value in second.items())


def test_an_error_of_the_function_itself_is_told_as_ever() -> None:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=X)
    g.cost("c", lambda x: x.view(4, 3).sum(-1), x)
    program = scg.compile(g).compile(backend=TRACED, dynamic=False)
    program(x=X)
    with pytest.raises((scg.GraphError, scg.CompileError), match="'c'"):
        program(x=torch.zeros(5, 3))


def test_a_program_without_examples_is_prepared_first() -> None:
    program = scg.compile(bits(example=None), "rebar")
    traced = torch.compile(program, fullgraph=True, backend=TRACED)
    with pytest.raises(Exception, match=r"program\.prepare\(\*\*inputs\)"):
        traced(x=X)
    torch.compiler.reset()
    program.prepare(x=X)
    noise = program.draw_noise(0, x=X)
    assert torch.allclose(traced(x=X, noise=noise).loss, program(x=X, noise=noise).loss)


def test_a_count_is_drawn_in_a_compiled_program() -> None:
    g = scg.Graph()
    g.cost("c", g.sample("n", Poisson, g.param("rate", 2.0)))
    program = scg.compile(g, "score").compile(backend=TRACED)
    values = [float(program().loss.detach()) for _ in range(20)]
    assert len(set(values)) > 1


def test_a_count_is_not_drawn_from_a_seed_where_a_program_is_compiled() -> None:
    g = scg.Graph()
    g.cost("c", g.sample("n", Poisson, g.param("rate", 2.0)))
    program = scg.compile(g, "score").compile(backend=TRACED)
    first = program(seed=1).loss
    with pytest.raises(scg.CompileError, match=r"'n'.*noise=program\.draw_noise\(seed"):
        program(seed=1)
    assert program(noise=program.draw_noise(1)).loss.equal(first)
