"""The toy experiment: seeds on their own, variances of single gradients, and what the command leaves."""

from __future__ import annotations

import math
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from scg.__main__ import main
from scg.experiments.toy.problem import POLICIES, expected_loss, least_loss
from scg.experiments.toy.training import (
    RATE,
    Curve,
    Setting,
    Training,
    gradient_variance,
    noise_names,
    relaxed_values,
    seed_noise,
    toy_program,
    train,
)

LOGITS = torch.tensor([-3.0, -1.0, 0.0, 0.7])


def curve(policy: str, *, t: float = 0.45, seeds: int = 2, steps: int = 20) -> Curve:
    return train(Setting(policy, t, seeds, steps, seed=3))


def test_the_expected_loss_is_a_sum_over_both_sides() -> None:
    sides = torch.tensor([0.0, 1.0])
    p = torch.distributions.Bernoulli(logits=LOGITS).log_prob(sides.unsqueeze(1)).exp()
    expected = (p * (sides.unsqueeze(1) - 0.45) ** 2).sum(0)
    torch.testing.assert_close(expected_loss(LOGITS, 0.45), expected)
    assert float(expected_loss(torch.tensor(-40.0), 0.45)) == pytest.approx(least_loss(0.45))


def test_exact_is_adam_on_the_closed_form() -> None:
    logit = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.Adam([logit], lr=RATE)
    for _ in range(20):
        optimizer.zero_grad()
        expected_loss(logit, 0.45).backward()
        optimizer.step()
    found = curve("exact")
    torch.testing.assert_close(
        found.loss[-1].float(), expected_loss(logit.detach(), 0.45).expand(2), atol=1e-6, rtol=0
    )
    assert bool((found.log_variance == -math.inf).all())


@pytest.mark.parametrize("policy", POLICIES)
def test_a_seed_does_not_depend_on_the_number_of_others(policy: str) -> None:
    few, many = curve(policy, seeds=2), curve(policy, seeds=5)
    torch.testing.assert_close(few.loss, many.loss[:, :2], atol=1e-6, rtol=0)
    torch.testing.assert_close(few.log_variance, many.log_variance[:, :2], atol=1e-3, rtol=0)
    if policy != "exact":
        assert len(set(many.loss[-1].tolist())) == 5


def test_the_variance_of_the_score_has_a_closed_form() -> None:
    """The gradient is (1 - t)^2 (1 - p) with probability p, and else -t^2 p."""
    p = torch.sigmoid(LOGITS.double())
    closed = p * (1 - p) * ((1 - 0.45) ** 2 * (1 - p) + 0.45**2 * p) ** 2
    program = toy_program(Setting("score", 0.45, 4, 1, 0))
    found = gradient_variance(program, LOGITS, seed=0)
    torch.testing.assert_close(found, closed, atol=0, rtol=1e-5)


@pytest.mark.parametrize("policy", ["rebar", "relax"])
def test_the_variance_is_that_of_single_gradients(policy: str) -> None:
    program = toy_program(Setting(policy, 0.45, 4, 1, 0))
    with torch.no_grad():
        for parameter in program.control_parameters():
            parameter += 0.3
    found = gradient_variance(program, LOGITS, seed=0, draws=20_000)
    assert_near(found, sampled(program_gradients(program, 40_000)))


def program_gradients(program: torch.nn.Module, draws: int) -> Tensor:
    """Return independent gradients [draws, seeds], b drawn as it is in training."""
    leaf = LOGITS.expand(draws, -1).clone().requires_grad_()
    noise = seed_noise(noise_names(program, LOGITS), 7, draws, len(LOGITS))
    (gradient,) = torch.autograd.grad(program(logits=leaf, noise=noise).loss, leaf)
    return gradient.double()


