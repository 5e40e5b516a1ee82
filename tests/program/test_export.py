"""Exported modules: they need torch alone, and give the loss and the gradients of the program."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Binomial, Categorical, Gamma, Independent, Normal, Poisson

import scg
from scg.errors import ExportError, GraphError
from scg.examples import SCHULMAN, miss, product, shifted
from scg.program.export import _is_close
from scg.program.program import Program
from tests.support.models import batch, belief_net, vae

GOLDEN = Path(__file__).parents[1] / "golden"
FUNCTIONS = """
def miss(y): return (y - 0.3) ** 2
def product(x, y): return x * y
def shifted(state, theta): return torch.distributions.Normal(theta * state, 0.5)
"""
ALONE = f"""
import importlib.util, pathlib, sys, torch

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "scg":
            raise ImportError("scg is not installed here")

sys.meta_path.insert(0, Blocked())
{FUNCTIONS}
def trained(arguments):
    for value in arguments.values():
        several = value.values() if isinstance(value, dict) else [value]
        for item in several:
            yield from item.parameters() if isinstance(item, torch.nn.Module) else [item]

for path in sorted(pathlib.Path(sys.argv[1]).glob("*.py")):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    given = torch.load(path.with_suffix(".in"), weights_only=False)
    arguments = {{**given["arguments"], **{{name: globals()[name] for name in given["functions"]}}}}
    loss = module.loss(given["noise"], **given["inputs"], **arguments)
    loss.backward()
    leaves = trained({{k: v for k, v in arguments.items() if k not in given["functions"]}})
    torch.save([loss.detach(), *[leaf.grad for leaf in leaves]], path.with_suffix(".out"))
assert "scg" not in sys.modules
"""


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


CASES: Mapping[str, Callable[[], Program]] = {
    **{build.__name__: lambda build=build: scg.compile(build(), policy="score") for build in SCHULMAN},
    "vae_rebar": lambda: vae("rebar"),
    "vae_relax": lambda: vae("relax"),
    "belief_net_rebar": lambda: belief_net("rebar"),
    "belief_net_leave_one_out": lambda: belief_net(scg.Score(baseline="leave-one-out"), samples=3),
}


def inputs_of(program: Program, size: int = 6) -> dict[str, Tensor]:
    names = program._ir.inputs
    return {name: batch(size) if name == "x" else torch.tensor(1.3) for name in names}


def loaded(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def leaves(arguments: Mapping[str, Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in arguments.values():
        for item in value.values() if isinstance(value, dict) else [value]:
            if isinstance(item, nn.Module):
                found += item.parameters()
            elif isinstance(item, Tensor):
                found.append(item)
    return found


def gradients(loss: Tensor, arguments: Mapping[str, Any]) -> list[Tensor]:
    several = [leaf for leaf in leaves(arguments) if leaf.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, several, allow_unused=True, materialize_grads=True)]


def alike(one: list[Tensor], other: list[Tensor]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in pairs)


@pytest.mark.parametrize("name", CASES)
def test_the_module_reads_as_it_did(name: str, tmp_path: Path) -> None:
    CASES[name]().export(tmp_path / "module.py")
    expected = (GOLDEN / f"export_{name}.py.txt").read_text(encoding="utf-8")
    assert (tmp_path / "module.py").read_text(encoding="utf-8") == expected


def test_modules_run_where_scg_is_not_installed(tmp_path: Path) -> None:
    wanted = {}
    for name, make in CASES.items():
        program = make()
        arguments = program.export(tmp_path / f"{name}.py")
        inputs = inputs_of(program)
        noise = program.draw_noise(7, **inputs)
        program(noise=noise, **inputs).loss.backward()
        found = [leaf.grad for leaf in leaves(arguments)]
        wanted[name] = [program(noise=noise, **inputs).loss.detach(), *found]
        program.zero_grad()
        functions = [key for key, value in arguments.items() if value in (miss, product, shifted)]
        given = {key: value for key, value in arguments.items() if key not in functions}
        saved = {"arguments": given, "functions": functions, "inputs": inputs, "noise": dict(noise)}
        torch.save(saved, tmp_path / f"{name}.in")
    script = tmp_path / "script.txt"
    script.write_text(ALONE, encoding="utf-8")
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, cwd=tmp_path)
    for name, expected in wanted.items():
        assert alike(torch.load(tmp_path / f"{name}.out"), expected), name


@pytest.mark.parametrize("name", ["vae_rebar", "vae_relax", "belief_net_rebar", "belief_net_leave_one_out"])
def test_a_module_takes_a_batch_of_any_size(name: str, tmp_path: Path) -> None:
    program = CASES[name]()
    arguments = program.export(tmp_path / "module.py")
    module = loaded(tmp_path / "module.py")
    for size in (1, 4, 17):
        inputs = inputs_of(program, size)
        noise = program.draw_noise(3, **inputs)
        found = gradients(module.loss(noise, **inputs, **arguments), arguments)
        assert alike(found, gradients(program(noise=noise, **inputs).loss, arguments))
        shapes = {key: value.shape for key, value in noise.items()}
        assert {key: value.shape for key, value in module.draw_noise(size).items()} == shapes


def test_a_vae_under_rebar_takes_less_than_80_lines() -> None:
    text = (GOLDEN / "export_vae_rebar.py.txt").read_text(encoding="utf-8")
    code = [line for line in text.splitlines() if line.strip() and not line.strip().startswith('"""')]
    assert len(code) < 80 and len(text.splitlines()) < 80


