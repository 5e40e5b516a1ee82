"""The benchmarks: contenders agree on gradients, crashes are told, and reports and the guard are right."""

from __future__ import annotations

import copy
import doctest
import importlib
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

import scg
from benchmarks import __main__ as command
from benchmarks import check, decoder, figures, growth, report
from benchmarks.by_hand import chain as chain_by_hand
from benchmarks.by_hand import normal_vae as normal_by_hand
from benchmarks.by_hand import states as states_by_hand
from benchmarks.by_hand import toy as toy_by_hand
from benchmarks.by_hand import vae as vae_by_hand
from benchmarks.contest import BY_HAND, SCG, Contest, Job, Settings
from benchmarks.figures import Figure, Results
from benchmarks.problems import chain, layers, siblings, states, toy, vae, variance
from benchmarks.run import run
from benchmarks.timing import IN_A_ROW, Budget, Spread

BATCH, INPUTS, LATENTS = 4, 6, 3
VAE_ROWS, TOY_ROWS = {row.name: row for row in vae.ROWS}, {row.name: row for row in toy.ROWS}
FEW = Budget(rounds=3, seconds=5.0)
RESULTS = Results(
    {
        "cpu": "a processor",
        "cores": 2,
        "gpu": None,
        "threads": 1,
        "torch": "2",
        "python": "3",
        "date": "today",
    },
    (
        Figure("chain", "score", 10, SCG, Spread(2e-3, 1e-3, 3e-3), Spread(2.0, 1.5, 2.5), rounds=5),
        Figure("chain", "score", 10, BY_HAND, Spread(1e-3, 1e-3, 1e-3), Spread(1.0, 1.0, 1.0), rounds=5),
        Figure("chain", "score", 100, SCG, Spread(2e-2, 1e-2, 3e-2), Spread(2.0, 1.5, 2.5), rounds=5),
        Figure("chain", "score", 100, "other", error="crashed: RecursionError: too deep"),
        Figure("vae", "rebar", None, SCG, Spread(1e-3, 1e-3, 1e-3), rounds=5, facts={"variance": 0.25}),
    ),
)


def gradients(loss: Tensor, owner: nn.Module) -> dict[str, Tensor]:
    owner.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in owner.named_parameters() if p.grad is not None}


def tuned(program: scg.Program, names: list[str]) -> dict[str, Tensor]:
    """Gradients of temperatures and etas by the names that they have by hand."""
    found = {name: p.grad for name, p in program.named_parameters()}
    several = {
        kind: [found.get(f"controls.{name}.{kind}.log") for name in names] for kind in ("temperature", "eta")
    }
    return {f"log_{kind}": torch.stack(each) for kind, each in several.items() if each[0] is not None}


def small_vae(row: vae.Row, layers: int) -> tuple[nn.Module, Tensor]:
    """A model in double precision, and inputs."""
    torch.manual_seed(1)
    kind = normal_by_hand.Model if row.normal else vae_by_hand.Model
    model = kind(layers, INPUTS, LATENTS, 5).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("log"):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model, (torch.rand(BATCH, INPUTS) < 0.5).double()


def vae_by(
    row: vae.Row, model: nn.Module, x: Tensor, noise: Mapping[str, Tensor], names: list[str]
) -> Tensor:
    """The loss by hand under the noise of a program."""
    us = [noise[name] for name in names]
    if row.name.startswith(("rebar", "relax")):
        ws = [noise[f"{name}.1"] for name in names]
        return vae_by_hand.controlled_step(model, x, us, ws, network=row.name.startswith("relax"))
    if row.bits is not None:
        return vae_by_hand.enumerated_step(model, x)
    if row.normal:
        return getattr(normal_by_hand, f"{row.name.removeprefix('normal, ')}_step")(model, x, us)
    baselines = {
        "score, moving average": [vae_by_hand.MovingAverage() for _ in us],
        "score, leave one out, 4 replicates": [vae_by_hand.leave_one_out for _ in us],
    }
    return vae_by_hand.score_step(model, x, us, baselines.get(row.name))


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("name", VAE_ROWS)
def test_the_vae_by_hand_is_what_scg_computes(name: str, depth: int) -> None:
    row = VAE_ROWS[name]
    model, x = small_vae(row, depth)
    names = [f"{'z' if row.normal else 'b'}{layer}" for layer in range(depth)]
    program = vae.program_of(row, own := copy.deepcopy(model), x)
    noise = program.draw_noise(3, x=x)
    loss, by_hand = program(x=x, noise=noise).loss, vae_by(row, model, x, noise, names)
    if row.bits is None:
        torch.testing.assert_close(loss, by_hand)
    mine, theirs = {**gradients(loss, own), **tuned(program, names)}, gradients(by_hand, model)
    if "train_on" in name:  # what is learned is estimated from other elements
        theirs = {key: theirs[key] for key in theirs if key.startswith(("encoders", "decoders", "prior"))}
        mine = {key: mine[key] for key in theirs}
    torch.testing.assert_close(mine, theirs)