def sampled(gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Return variances and their standard errors."""
    squares = (gradients - gradients.mean(0)).square()
    return squares.mean(0), squares.std(0) / math.sqrt(len(gradients))


def assert_near(found: Tensor, expected: tuple[Tensor, Tensor]) -> None:
    variance, error = expected
    assert bool(((found - variance).abs() < 5 * error).all()), (found, variance, error)
    assert bool((error < 0.05 * variance).all()), "errors this large would hide a wrong variance"


def test_a_single_gradient_is_unbiased_on_either_measure() -> None:
    program = toy_program(Setting("rebar", 0.45, 4, 1, 0))
    gradients = program_gradients(program, 40_000)
    p = torch.sigmoid(LOGITS.double())
    exact = p * (1 - p) * ((1 - 0.45) ** 2 - 0.45**2)
    assert bool(((gradients.mean(0) - exact).abs() < 5 * gradients.std(0) / 200).all())


def test_control_variates_are_at_relaxed_values() -> None:
    found = curve("rebar", steps=1).variate
    assert found is not None
    relaxed = relaxed_values()
    torch.testing.assert_close(found[:, 0], (relaxed - 0.45) ** 2, atol=0.02, rtol=0)
    assert curve("score", steps=1).variate is None
    network = curve("relax", steps=1).variate
    assert network is not None
    assert network.shape == (len(relaxed), 2)


def test_relax_beats_the_score_soon() -> None:
    score, relax = curve("score", seeds=8, steps=100), curve("relax", seeds=8, steps=100)
    assert float(relax.log_variance[-1].mean()) < float(score.log_variance[-1].mean()) - 3


def test_the_command_leaves_pictures_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a path"
    options = ["--steps", "4", "--seeds", "1", "--out", str(out), "--t", "0.3", "0.3"]
    assert main(["run", "toy", *options, "--policy", "enumerate", "relax", "relax"]) == 0
    panels = [f"toy_0.3_{name}.png" for name in ("log_variance", "loss", "relaxation")]
    own = [f"toy.{suffix}" for suffix in ("csv", "json", "md", "png", "pt")]
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == [*own, *panels]
    printed = capsys.readouterr()
    text = (out / "toy.md").read_text()
    assert text in printed.out
    assert [line.split("|")[2].strip() for line in text.splitlines()[2:]] == ["enumerate", "relax"]
    assert [line.split(":")[0] for line in printed.err.splitlines()] == [
        "t = 0.3, enumerate",
        "t = 0.3, relax",
    ]


def test_only_what_has_no_variance_can_be_drawn(tmp_path: Path) -> None:
    options = ["--steps", "2", "--seeds", "2", "--t", "0.499", "--policy", "exact", "--out", str(tmp_path)]
    assert main(["run", "toy", *options]) == 0
    assert (tmp_path / "toy.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "policy, told",
    [
        ("magic", "there is no policy 'magic'; there are exact, score, rebar, relax, "),
        ("lax", "lax cannot estimate 'b'"),
    ],
)
def test_policies_are_refused_before_any_is_trained(
    policy: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "toy", "--policy", "score", policy, "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"scg run toy: {told}")


@pytest.mark.parametrize("number", ["0", "-3", "many"])
def test_numbers_are_counts(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "toy", "--steps", number])
    assert "argument --steps" in capsys.readouterr().err


def test_what_goes_on_is_what_would_have_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["run", "toy", "--steps", "6", "--seeds", "2", "--t", "0.3", "--policy", "score", "relax"]
    step = Training.step

    def interrupted(training: Training, number: int) -> None:
        if training.setting.policy == "relax" and number == 2:
            signal.raise_signal(signal.SIGINT)
        step(training, number)

    parts, whole = tmp_path / "parts", tmp_path / "whole"
    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", interrupted)
        assert main([*options, "--out", str(parts)]) == 130
    assert main([*options, "--out", str(parts), "--resume"]) == 0
    assert main([*options, "--out", str(whole)]) == 0
    assert (parts / "toy.md").read_text() == (whole / "toy.md").read_text()
    assert (parts / "toy.png").read_bytes() == (whole / "toy.png").read_bytes()
