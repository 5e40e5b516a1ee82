"""Where to look and how to throw: both learn, go on after an end, and are short."""

from __future__ import annotations

import signal
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from scg import runs
from scg.__main__ import main
from scg.experiments import attention, learning, simulator
from scg.experiments.learning import Experiment, Learner
from scg.runs.checkpoint import load
from tests.experiments.test_public import ROOT

BOTH = pytest.mark.parametrize("experiment", [attention.ATTENTION, simulator.SIMULATOR], ids=lambda e: e.name)


def trained(learner: Learner, steps: int, rate: float) -> float:
    adam = torch.optim.Adam(learner.program.parameters(), lr=rate)
    for step in range(steps):
        adam.zero_grad()
        learner.program(**learner.inputs(step), seed=runs.seed_of("step", step)).loss.backward()
        adam.step()
    return learner.measure()


def test_looking_is_learned_and_looking_anywhere_is_not_enough() -> None:
    anywhere = (1 + (attention.CELLS - 1) * 0.1) / attention.CELLS
    found = trained(attention.learner("enumerate", 1), 350, 0.005)
    assert found > 0.6
    assert trained(attention.learner(attention.ANYWHERE, 1), 350, 0.005) < anywhere + 0.05


def test_throwing_is_learned() -> None:
    learner = simulator.learner("score+value", 1)
    before = learner.measure()
    assert before > 5
    assert trained(learner, 300, 0.005) < 0.25 * before


@BOTH
def test_every_policy_is_unbiased_by_its_own_word(experiment: Experiment) -> None:
    for policy in experiment.policies:
        program = experiment.learner(policy, 1).program
        assert all(choice.unbiased for choice in program.policy.values())


def test_the_mean_gradient_of_looks_is_that_of_all_places() -> None:
    """By enumeration of all places, at the weights that training begins with."""
    found = {}
    for policy in ("leave-one-out", "unordered-set", "relax", "enumerate"):
        learner = attention.learner(policy, 1)
        inputs = {name: value[:4] for name, value in learner.inputs(0).items()}
        weight = dict(learner.program.named_parameters())["logits.2.bias"]
        losses = (learner.program(**inputs, seed=s).loss for s in range(1 if policy == "enumerate" else 1500))
        found[policy] = torch.stack([torch.autograd.grad(loss, weight)[0] for loss in losses]).double()
    exact = found.pop("enumerate")[0]
    for policy, draws in found.items():
        error = draws.std(0) / len(draws) ** 0.5
        assert bool(((draws.mean(0) - exact).abs() < 4.5 * error).all()), policy
        assert float(error.max()) < 0.2 * float(exact.abs().max())


def test_only_one_cell_has_a_digit() -> None:
    images, labels = attention.digits()
    found = attention.canvases(images, labels, 50, 3)
    for cells, label in zip(found["cells"], found["label"], strict=True):
        own = images[labels == label]
        assert sum(bool((own == cell).all(-1).any()) for cell in cells) == 1


def test_what_hits_the_wall_falls_down_at_it() -> None:
    flat, high = np.array([-2.0, 1.0]), np.array([0.5, 0.0])
    path = simulator.fly(np.stack((flat, high)), np.zeros(2))
    assert path[-1, 0, 0] == simulator.WALL
    assert path[-1, 0, 1] > simulator.WALL
    assert (path[-1, 1] < 0).all()


@BOTH
def test_the_command_goes_on_to_what_would_have_been(
    experiment: Experiment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    policies = [*experiment.policies][-2:]
    words = ["run", experiment.name, "--seeds", "2", "--evaluations", "60", "--policy", *policies]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    table = (tmp_path / "whole" / f"{experiment.name}.md").read_text()
    assert table in capsys.readouterr().out
    assert (tmp_path / "whole" / f"{experiment.name}.png").read_bytes().startswith(b"\x89PNG")

    stop_at(monkeypatch, 5)
    assert main([*words, "--out", str(tmp_path / "two")]) == 130
    monkeypatch.undo()
    assert main([*words, "--out", str(tmp_path / "two"), "--resume"]) == 0
    one, other = (load(tmp_path / place / f"{experiment.name}.pt") for place in ("whole", "two"))
    for part, state in one.items():
        for name, value in state["things"]["program"].items():
            assert torch.equal(
                torch.as_tensor(value), torch.as_tensor(other[part]["things"]["program"][name])
            ), name


def stop_at(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Press Ctrl-C while a program is run for the n-th time in training."""
    seed_of, calls = runs.seed_of, []

    def counted(*parts: object) -> int:
        calls.append(parts[1:2] == ("step",))
        if sum(calls) == call and calls[-1]:
            signal.raise_signal(signal.SIGINT)
        return seed_of(*parts)

    monkeypatch.setattr(learning.runs, "seed_of", counted)


@BOTH
def test_a_policy_that_there_is_not_is_named(
    experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", experiment.name, "--policy", "scoer", "--out", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"scg run {experiment.name}: there is no policy 'scoer': 'score' is meant?")
    assert all(policy in told for policy in experiment.policies)


@pytest.mark.parametrize("module", [attention, simulator])
def test_they_are_short(module: ModuleType) -> None:
    assert len((ROOT / f"{module.__name__.rpartition('.')[2]}.py").read_text().splitlines()) < 120