def test_three_layers_of_rebar_share_their_evaluations() -> None:
    row = VAE_ROWS["rebar"]
    model, x = small_vae(row, 3)
    program = vae.program_of(row, own := copy.deepcopy(model), x)
    noise, names = program.draw_noise(3, x=x), ["b0", "b1", "b2"]
    mine = gradients(program(x=x, noise=noise).loss, own)
    theirs = gradients(vae_by(row, model, x, noise, names), model)
    torch.testing.assert_close({**mine, **tuned(program, names)}, theirs)


@pytest.mark.parametrize("name", TOY_ROWS)
def test_the_toy_by_hand_is_what_scg_computes(name: str) -> None:
    torch.manual_seed(1)
    model = toy_by_hand.Model().double()
    program = toy.program_of(TOY_ROWS[name], own := copy.deepcopy(model), 5)
    noise = program.draw_noise(3)
    u, w = noise["b"], noise.get("b.1")
    by_hand = {
        "score": lambda: toy_by_hand.score_step(model, u),
        "score, leave one out": lambda: toy_by_hand.score_step(model, u, toy_by_hand.leave_one_out),
        "enumerate": lambda: toy_by_hand.exact_step(model),
        "rebar": lambda: toy_by_hand.controlled_step(model, u, w, network=False),
        "relax": lambda: toy_by_hand.controlled_step(model, u, w, network=True),
    }
    mine = gradients(program(noise=noise).loss, own)
    found = {key: each[0] for key, each in tuned(program, ["b"]).items()}
    torch.testing.assert_close({**mine, **found}, gradients(by_hand[name](), model))


@pytest.mark.parametrize("policy", chain.STEPS)
@pytest.mark.parametrize(
    ("declare", "steps", "count"), [(chain.graph, chain.STEPS, 4), (siblings.graph, siblings.STEPS, 8)]
)
def test_loops_by_hand_are_what_scg_computes(
    policy: str, declare: Callable[..., scg.Graph], steps: Mapping[str, Callable[..., Tensor]], count: int
) -> None:
    model = chain_by_hand.Model().double()
    program = scg.compile(declare(own := copy.deepcopy(model), 8), policy=policy)
    noise = program.draw_noise(3)
    drawn = torch.stack([noise[f"x{index}"] for index in range(count)])
    loss, by_hand = program(noise=noise).loss, steps[policy](model.theta, drawn)
    torch.testing.assert_close(loss, by_hand)
    torch.testing.assert_close(gradients(loss, own), gradients(by_hand, model))


@pytest.mark.parametrize("library", [None, "pyro"])
def test_states_are_summed_out_as_by_hand(library: str | None) -> None:
    model = states_by_hand.Model(5).double()
    wanted = gradients(states_by_hand.expected(model), model)
    own = copy.deepcopy(model)
    if library is None:
        found = gradients(scg.compile(states.graph(own), policy="enumerate")(seed=0).loss, own)
    else:
        pytest.importorskip(library)
        importlib.import_module("benchmarks.peers.in_pyro").states(own).step()
        found = {name: p.grad for name, p in own.named_parameters()}
    torch.testing.assert_close(found, wanted)


def test_a_stacked_chain_is_the_loop() -> None:
    model, noise = chain_by_hand.Model(), torch.randn(6)
    loop = gradients(chain_by_hand.score(model.theta, noise), model)
    torch.testing.assert_close(gradients(chain_by_hand.stacked(model.theta, noise), model), loop)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["score", "enumerate, 8 bits"])