def scalar(
    dist: Any, name: str, policy: Any, fn: Callable[[Tensor], Tensor], start: Any, **more: Any
) -> Program:
    g = scg.Graph()
    g.cost("f", fn, g.sample("z", dist, **{name: g.param("theta", torch.as_tensor(start)), **more}))
    return scg.compile(g, policy=policy)


def distance(z: Tensor) -> Tensor:
    return ((z - 0.3) ** 2).sum()


def averaged() -> scg.Score:
    return scg.Score(baseline="moving-average", normalise=True)


OTHERS: Mapping[str, Callable[[], Program]] = {
    "enumerate": lambda: scalar(Bernoulli, "logits", "enumerate", distance, [0.3, -0.2]),
    "local": lambda: scalar(Bernoulli, "logits", scg.Enumerate(local=True), distance, [0.3, -0.2]),
    "rebar from probs": lambda: scalar(Bernoulli, "probs", "rebar", distance, [0.3, 0.2]),
    "categorical": lambda: scalar(Categorical, "logits", "enumerate", distance, [0.3, 0.1, -0.4]),
    "reparam": lambda: scalar(Normal, "loc", "reparam", distance, 0.3, scale=0.7),
    "lax": lambda: scalar(Normal, "loc", "lax", distance, 0.3, scale=0.7),
    "moving average": lambda: scalar(Normal, "loc", averaged(), distance, 0.3, scale=0.7),
    "a value as noise": lambda: scalar(Poisson, "rate", "score", distance, 1.3),
    "self-critical": lambda: belief_net(scg.Score(baseline="self-critical")),
    "disarm": lambda: belief_net("disarm"),
    "a mixture": lambda: belief_net({"h1": "score", "h2": "enumerate"}),
    "a network of the user": lambda: belief_net(
        {"h1": scg.RELAX(net=nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))), "h2": "score"}
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_estimators_and_laws(name: str, tmp_path: Path) -> None:
    program = OTHERS[name]()
    arguments = program.export(tmp_path / "module.py")
    module = loaded(tmp_path / "module.py")
    inputs = inputs_of(program, 5)
    for seed in range(4):  # what is remembered goes on from run to run
        noise = program.draw_noise(seed, **inputs)
        wanted = gradients(program(noise=noise, **inputs).loss, arguments)
        assert alike(gradients(module.loss(noise, **inputs, **arguments), arguments), wanted)


