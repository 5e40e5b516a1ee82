"""The code of a program: it can be read to the bottom, and what is read computes what the program does."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, LowRankMultivariateNormal, Normal, Poisson

import scg
from scg.choosing.describe import node_facts
from scg.estimators.protocol.border import refusal
from scg.estimators.registry import by_name, registry
from scg.examples import SCHULMAN
from scg.program.program import Program
from scg.testing.examples import particles
from tests.contract.instances import BOUNDED
from tests.support.models import batch, belief_net, vae

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def in_parts(parts: Mapping[Any, Any]) -> Program:
    """Two estimators at one node."""
    torch.manual_seed(0)
    g = scg.Graph("parts")
    x = g.input("x", plates="batch", example=batch())
    b = g.sample("b", Bernoulli, logits=g.det("logits", nn.Linear(8, 3), x))
    g.cost("nelbo", -g.log_prob(Bernoulli, x, logits=g.det("xhat", nn.Linear(3, 8), b)))
    g.cost("size", lambda b: (b.sum(-1) - 1) ** 2, b)
    return scg.compile(g, {"b": scg.Parts(parts)})


def chain(policy: Any) -> Program:
    """Slices that go on as those of the nodes below."""
    torch.manual_seed(0)
    g = scg.Graph("chain")
    h = g.input("x", plates="batch", example=batch())
    for index, width in enumerate((8, 4, 3)):
        h = g.sample(f"h{index}", Bernoulli, logits=g.det(f"l{index}", nn.Linear(width, (4, 3, 2)[index]), h))
    g.cost("miss", lambda h: (h.sum(-1) - 0.7) ** 2, h)
    return scg.compile(g, policy=policy)


def scalar(dist: Any, name: str, policy: Any, start: Any, **more: Any) -> Program:
    g = scg.Graph()
    g.cost("f", distance, g.sample("z", dist, **{name: g.param("theta", torch.as_tensor(start)), **more}))
    return scg.compile(g, policy=policy)


def distance(z: Tensor) -> Tensor:
    return ((z - 0.3) ** 2).sum()


def discounted(policy: Any) -> Program:
    torch.manual_seed(0)
    g = scg.Graph()
    g.plate("t", reduce="sum", ordered=True, discount=0.9)
    x = g.input("x", plates="t", example=torch.randn(5))
    b = g.sample("b", Bernoulli, logits=x * g.param("w", torch.tensor(0.4)))
    g.cost("f", lambda b, x: (b - x) ** 2, b, x)
    return scg.compile(g, policy=policy)


def allowed() -> dict[str, Callable[[], Program]]:
    """Every registered estimator, on a graph where it is allowed."""

    def made(name: str) -> Program:
        if name in BOUNDED:
            return scg.compile(particles(), name)
        facts = vae("score")._latest().facts
        for samples in (None, 2):
            if refusal(by_name(name), node_facts(facts, "b", samples)) is None:
                return vae(name, samples=samples)
        return scalar(Normal, "loc", name, 0.3, scale=0.7)

    return {name: lambda name=name: made(name) for name, kind in registry().items() if kind.unbiased}  # type: ignore[misc]


ODD = scg.RELAX(net=nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)))
BASELINES = {
    "moving average": lambda: scg.Score(baseline="moving-average", normalise=True),
    "self-critical": lambda: scg.Score(baseline="self-critical"),
    "net": lambda: scg.Score(baseline=nn.Linear(3, 1)),
    "of the batch": lambda: scg.Score(baseline=scg.LeaveOneOut("batch")),
}
CASES: Mapping[str, Callable[[], Program]] = {
    **{build.__name__: lambda build=build: scg.compile(build(), policy="score") for build in SCHULMAN},
    **{name: lambda make=make: vae(make()) for name, make in BASELINES.items()},
    "leave one out": lambda: belief_net(scg.Score(baseline="leave-one-out"), samples=3),
    "replicates": lambda: belief_net("relax", samples=3),
    "two layers": lambda: belief_net("rebar"),
    "a chain": lambda: chain("rebar"),
    "branches above": lambda: belief_net({"h1": "enumerate", "h2": "rebar"}),
    "branches below": lambda: belief_net({"h1": "rebar", "h2": "enumerate"}),
    "a network of the user": lambda: belief_net({"h1": ODD, "h2": "score"}),
    "probs": lambda: scalar(Bernoulli, "probs", "rebar", [0.3, 0.2]),
    "categorical": lambda: scalar(Categorical, "logits", "relax", [0.3, 0.1, -0.4]),
    "a value as noise": lambda: scalar(Poisson, "rate", scg.Score(baseline="moving-average"), 1.3),
    "discounted": lambda: discounted("rebar"),
    "discounted, local": lambda: discounted("local"),
    "parts": lambda: in_parts({"nelbo": "rebar", "size": "rebar"}),
    "a network in a part": lambda: in_parts({"nelbo": "relax", "size": scg.Score(baseline=nn.Linear(3, 1))}),
}


def functions(text: str) -> dict[str, str]:
    """Return the functions that a text shows, by name."""
    several = re.split(r"\n\n(?=def |# )", text)
    return {found[1]: part for part in several if (found := re.match(r"def (\w+)\(", part))}


def executed(program: Program) -> Callable[..., dict[str, Any]]:
    """Return the ``forward`` of a text; laws and the user's functions in it are those of the program."""
    emitted = program._latest().surrogate(program)
    made, spaces = {}, []
    for name, text in functions(program.code).items():
        space = {**emitted.run.__globals__, "torch": torch}
        for line, part in emitted.lowered.parts.items():
            if part.pieces and re.search(rf"^    {line} = {name}\(", program.code, re.MULTILINE):
                space.update(type(part.pieces[0][0]).forward.__globals__)
        exec(compile(text, name, "exec", dont_inherit=True), space)
        made[name] = space[name]
        spaces.append(space)
    for space in spaces:
        space.update(made)
    return made["forward"]