@pytest.mark.parametrize(("library", "module"), [("Pyro", "pyro"), ("Storchastic", "storch")])
def test_peers_have_the_exact_gradient_as_their_mean(
    name: str, library: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(module)
    monkeypatch.setattr(Distribution, "_validate_args", False)
    torch.manual_seed(1)
    row = VAE_ROWS[name]
    model, x = vae_by_hand.Model(1, INPUTS, LATENTS), (torch.rand(BATCH, INPUTS) < 0.5).float()
    job = row.peers[library](copy.deepcopy(model), x=x)
    job = Job(job.step, job.parameters, model=own_model(job, model))
    exact = partial(variance.exact_vae, x)
    found = variance.facts(exact, ("encoders",), name != "score", library, job, 1.0)
    assert found["off"] < 2


def own_model(job: Job, like: nn.Module) -> nn.Module:
    """A model around the parameters that a job trains."""
    made = copy.deepcopy(like)
    for name, parameter in zip([n for n, _ in made.named_parameters()], job.parameters, strict=False):
        owner = made.get_submodule(name.rpartition(".")[0])
        setattr(owner, name.rpartition(".")[2], parameter)
    return made


def test_what_crashes_is_told_with_its_error() -> None:
    def crash() -> None:
        raise RuntimeError("first line\nsecond line")

    contenders = {
        BY_HAND: lambda: Job(lambda: None),
        "raises": lambda: Job(crash),
        "missing": lambda: Job(lambda: __import__("no_such_library")),
        "slow": lambda: Job(lambda: time.sleep(60)),
    }
    found = run(Contest("p", "c", contenders), Budget(rounds=3, limit=0.1), lambda what: None)
    errors = {figure.contender: figure.error for figure in found}
    assert errors[BY_HAND] is None
    assert errors["raises"] == "crashed: RuntimeError: first line"
    assert errors["missing"] == "crashed: ModuleNotFoundError: No module named 'no_such_library'"
    assert errors["slow"] == "over the limit of 0.1 s"


TURNS = ["a"] * IN_A_ROW + ["b"] * IN_A_ROW


def test_contenders_take_turns_and_are_compared_within_a_round() -> None:
    turns: list[str] = []
    contenders = {
        BY_HAND: lambda: Job(lambda: turns.append("a")),
        "b": lambda: Job(lambda: (turns.append("b"), time.sleep(0.002))),
    }
    mine, other = run(Contest("p", "c", contenders), FEW, lambda what: None)
    rounds = [
        turns[-place - 2 * IN_A_ROW :][: 2 * IN_A_ROW] for place in range(0, 6 * IN_A_ROW, 2 * IN_A_ROW)
    ]
    assert all(turn in (TURNS, TURNS[::-1]) for turn in rounds)
    assert mine.ratio == Spread(1.0, 1.0, 1.0) and mine.rounds == other.rounds == 3
    assert other.ratio is not None and other.ratio.low > 1
    assert other.over is not None and other.over.median > 0.001


def test_evaluations_are_counted_as_they_are_explained() -> None:
    contest = next(c for c in layers.contests(Settings(quick=True)) if (c.case, c.size) == ("rebar", 2))
    found = contest.measure(SCG, contest.contenders[SCG](), 1.0)
    assert found["evaluations explained"] == found["evaluations counted"] == 8
    assert 1 <= found["peak over score's"] < 3


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    figures.write(RESULTS, tmp_path / "results.json")
    assert figures.read(tmp_path / "results.json") == RESULTS


def test_the_report_has_times_ratios_faults_and_growth() -> None:
    text = report.report(RESULTS)
    assert "a processor, 2 cores" in text
    assert "| score |   10 | 2.00 (2.00) |    1.00 |         |" in text
    assert "| score |  100 | 20.0 (2.00) |         | crashed |" in text
    assert "- other crashed: RecursionError: too deep (score, 100)" in text
    assert "| rebar | scg       | 1.00 |     0.25 |" in text
    assert "| chain   | score | scg       |     1.00 | 10 to 100 |" in text


def test_examples_in_the_documentation_of_reports_hold() -> None:
    for module in (report, growth):
        assert doctest.testmod(module).failed == 0


def test_a_picture_of_growth_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    growth.draw(growth.curves(RESULTS.figures), tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("found", "word", "holds"),
    [(1.1, "ok", True), (1.5, "MISS", False), (0.5, "better: store it", True), (None, "crashed: x", False)],
)
def test_a_ratio_is_held_to_the_stored_one(found: float | None, word: str, holds: bool) -> None:
    guarded = check.Guarded("vae", "rebar", None, SCG, ratio=1.0, slack=1.2)
    ratio = None if found is None else Spread(found, found, found)
    verdict = check.verdict(
        guarded, Figure("vae", "rebar", None, SCG, ratio=ratio, error=None if found else word)
    )
    assert (verdict.word, verdict.holds) == (word, holds)
    assert f"| {word}" in check.judgement([verdict])


@pytest.mark.parametrize(("ratio", "status"), [(1e-9, 1), (1e9, 0)])
def test_the_guard_exits_with_1_on_a_miss(
    ratio: float, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = [check.Guarded("toy", "score", None, SCG, ratio=ratio)]
    monkeypatch.setattr(check, "read", lambda: stored)
    monkeypatch.setattr(check, "BUDGET", FEW)
    assert command.main(["--check"]) == status
    assert ("MISS" in capsys.readouterr().out) == bool(status)


def test_everything_stored_names_a_contender() -> None:
    known = check.contests()
    for each in check.read():
        assert each.contender in known[each.problem, each.case, each.size].contenders
        assert math.isfinite(each.ratio) and each.ratio > 0 and each.slack > 1


def test_the_decoder_tells_estimators_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations that are coupled or slopes of others have less variance, and all have one mean."""
    monkeypatch.setattr(decoder, "TRAINING", 0)
    rows = {row.name: row for row in decoder.ROWS}
    net = decoder.decoder()
    found = {
        name: decoder.variance(rows[name], net, 0.1, copies=3000)
        for name in ("leave-one-out 4", "arms 4", "double-cv 4")
    }
    first, mean = found["leave-one-out 4"]
    for name in ("arms 4", "double-cv 4"):
        own, other = found[name]
        assert own < 0.98 * first
        assert float((other - mean).square().sum()) < 2 * (own + first) / 3000