def test_a_black_box(tmp_path: Path) -> None:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=batch())
    b = g.sample("b", Bernoulli, logits=g.det("logits", nn.Linear(8, 3), x))
    count = g.det("count", lambda value: value.numpy().sum(-1), b, differentiable=False)
    g.cost("f", (count - 1.2) ** 2)
    program = scg.compile(g, policy="score")
    arguments = program.export(tmp_path / "module.py")
    inputs = inputs_of(program, 9)
    noise = program.draw_noise(0, **inputs)
    found = gradients(loaded(tmp_path / "module.py").loss(noise, **inputs, **arguments), arguments)
    assert alike(found, gradients(program(noise=noise, **inputs).loss, arguments))


class Heads(nn.Module):
    """Two results of one module."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self.layer(x)
        return found[..., :2], found[..., 2:].exp()


def two_results() -> scg.Graph:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=batch())
    loc, scale = g.det(("loc", "scale"), Heads(), x)
    z = g.sample("z", Normal, loc=loc, scale=scale)
    g.cost("f", lambda z, x: (z.sum(-1) - x.sum(-1)) ** 2, z, x)
    return g


def nested_inputs() -> scg.Graph:
    g = scg.Graph()
    x = g.input("x", plates="batch", example={"seen": batch(), "goal": batch().flip(0)})
    w = g.param("w", torch.full((8,), 0.1))
    z = g.sample("z", Bernoulli, logits=g.det("logits", lambda x, w: x["seen"] * w, x, w))
    d = g.det("d", lambda x, z: {"error": (z - x["goal"]).sum(-1), "size": z.sum(-1)}, x, z)
    g.cost("f", d["error"] ** 2 + d["size"])
    return g


def batch_normalised() -> scg.Graph:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=batch())
    b = g.sample("b", Bernoulli, logits=g.det("logits", nn.Linear(8, 3), x))
    y = g.det("y", nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8)), b, mixes="batch")
    g.cost("f", lambda y, x: ((y - x) ** 2).sum(-1), y, x)
    return g


def factories() -> scg.Graph:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=batch())
    w = g.param("w", torch.full((8,), 0.1))
    z = g.sample("z", lambda x, w: Independent(Normal(x * w, 1.0), 1), x, w)
    n = g.sample("n", lambda w: Binomial(3, logits=w.sum()), w)
    g.cost("f", lambda z, n: (z.sum(-1) - 0.1 * n) ** 2, z, n)
    return g


def one_size() -> scg.Graph:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=batch())
    goal = torch.arange(6.0)
    b = g.sample("b", Bernoulli, logits=g.det("logits", nn.Linear(8, 3), x))
    g.cost("f", lambda b: (b.sum(-1) - goal) ** 2, b)
    return g


GRAPHS = (
    (two_results, "reparam"),
    (nested_inputs, "score"),
    (batch_normalised, "rebar"),
    (factories, "score"),
    (one_size, "score"),
)


@pytest.mark.parametrize(("build", "policy"), GRAPHS, ids=[build.__name__ for build, _ in GRAPHS])
def test_other_graphs(build: Callable[[], scg.Graph], policy: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    g = build()
    program = scg.compile(g, policy=policy)
    arguments = program.export(tmp_path / "module.py")
    inputs = g.freeze().store.examples
    noise = program.draw_noise(5, **inputs)
    found = gradients(loaded(tmp_path / "module.py").loss(noise, **inputs, **arguments), arguments)
    assert alike(found, gradients(program(noise=noise, **inputs).loss, arguments))


@pytest.mark.parametrize("captured", [False, True])
def test_running_statistics_move_once_as_in_the_program(captured: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = nn.BatchNorm1d(3)
    g = scg.Graph()
    x = g.input("x", plates="batch", example=batch())
    b = g.sample("b", Bernoulli, logits=g.det("logits", nn.Linear(8, 3), x))
    y = g.det("y", (lambda b: layer(b)) if captured else layer, b, mixes="batch")
    g.cost("f", lambda y: y.square().sum(-1), y)
    program = scg.compile(g, policy="rebar")
    arguments = program.export(tmp_path / "module.py")
    noise, start = program.draw_noise(5, x=batch()), copy.deepcopy(layer.state_dict())
    program(noise=noise, x=batch())
    expected = copy.deepcopy(layer.state_dict())
    layer.load_state_dict(start)
    loaded(tmp_path / "module.py").loss(noise, x=batch(), **arguments)
    assert expected["num_batches_tracked"] == start["num_batches_tracked"] + 1
    assert all(torch.equal(value, expected[name]) for name, value in layer.state_dict().items())


def test_a_graph_of_one_size_is_refused_at_others(tmp_path: Path) -> None:
    arguments = scg.compile(one_size(), policy="score").export(tmp_path / "module.py")
    module = loaded(tmp_path / "module.py")
    with pytest.raises(ValueError, match=r"x has the shape \[6, 8\]"):
        module.loss(module.draw_noise(), x=batch(7), **arguments)


def test_export_leaves_the_program_as_it_was(tmp_path: Path) -> None:
    program = scalar(Normal, "loc", averaged(), distance, 0.3, scale=0.7)
    program(seed=0)
    before = {key: value.clone() for key, value in program.state_dict().items()}
    state = torch.get_rng_state()
    program.export(tmp_path / "module.py")
    after = program.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in program.parameters())


def test_a_wrong_input_and_a_second_derivative_are_refused(tmp_path: Path) -> None:
    program = vae("rebar")
    arguments = program.export(tmp_path / "module.py")
    module = loaded(tmp_path / "module.py")
    with pytest.raises(ValueError, match=r"x has the shape \[batch, 8\]"):
        module.loss(module.draw_noise(6), x=torch.zeros(6, 9), **arguments)
    loss = module.loss(module.draw_noise(6), x=batch(), **arguments)
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.grad(loss, arguments["logits_module"].weight, create_graph=True)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    implicit = scalar(Gamma, "concentration", "reparam", distance, 1.3, rate=1.0)
    with pytest.raises(ExportError, match="no public name in torch"):
        implicit.export(tmp_path / "module.py")
    g = scg.Graph()
    g.sample("z", Normal, loc=0.0, scale=1.0)
    with pytest.raises(ExportError, match="without costs"):
        scg.compile(g).export(tmp_path / "module.py")
    g = scg.Graph()
    g.cost("f", g.input("x"))
    with pytest.raises(GraphError, match="pending"):
        scg.compile(g).export(tmp_path / "module.py")
    assert not list(tmp_path.iterdir())


def test_what_gives_other_numbers_than_the_program_is_refused(tmp_path: Path) -> None:
    """As a function does that counts how often it was called."""
    calls, g = itertools.count(1), scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("w", 0.3))
    g.cost("c", g.det("h", lambda b: b + 0.1 * next(calls), b, differentiable=False))
    with pytest.raises(
        ExportError, match="gives other gradients than the program, as where a function keeps"
    ):
        scg.compile(g, "score").export(tmp_path / "module.py")


def test_stages_are_five_and_readable() -> None:
    stages = vae("rebar").stages()
    assert "sample b[batch] = sample(logits)" in str(stages.declared)
    assert "b: Bernoulli, event [3]" in str(stages.analysed)
    assert str(stages.chosen).startswith("b: rebar (asked for)")
    assert "b_rebar = scg_b_rebar(" in str(stages.lowered)
    traced = str(stages.traced)
    assert "xhat_module(soft)" in traced and traced.count("torch.autograd.grad(") == 2
    assert traced.endswith("and loss is the loss")


def compared(size: int = 5, policy: Any = "score") -> Program:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.linspace(-1, 1, size))
    y = g.input("y", plates="batch", example=torch.linspace(1, 2, size))
    b = g.sample("b", Bernoulli, logits=x * g.param("w", torch.tensor(0.4)))
    g.cost("f", (b - y) ** 2)
    return scg.compile(g, policy)


@pytest.mark.parametrize("size", [5, 1])
def test_what_compares_elements_takes_two_of_them(size: int, tmp_path: Path) -> None:
    program = compared(size=size, policy=scg.Score(baseline=scg.LeaveOneOut("batch")))
    arguments = program.export(tmp_path / "module.py")
    module = loaded(tmp_path / "module.py")
    with pytest.raises(ValueError, match="at least 2"):
        module.loss(module.draw_noise(1), x=torch.ones(1), y=torch.ones(1), **arguments)
    inputs = {"x": torch.linspace(-1, 1, 4), "y": torch.linspace(1, 2, 4)}
    noise = program.draw_noise(3, **inputs)
    found = gradients(module.loss(noise, **inputs, **arguments), arguments)
    assert alike(found, gradients(program(noise=noise, **inputs).loss, arguments))


def test_only_the_plate_whose_elements_are_compared_takes_two(tmp_path: Path) -> None:
    g = scg.Graph()
    x = g.input("x", plates=("batch", "k"), example=torch.linspace(-1, 1, 15).view(5, 3))
    b = g.sample("b", Bernoulli, logits=x * g.param("w", torch.tensor(0.4)))
    g.cost("f", (b - 0.3) ** 2)
    program = scg.compile(g, scg.Score(baseline=scg.LeaveOneOut("batch")))
    arguments = program.export(tmp_path / "module.py")
    module = loaded(tmp_path / "module.py")
    one = torch.linspace(-1, 1, 4).view(4, 1)
    noise = program.draw_noise(3, x=one)
    found = gradients(module.loss(noise, x=one, **arguments), arguments)
    assert alike(found, gradients(program(noise=noise, x=one).loss, arguments))
    with pytest.raises(ValueError, match="at least 2 elements are wanted along batch"):
        module.loss(program.draw_noise(3, x=one.T), x=one.T, **arguments)


def test_small_gradients_are_compared_as_large_ones_are() -> None:
    one = torch.tensor([1e-4, 2e-4], dtype=torch.float32)
    assert _is_close(one, one * (1 + 1e-4), 1e-3)
    assert not _is_close(one, one * 1.1, 1e-3)
    assert not _is_close(one.double(), one.double() * (1 + 1e-6), 1.0)
    assert not _is_close(one, one.double(), 1e-3)


def test_sizes_that_disagree_are_refused(tmp_path: Path) -> None:
    program = compared()
    arguments = program.export(tmp_path / "module.py")
    module = loaded(tmp_path / "module.py")
    x, y = torch.ones(6), torch.ones(6)
    for given in (
        {"noise": module.draw_noise(6), "x": x, "y": y[:1]},
        {"noise": module.draw_noise(1), "x": x, "y": y},
    ):
        with pytest.raises(ValueError, match="every plate has one size"):
            module.loss(**given, **arguments)
    assert module.loss(module.draw_noise(1), x=x[:1], y=y[:1], **arguments).isfinite()


def test_a_program_is_exported_where_gradients_are_off(tmp_path: Path) -> None:
    program = compared(policy="rebar")
    with torch.no_grad():
        program.export(tmp_path / "module.py")
        assert "torch" in str(program.stages().traced)
    with torch.inference_mode():
        program.export(tmp_path / "module.py")


def test_what_a_module_would_confuse_is_refused(tmp_path: Path) -> None:
    g = scg.Graph()
    x = g.input("x", plates="noise", example=torch.ones(3))
    g.cost("f", g.sample("b", Bernoulli, logits=x * g.param("w", torch.tensor(0.4))))
    with pytest.raises(ExportError, match="'noise' means something else"):
        scg.compile(g, "score").export(tmp_path / "module.py")
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("w", torch.tensor(0.4, dtype=torch.float32)))
    g.cost("f", (b - torch.tensor(0.25, dtype=torch.float64)) ** 2)
    with pytest.raises(ExportError, match="the program cannot be exported"):
        scg.compile(g, "score").export(tmp_path / "module.py")