def gradients(program: Program, loss: Tensor) -> list[Tensor]:
    several = [parameter for parameter in program.parameters() if parameter.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, several, allow_unused=True, materialize_grads=True)]


@pytest.mark.parametrize("name", [*allowed(), *CASES])
def test_what_is_read_is_what_runs(name: str) -> None:
    program = {**allowed(), **CASES}[name]()
    assert "not written out" not in program.code
    forward = executed(program)
    for seed, size in ((0, 6), (1, 6), (2, 4)):
        examples = program._latest().inputs
        inputs = {k: v[:size] if v.dim() else v for k, v in examples.items()}
        noise = program._noise(program._latest(), program.draw_noise(seed, **inputs), inputs)
        before = {key: value.clone() for key, value in program.state_dict().items()}
        wanted = gradients(program, program(noise=noise, **inputs).loss)
        after = {key: value.clone() for key, value in program.state_dict().items()}
        program.load_state_dict(before)
        found = gradients(program, forward(program, *inputs.values(), noise)["loss"])
        for one, other in zip(found, wanted, strict=True):
            assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)
        assert all(
            torch.allclose(value, after[key], rtol=1e-12) for key, value in program.state_dict().items()
        )


def called(text: str) -> set[str]:
    """Return the names of the functions that a text calls, methods and torch's apart."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    return {node.func.id for node in calls if isinstance(node.func, ast.Name)}


@pytest.mark.parametrize("name", [*allowed(), *CASES])
def test_nothing_that_is_called_stays_hidden(name: str) -> None:
    program = {**allowed(), **CASES}[name]()
    text, facts = program.code, program._latest().facts
    laws = "|".join({density.law.family for density in facts.trace.densities.values()})
    law = re.compile(rf"({laws})_(draw|draw_standard|standard|log_prob|relaxed|replay)")
    given = re.compile(rf"((fold|vmap|loop|broadcast|plain)_)?({'|'.join(facts.ir)})")
    shown = functions(text)
    own = {"first_order"} if len(shown) == 1 else set()
    for name in called(text) - shown.keys() - {"costs", "relaxed", "downstream"} - set(dir(builtins)):
        assert name.startswith("scg_"), name
        rest = re.sub(r"_\d+$", "", name.removeprefix("scg_"))
        assert law.fullmatch(rest) or given.fullmatch(rest) or rest in own, name


@pytest.mark.parametrize("policy", ["rebar", "relax"])
def test_the_code_of_a_vae_reads_as_it_did(policy: str) -> None:
    assert vae(policy).code == (GOLDEN / f"code_vae_{policy}.py.txt").read_text(encoding="utf-8")


def test_arithmetic_is_in_the_names_of_the_graph() -> None:
    shown = functions(vae("rebar").code)
    assert list(shown) == ["forward", "scg_b_relaxed", "scg_b_site", "scg_b_rebar", "scg_first_order"]
    rebar = shown["scg_b_rebar"]
    assert "temperature_log = controls.temperature.log" in rebar and "eta = eta_log.exp()" in rebar
    assert "b = b_site['value']" in rebar and "nelbo_credit = b_site['credit']" in rebar
    assert "xhat_relaxed" in shown["scg_b_relaxed"] and "'credit': nelbo_credit" in shown["scg_b_site"]


def test_sizes_are_those_of_a_run() -> None:
    assert "1 / batch" in vae("rebar").code
    assert not re.search(r"(?<!\[)\b6\b", vae("relax").code)


def test_programs_without_slices_and_estimators_are_one_function() -> None:
    for build in SCHULMAN:
        assert list(functions(scg.compile(build(), policy="score").code)) == ["forward"]
    assert list(functions(scalar(Normal, "loc", "reparam", 0.3, scale=0.7).code)) == ["forward"]


def test_a_graph_without_costs_has_code() -> None:
    g = scg.Graph()
    g.sample("z", Normal, loc=0.0, scale=1.0)
    assert list(functions(scg.compile(g).code)) == ["forward"]


@pytest.mark.parametrize("name", ["two layers", "a value as noise", "moving average"])
def test_reading_code_leaves_nothing_behind(name: str) -> None:
    program = CASES[name]()
    inputs = program._latest().inputs
    program(seed=0, **inputs)
    before = {key: value.clone() for key, value in program.state_dict().items()}
    held, state = dict(program.named_buffers()), torch.get_rng_state()
    wanted = program(seed=3, **inputs).loss.detach()
    program.load_state_dict(before)
    text = program.code
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in program.state_dict().items())
    assert held.keys() == dict(program.named_buffers()).keys()
    assert all(parameter.grad is None for parameter in program.parameters())
    assert torch.equal(program(seed=3, **inputs).loss.detach(), wanted)
    assert program.code == text == CASES[name]().code


def test_running_statistics_stay_as_they_are() -> None:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=batch())
    b = g.sample("b", Bernoulli, logits=g.det("logits", nn.Linear(8, 3), x))
    layer = nn.BatchNorm1d(3)
    z = g.sample("z", Poisson, rate=g.det("rate", nn.Sequential(layer, nn.Softplus()), b, mixes="batch"))
    g.cost("f", lambda z: z.sum(-1), z)
    program = scg.compile(g, policy={"b": "disarm", "z": scg.Score(baseline="moving-average")})
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    assert "def scg_b_coupled(" in program.code
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


def test_code_is_read_where_gradients_are_off_and_while_evaluating() -> None:
    expected, one, other = vae("rebar").code, vae("rebar"), vae("rebar").eval()
    with torch.no_grad():
        assert one.code == expected
    with torch.inference_mode():
        assert other.code == expected


@dataclass(frozen=True)
class Peeking(scg.Cut):
    """Reads a number, which a text would keep for all runs."""

    name: ClassVar[str] = "peeking"

    def refuses(self, facts: scg.NodeFacts) -> None:
        return None

    def asks(self, facts: scg.NodeFacts) -> scg.Asks:
        return scg.Asks(site=True)

    def gradient(self, site: scg.Site) -> dict[str, Tensor]:
        return site.score(site.value, site.credit * (2.0 if site.credit.sum().item() > 0 else 1.0))


@dataclass(frozen=True)
class Doubling(scg.Through):
    """Makes a value that is twice that of the law, for the test of what is shown."""

    name: ClassVar[str] = "doubling"
    unbiased: ClassVar[bool] = False
    keeps_value: ClassVar[bool] = False

    def refuses(self, facts: scg.NodeFacts) -> None:
        return None

    def value(self, site: scg.Site) -> Tensor:
        return 2 * site.law.draw(site.parameters, site.noise)


def test_what_cannot_be_written_out_says_why() -> None:
    text = vae(Peeking()).code
    assert "b_peeking = scg_b_peeking(b_site, {'logits': logits})" in text
    (line,) = (line for line in text.splitlines() if line.startswith("# "))
    assert line.startswith("# scg_b_peeking(b_site, parameters) is not written out: item() reads a number")
    low = scalar(
        LowRankMultivariateNormal,
        "loc",
        "lax",
        [0.1, 0.2],
        cov_factor=torch.ones(2, 1),
        cov_diag=torch.ones(2),
    )
    assert "# scg_z_lax(z_site, parameters) is not written out: add_() writes into a tensor" in low.code


def test_values_that_estimators_make_are_shown() -> None:
    g = scg.Graph()
    z = g.sample("z", Normal, loc=g.param("theta", torch.tensor(0.3)), scale=0.7)
    g.cost("f", distance, z)
    program = scg.compile(g, policy=Doubling(), allow_biased=True)
    assert "Return the value of z that doubling makes" in program.code
