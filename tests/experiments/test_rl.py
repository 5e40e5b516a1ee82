"""Tasks of control: runs on their own, equal beginnings, exact resuming, and what the commands leave."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scg
from scg.__main__ import main
from scg.experiments.rl import tasks
from scg.experiments.rl.moments import Moments
from scg.experiments.rl.problem import DISCOUNT, Setting, program_of
from scg.experiments.rl.results import Curves, results
from scg.experiments.rl.tasks import TASKS
from scg.experiments.rl.training import History, Training, when_solved
from scg.experiments.stacked import layers, network


def setting(task: str = "cartpole", **changes: Any) -> Setting:
    found = {"seeds": 3, "seed": 1, "rate": 0.01, "control_rate": 0.01, "value_steps": 1}
    return Setting(**{"task": task, "steps": TASKS[task].steps and 30, **found, **changes})


def flat(parameters: Any) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


class TestRunsOnTheirOwn:
    def test_stacked_layers_are_those_of_each_run(self) -> None:
        seeds = [5, 6, 7]
        stacked = network((4, 3, 2), nn.ReLU, seeds)
        now, whole = torch.randn(3, 4), torch.randn(2, 3, 6, 4)
        for run, seed in enumerate(seeds):
            alone = layers((4, 3, 2), nn.ReLU, seed)
            torch.testing.assert_close(stacked(now)[run], alone(now[run]))
            torch.testing.assert_close(stacked(whole[0])[run], alone(whole[0, run]))
            torch.testing.assert_close(stacked(whole)[:, run], alone(whole[:, run]))

    def test_weights_are_those_of_linear_layers_and_torch_s_own_seed_stays(self) -> None:
        torch.manual_seed(0)
        expected = torch.rand(())
        torch.manual_seed(9)
        first = nn.Linear(4, 3)
        torch.manual_seed(0)
        found = layers((4, 3, 2), nn.ReLU, 9)
        assert torch.equal(found[0].weight, first.weight)
        assert torch.equal(torch.rand(()), expected)

    @pytest.mark.parametrize("policy", ["score", "score+value"])
    def test_gradients_are_the_formula_for_each_run(self, policy: str) -> None:
        """The sum over t of (credit - discount**t baseline) dlog p, by hand, in each run by itself."""
        program = program_of(setting(), policy, range(3))
        noise = program.draw_noise(4)
        program(noise=noise).loss.backward()
        record = noise["ep"]
        weights = DISCOUNT ** torch.arange(record["reward"].shape[1])
        to_go = (-record["reward"] * weights).flip(1).cumsum(1).flip(1)
        baseline = 0.0
        if policy == "score+value":
            baseline = weights * program.controls["ep"].net(record["state"]).detach()
        actor = program.ep
        log_prob = actor(record["state"]).log_prob(record["action"])
        surrogate = torch.where(record["mask"], (to_go - baseline) * log_prob, 0).sum(1)
        parameters = [*program.model_parameters()]
        for run in range(3):
            wanted = torch.autograd.grad(surrogate[run], parameters, retain_graph=True)
            for parameter, by_hand in zip(parameters, wanted, strict=True):
                torch.testing.assert_close(parameter.grad[run], by_hand[run], atol=1e-4, rtol=1e-4)
                assert not by_hand[[other for other in range(3) if other != run]].any()

    def test_the_controls_know_nothing_of_the_record_when_the_model_steps(self) -> None:
        once, often = (Training(setting(value_steps=count), "score+value", range(3)) for count in (1, 6))
        for training in (once, often):
            training.update()
        assert torch.equal(flat(once.model), flat(often.model))
        assert not torch.equal(flat(once.controls), flat(often.controls))


class TestEqualBeginnings:
    @pytest.mark.parametrize("task", ["cartpole", "lunarlander", "inverted-pendulum"])
    def test_policies_begin_with_equal_weights_and_episodes(self, task: str) -> None:
        pytest.importorskip(TASKS[task].needs)
        names = ("score", "score+value", "relax" if TASKS[task].discrete else "lax")
        runs = range(3) if TASKS[task].vectorised else range(1)
        several = [Training(setting(task), name, runs) for name in names]
        weights = [flat(training.model) for training in several]
        for training in several:
            training.update()
        for training, before in zip(several[1:], weights[1:], strict=True):
            assert torch.equal(before, weights[0])
            for found, first in zip(training.rows[0], several[0].rows[0], strict=True):
                if found.shape and found.isfinite().all():
                    assert torch.equal(found, first)
            assert not torch.equal(flat(training.model), flat(several[0].model))

    def test_runs_differ(self) -> None:
        program = program_of(setting(), "score", range(3))
        first = next(program.model_parameters())
        assert not torch.equal(first[0], first[1])


class TestMeasuring:
    def test_the_variance_is_unbiased_however_few_gradients_there_were(self) -> None:
        torch.manual_seed(0)
        for count in (2, 5, 300):
            moments = Moments()
            for _ in range(count):
                moments.add(1.0 + 2.0 * torch.randn(2, 200_000))
            found = moments.log_variance().exp()
            assert bool(((found - 4.0).abs() < 0.08).all()), (count, found)

    def test_one_gradient_has_no_variance_yet(self) -> None:
        moments = Moments()
        moments.add(torch.ones(2, 3))
        assert bool(moments.log_variance().isnan().all())

    def test_solved_is_the_first_window_that_is_good_enough(self) -> None:
        torch.manual_seed(0)
        reward = torch.randint(0, 10, (60, 8)).double()
        found = when_solved(reward, 5, 6.0)
        for run in range(8):
            ends = [end for end in range(5, 61) if reward[end - 5 : end, run].mean() >= 6.0]
            assert found[run] == ends[0] if ends else found[run].isnan()
        assert 0 < int(found.isfinite().sum()) < 8 or bool(found.isfinite().all())

    def test_a_table_of_known_histories(self) -> None:
        task = TASKS["cartpole"]

        def curves(policy: str, ends: tuple[int, ...]) -> Curves:
            update = torch.arange(1, 401).unsqueeze(1)
            reward = torch.where(update > torch.tensor(ends) - 100, 195.0, 0.0).double()
            ones = torch.ones_like(reward)
            return Curves(policy, (History(reward, ones, ones, 2 * ones, torch.arange(400.0)),))

        text = results(
            [curves("one", (100, 200)), curves("two", (130, 250)), curves("none", (900, 900))], task
        )
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
        assert rows[0][:6] == [
            "policy",
            "solved",
            "episodes to solve",
            "std. error",
            "less one",
            "std. error",
        ]
        assert rows[0][6:] == ["reward", "std. error", "env. steps", "cpu seconds"]
        assert rows[2] == ["one", "2 of 2", "150", "50", "", "", "195.0", "0.0", "1600", "399"]
        assert rows[3][:6] == ["two", "2 of 2", "190", "60", "+40", "10"]
        assert rows[4][:6] == ["none", "0 of 2", "> 400", "0", "+250", "50"]

    def test_pairs_are_compared_as_far_as_both_went(self) -> None:
        def curves(policy: str, rewards: list[float], task: str) -> list[str]:
            reward = torch.tensor(rewards).double().unsqueeze(1)
            ones = torch.ones_like(reward)
            cut = Curves(policy, (History(reward, ones, ones, ones, torch.arange(len(reward))),))
            start = torch.arange(300.0).double().unsqueeze(1)
            ones = torch.ones_like(start)
            whole = Curves("whole", (History(start, ones, ones, ones, torch.arange(300)),))
            text = results([whole, cut], TASKS[task]).splitlines()[3]
            return [cell.strip() for cell in text.split("|")[1:-1]]

        assert curves("cut", [0.0] * 120, "cartpole")[:6] == ["cut", "0 of 1", "> 120", "", "+0", ""]
        early = curves("cut", [k + 2.0 for k in range(20)], "inverted-pendulum")
        assert early[:5] == ["cut", "20", "16.5", "", "+2.0"]


def columns(text: str) -> list[str]:
    return [cell.strip() for cell in text.splitlines()[0].split("|")[1:-1]]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def states(path: Path) -> dict[str, Any]:
    """Return what a checkpoint has of each training."""
    return {name: part["things"]["training"] for name, part in torch.load(path)["parts"].items()}


class TestCommands:
    @pytest.mark.parametrize("task", TASKS)
    def test_what_a_command_leaves(
        self, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pytest.importorskip(TASKS[task].needs)
        out = tmp_path / "a path"
        own = "relax" if TASKS[task].discrete else "lax"
        options = ["--quick", "--updates", "2", "--seeds", "1", "--out", str(out)]
        assert main(["run", task, *options, "--policy", own, "score", "score"]) == 0
        assert files(out) == [f"{task}.{suffix}" for suffix in ("csv", "json", "md", "png", "pt")]
        text, printed = (out / f"{task}.md").read_text(), capsys.readouterr()
        assert text in printed.out
        assert [line.split("|")[1].strip() for line in text.splitlines()[2:]] == [own, "score"]
        assert {"policy", "reward", f"less {own}", "env. steps", "cpu seconds"} <= set(columns(text))
        assert ("episodes to solve" in columns(text)) == (TASKS[task].solved is not None)
        assert printed.err.splitlines()[-1].startswith("score 0: step 2 of 2, reward ")

    def test_value_steps_and_rates_are_options(self, tmp_path: Path) -> None:
        options = [
            "--updates",
            "1",
            "--value-steps",
            "3",
            "--control-rate",
            "0.1",
            "--rate",
            "0.003",
            "--out",
            str(tmp_path),
        ]
        assert main(["run", "cartpole", "--quick", *options]) == 0
        found = json.loads((tmp_path / "cartpole.json").read_text())
        assert (found["value_steps"], found["control_rate"], found["rate"]) == (3, 0.1, 0.003)


class TestResuming:
    OPTIONS = ("--quick", "--policy", "relax", "score+value")

    @pytest.mark.parametrize("task", ["cartpole", "inverted-pendulum"])
    def test_what_goes_on_is_what_would_have_been(self, task: str, tmp_path: Path) -> None:
        pytest.importorskip(TASKS[task].needs)
        own = "relax" if TASKS[task].discrete else "lax"
        runs = "2" if TASKS[task].vectorised else "1"
        options = ["run", task, "--quick", "--seeds", runs, "--policy", own, "score+value"]
        whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
        assert main([*options, "--updates", "3", "--out", whole]) == 0
        assert main([*options, "--updates", "1", "--out", parts]) == 0
        assert main([*options, "--updates", "3", "--out", parts, "--resume"]) == 0
        found, wanted = (states(Path(out) / f"{task}.pt") for out in (parts, whole))
        assert found.keys() == wanted.keys()
        for name in wanted:
            for key, value in wanted[name]["program"].items():
                assert torch.equal(found[name]["program"][key], value), (name, key)
            assert len(found[name]["rows"]) == 3
            for one, other in zip(found[name]["rows"], wanted[name]["rows"], strict=True):
                for left, right in zip(one[:4], other[:4], strict=True):
                    torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)
            assert found[name]["seconds"] > 0

    def test_ctrl_c_writes_what_was_reached(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        update = Training.update

        def interrupted(training: Training) -> None:
            if len(training.rows) == 1:
                signal.raise_signal(signal.SIGINT)
            update(training)

        options = ["run", "cartpole", *self.OPTIONS, "--updates", "3", "--out", str(tmp_path)]
        handler = signal.getsignal(signal.SIGINT)
        with monkeypatch.context() as patch:
            patch.setattr(Training, "update", interrupted)
            assert main(options) == 130
        assert signal.getsignal(signal.SIGINT) is handler
        path = tmp_path / "cartpole.pt"
        assert files(tmp_path) == [f"cartpole.{suffix}" for suffix in ("csv", "json", "md", "png", "pt")]
        told = f"It was stopped after step 2 of 3; saved in {path}: go on with --resume"
        assert told in capsys.readouterr().out
        assert [len(state["rows"]) for state in states(path).values()] == [2]
        assert main([*options, "--resume"]) == 0
        assert [len(state["rows"]) for state in states(path).values()] == [3, 3]

    def test_another_setting_is_refused_and_named(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        options = ["run", "cartpole", *self.OPTIONS, "--updates", "1", "--out", str(tmp_path)]
        assert main(options) == 0
        assert main([*options, "--resume", "--rate", "0.003", "--seeds", "4"]) == 1
        told = capsys.readouterr().err
        assert "run of other settings: seeds 2 -> 4, rate 0.01 -> 0.003, control-rate 0.01 -> 0.003" in told

    def test_nothing_to_resume(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["run", "cartpole", "--quick", "--resume", "--out", str(tmp_path)]) == 1
        assert f"nothing to go on with: there is no {tmp_path / 'cartpole.json'}" in capsys.readouterr().err

    def test_a_run_is_not_overwritten_unasked(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        options = ["run", "cartpole", *self.OPTIONS, "--updates", "1", "--out", str(tmp_path)]
        assert main(options) == 0
        assert main(options) == 1
        assert "already: go on with it" in capsys.readouterr().err.replace(", ...", ", cartpole.pt")
        assert main([*options, "--overwrite"]) == 0

    def test_a_file_says_options(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        config = tmp_path / "own.toml"
        config.write_text("updates = 1\npolicy = ['score']\nquick = true")
        out = tmp_path / "out"
        assert main(["run", "cartpole", "--config", str(config), "--out", str(out)]) == 0
        assert [*states(out / "cartpole.pt")] == ["score 0"]
        config.write_text("update = 1")
        assert main(["run", "cartpole", "--config", str(config)]) == 1
        assert "there is no key 'update': 'updates' is meant?" in capsys.readouterr().err


class TestBadInput:
    @pytest.mark.parametrize(
        "policies, told",
        [
            (["relax", "magic"], "there is no policy 'magic'; there are relax, lax, score+value, a2c, score"),
            (["relax", "lax"], "lax cannot estimate 'ep'"),
        ],
    )
    def test_policies_are_refused_before_any_is_trained(
        self, policies: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["run", "cartpole", "--quick", "--policy", *policies, "--out", str(tmp_path)]) == 1
        assert capsys.readouterr().err.startswith(f"scg run cartpole: {told}")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("task, module", [("cartpole", "gymnasium"), ("lunarlander", "Box2D")])
    def test_what_is_not_installed(
        self,
        task: str,
        module: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
    ) -> None:
        monkeypatch.setattr(tasks, "find_spec", lambda name: None if name == module else object())
        assert main(["run", task, "--quick", "--out", str(tmp_path)]) == 1
        assert capsys.readouterr().err == f'scg run {task}: {task} needs {module}: pip install "scg[rl]"\n'

    def test_an_api_call_names_the_policies_too(self) -> None:
        with pytest.raises(scg.PolicyError, match="there is no policy 'ppo'; there are relax"):
            Training(setting(), "ppo", range(2))


def test_a2c_begins_as_score_and_value_and_leaves_the_same_estimate() -> None:
    value, critic = (Training(setting(), name, range(3)) for name in ("score+value", "a2c"))
    assert torch.equal(flat(value.controls), flat(critic.controls))
    for training in (value, critic):
        training.update()
    assert torch.equal(flat(value.model), flat(critic.model))
    assert not torch.equal(flat(value.controls), flat(critic.controls))
