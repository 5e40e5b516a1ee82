"""The bandit: exact variances against enumeration and runs, and what trained controls leave."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scg.__main__ import main
from scg.experiments.rl.bandit import DRAWS, Bandit, exactly, measured
from scg.experiments.rl.residual import action_variance, baselines, best_baseline, residuals, scores


def problem(actions: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(actions)
    drawn = torch.randn(2, 5, actions, generator=generator, dtype=torch.float64)
    return drawn[0].softmax(-1), drawn[1]


@pytest.mark.parametrize("actions", [2, 3, 8])
def test_scores_are_the_derivatives_of_log_probabilities(actions: int) -> None:
    logits = torch.randn(actions, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: x.log_softmax(-1), logits)
    torch.testing.assert_close(scores(logits.softmax(-1)), jacobian)


@pytest.mark.parametrize("actions", [2, 3, 8])
def test_the_variance_is_that_of_draws(actions: int) -> None:
    p, q = problem(actions)
    drawn = torch.multinomial(p, 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    for baseline in baselines(p, q).values():
        estimates = ((q - baseline.unsqueeze(-1)).unsqueeze(-1) * scores(p))[torch.arange(5)[:, None], drawn]
        found = estimates.var(1).sum(-1)
        torch.testing.assert_close(action_variance(p, q, baseline), found, rtol=0.03, atol=1e-9)


@pytest.mark.parametrize("actions", [2, 3, 8])
def test_no_baseline_is_better_than_the_best(actions: int) -> None:
    p, q = problem(actions)
    b = best_baseline(p, q).requires_grad_()
    least = action_variance(p, q, b)
    (slope,) = torch.autograd.grad(least.sum(), b)
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-12, rtol=0)
    assert bool((least <= action_variance(p, q, b + 0.1)).all())
    assert bool((least < 1e-12).all()) == (actions == 2)


def test_two_actions_leave_nothing_and_more_do() -> None:
    assert residuals(2, 0)["best baseline"] < 1e-12
    assert residuals(2, 0)["V(s)"] > 0.1
    assert residuals(3, 0)["best baseline"] > 0.1
    assert residuals(8, 0)["best baseline"] > 0.4


def test_the_score_has_the_variance_that_enumeration_gives() -> None:
    for noise in (0.0, 1.0):
        bandit = Bandit.of(3, noise, 0)
        found = measured(bandit, "score", 1)
        assert found == pytest.approx(exactly(bandit)["no baseline"], rel=4 * (2 / DRAWS / 60) ** 0.5)


def test_trained_controls_leave_less_than_a_tenth_with_two_actions() -> None:
    bandit = Bandit.of(2, 0.0, 1)
    score = exactly(bandit)["no baseline"]
    for policy in ("score+value", "relax"):
        assert measured(bandit, policy, 300, draws=20) < 0.1 * score


def test_the_command_leaves_a_picture_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--quick", "--updates", "2", "--actions", "3", "--policy", "relax", "--out", str(tmp_path)]
    assert main(["run", "bandit", *options]) == 0
    files = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    assert files == [f"bandit.{end}" for end in ("csv", "json", "md", "png", "pt")]
    first, second = (tmp_path / "bandit.md").read_text().split("\n\n")
    assert f"{first}\n\n{second}" in capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in first.splitlines()[2:]] == ["2", "3", "4", "8"]
    titles = [cell.strip() for cell in second.splitlines()[0].split("|")[1:-1]]
    assert titles == ["actions", "control", "", "variance", "std. error", "over best baseline"]
    controls = [line.split("|")[2].strip() for line in second.splitlines()[2:]]
    assert controls == ["relax", "best baseline", "ideal c(s, a)"]


def test_what_goes_on_is_what_would_have_been(tmp_path: Path) -> None:
    options = ["--quick", "--updates", "2", "--actions", "2", "--policy", "relax"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(["run", "bandit", *options, "--seeds", "2", "--out", str(whole)]) == 0
    assert main(["run", "bandit", *options, "--seeds", "1", "--out", str(parts)]) == 0
    assert main(["run", "bandit", *options, "--seeds", "2", "--out", str(parts), "--resume"]) == 0
    assert (parts / "bandit.md").read_text() == (whole / "bandit.md").read_text()


def test_policies_that_there_are_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "bandit", "--policy", "lax", "--out", str(tmp_path)]) == 1
    told = "scg run bandit: there is no policy 'lax'; there are score, score+value, relax"
    assert capsys.readouterr().err.startswith(told)
