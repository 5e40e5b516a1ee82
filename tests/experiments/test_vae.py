"""Discrete autoencoders: runs on their own in one program, bounds against sums, tables, and the command."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import scg
from scg.__main__ import main
from scg.experiments.vae.adam import RunAdam
from scg.experiments.vae.controls import Input, Reading
from scg.experiments.vae.data.images import Images
from scg.experiments.vae.model import Spec, declare
from scg.experiments.vae.policies import compiled, policy_of, written
from scg.experiments.vae.results import Curve, results
from scg.experiments.vae.training import Setting, Training

PIXELS, BATCH = 4, 3
MEAN = torch.tensor([0.2, 0.5, 0.7, 0.0])
POLICIES = ("score", "rebar", "relax", "nvil", "score moving-average", "score leave-one-out 2")
SPECS = {
    "one": Spec(1, 3),
    "two": Spec(2, 2),
    "nonlinear": Spec(1, 2, hidden=(5,)),
    "outcomes": Spec(1, 2, 3),
}


def coins(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).round()


def program_of(policy: str, spec: Spec, seeds: list[int], batch: int = BATCH) -> scg.Program:
    found = written(policy, spec)
    return compiled(declare(spec, MEAN, seeds, batch), found, policy_of(found, spec, MEAN, seeds))[0]


def moved(program: scg.Program) -> None:
    """Move parameters off where they begin, controls too, each entry by its place in its run."""
    with torch.no_grad():
        for parameter in program.parameters():
            if parameter.dim() > 1:
                parameter += 0.3 * torch.linspace(-1, 1, parameter[0].numel()).view(parameter[0].shape)


def gradients(program: scg.Program, x: Tensor, noise: dict[str, Tensor]) -> dict[str, Tensor]:
    program.zero_grad()
    program(x=x, noise=noise).loss.backward()
    return {name: p.grad.clone() for name, p in program.named_parameters() if p.grad is not None}


class TestRunsOnTheirOwn:
    @pytest.mark.parametrize("spec", SPECS)
    @pytest.mark.parametrize("policy", POLICIES)
    def test_the_gradient_of_a_run_is_that_of_it_alone(self, policy: str, spec: str) -> None:
        """Also that of the controls which each run has of its own, and after a step that is remembered."""
        seeds = [5, 6, 7]
        several = program_of(policy, SPECS[spec], seeds)
        moved(several)
        x = coins(3, BATCH, PIXELS)
        several(x=1 - x, noise=(before := several.draw_noise(2, x=x)))
        noise = several.draw_noise(1, x=x)
        found = gradients(several, x, noise)
        total: dict[str, Tensor] = {}
        for run, seed in enumerate(seeds):
            alone = program_of(policy, SPECS[spec], [seed])
            moved(alone)
            dim, part = int(policy.endswith("2")), x[run : run + 1]
            past, own = ({n: v.narrow(dim, run, 1) for n, v in all_.items()} for all_ in (before, noise))
            alone(x=1 - part, noise=past)
            for name, gradient in gradients(alone, part, own).items():
                if gradient.dim() > 1:
                    torch.testing.assert_close(found[name][run : run + 1], gradient, atol=1e-5, rtol=1e-4)
                total[name] = total.get(name, 0) + gradient
        for name, gradient in total.items():
            if gradient.dim() < 2:
                torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4)
        assert total.keys() == found.keys()

    @pytest.mark.parametrize("spec", SPECS)
    @pytest.mark.parametrize("policy", ["score", "rebar", "relax", "score leave-one-out 2"])
    def test_gradients_are_unbiased_in_the_plate(self, policy: str, spec: str) -> None:
        program = program_of(policy, SPECS[spec], [1, 2], batch=2)
        moved(program)
        x = coins(2, 2, PIXELS)
        verdict = scg.verify(program, x=x, draws=20_000, resolution=0.2)
        assert verdict.verdict == "unbiased", str(verdict)

    def test_weights_of_a_run_do_not_depend_on_the_others(self) -> None:
        several, alone = (program_of("relax", Spec(2, 2), seeds) for seeds in ([5, 6], [6]))
        for (name, one), (_, other) in zip(several.named_parameters(), alone.named_parameters(), strict=True):
            assert one.dim() == 0 or torch.equal(one[1:], other), name


class TestModel:
    @pytest.mark.parametrize("spec", SPECS)
    def test_the_bound_is_the_sum_over_all_latents(self, spec: str) -> None:
        """With many values the bound of validation is log p(x), by a sum over everything."""
        own = SPECS[spec]
        program = program_of("score", own, [1, 2])
        moved(program)
        x = coins(2, 1, PIXELS)
        one = list(itertools.product((0.0, 1.0), repeat=own.count))
        if own.outcomes is not None:
            picks = itertools.product(range(own.outcomes), repeat=own.count)
            one = [tuple(np.eye(own.outcomes)[list(pick)].flatten()) for pick in picks]
        total = torch.zeros(2, 0)
        for values in itertools.product(one, repeat=own.layers):
            logs = joint(program, own, x, [torch.tensor(v).float().expand(2, 1, -1) for v in values])
            total = torch.cat((total, logs), 1)
        exact = total.double().logsumexp(1)
        costs = scg.compile(declare(own, MEAN, [1, 2], 1), "score", samples=4000)
        costs.load_state_dict(program.state_dict(), strict=False)
        with torch.no_grad():
            found = (-costs(x=x, seed=1).costs["nelbo"][..., 0]).double().logsumexp(0) - np.log(4000)
        torch.testing.assert_close(found, exact, atol=0.1, rtol=0)

    def test_pixels_begin_with_the_odds_of_their_mean(self) -> None:
        program = program_of("score", Spec(1, 3), [1])
        bias = dict(program.named_parameters())["px.net.bias0"]
        torch.testing.assert_close(bias[0, 0].sigmoid(), MEAN.clamp(0.001))


def joint(program: scg.Program, spec: Spec, x: Tensor, values: list[Tensor]) -> Tensor:
    """Return log p(x, latents) of each run, [run, 1], by torch's own functions."""
    parts = dict(program.named_modules())

    def log_prob(value: Tensor, logits: Tensor) -> Tensor:
        if spec.outcomes is None or value is x:
            return -nn.functional.binary_cross_entropy_with_logits(logits, value, reduction="none").sum(-1)
        logs = logits.reshape(*logits.shape[:2], spec.count, spec.outcomes).log_softmax(-1).flatten(-2)
        return (value * logs).sum(-1)

    with torch.no_grad():
        prior = program.get_parameter("prior").flatten(1).unsqueeze(1)
        logs = log_prob(values[-1], prior)
        for layer in range(1, spec.layers):
            logs = logs + log_prob(values[layer - 1], parts[f"p{layer}"].net(2 * values[layer] - 1))
        return logs + log_prob(x, parts["px"].net(2 * values[0] - 1))


class TestAdam:
    @pytest.mark.parametrize("amsgrad", [False, True])
    def test_each_run_is_torch_s_own_at_its_rate(self, amsgrad: bool) -> None:
        rates, start = torch.tensor([0.1, 0.01]), torch.linspace(-1, 1, 6).view(2, 3)
        own, shared = nn.Parameter(start.clone()), nn.Parameter(torch.ones(2))
        ours = RunAdam([own], rates, shared=[shared], beta=0.99, amsgrad=amsgrad)
        theirs = [nn.Parameter(start[run].clone()) for run in range(2)] + [nn.Parameter(torch.ones(2))]
        groups = [{"params": [p], "lr": r} for p, r in zip(theirs, (0.1, 0.01, 0.055), strict=True)]
        adam = torch.optim.Adam(groups, betas=(0.9, 0.99), amsgrad=amsgrad)
        for step in range(20):
            gradient = torch.sin(torch.arange(6.0).view(2, 3) * step) / (1 + step)
            own.grad, shared.grad = gradient, gradient[0, :2].clone()
            for parameter, part in zip(theirs, (*gradient, gradient[0, :2]), strict=True):
                parameter.grad = part.clone()
            ours.step()
            adam.step()
        torch.testing.assert_close(own, torch.stack(theirs[:2]))
        torch.testing.assert_close(shared, theirs[2])


def test_a_reading_network_is_one_of_all_inputs_together() -> None:
    inputs = [Input("logits", (2, 3)), Input("image", (4,)), Input("latents", (2,))]
    net = Reading(inputs, MEAN, [1, 2], nn.ReLU)
    nn.init.ones_(net.scale)
    z, x, b = torch.randn(7, 2, BATCH, 2, 3), torch.randn(2, BATCH, 4), coins(2, BATCH, 2)
    found = net(z, x, b)
    given = torch.cat(
        (z.flatten(-2), (x - MEAN).expand(7, -1, -1, -1), (2 * b - 1).expand(7, -1, -1, -1)), -1
    )
    for run in range(2):
        weight = torch.cat([part[run] for part in net.weights])
        hidden = torch.relu(given[:, run] @ weight + net.bias[run])
        for index in range(2):
            hidden = (
                hidden @ getattr(net.rest, f"weight{index}")[run] + getattr(net.rest, f"bias{index}")[run]
            )
            hidden = torch.relu(hidden) if not index else hidden
        torch.testing.assert_close(found[:, run], hidden.squeeze(-1))


def images() -> Images:
    """Images of two kinds, which one latent can tell apart."""
    pixels = torch.tensor([[0.9, 0.9, 0.1, 0.1], [0.1, 0.1, 0.9, 0.9]]).repeat(20, 1)
    return Images("own", pixels[:30], pixels[30:], 2, 2)


def setting(**changes: Any) -> Setting:
    usual: dict[str, Any] = {
        "data": "own",
        "layers": 2,
        "latents": "3",
        "hidden": (),
        "seeds": 2,
        "seed": 1,
        "rates": (0.1, 0.01),
        "control_scale": 1.0,
        "amsgrad": True,
        "batch": BATCH,
        "dtype": "float32",
    }
    return Setting(**{**usual, **changes})


def training(policy: str, **changes: Any) -> Training:
    return Training(setting(**changes), Spec(2, 3), images(), policy, torch.device("cpu"))


class TestTraining:
    def test_policies_begin_alike_and_see_the_same(self) -> None:
        several = [training(policy) for policy in ("relax", "rebar", "score leave-one-out 2")]
        for one in several[1:]:
            assert all(torch.equal(v, several[0].parameters()[n]) for n, v in one.parameters().items())
            assert torch.equal(one.batch(3), several[0].batch(3))
            assert torch.equal(one.bound(), several[0].bound())
        batch = several[0].batch(3)
        assert torch.equal(batch[:2], batch[2:]), "a seed sees the same at every rate"
        assert not torch.equal(batch[0], batch[1])
        values = [one.program(x=batch, seed=1).samples["b2"] for one in several[:2]]
        assert torch.equal(*values)

    def test_each_rate_goes_its_own_way(self) -> None:
        both = training("score")
        one = training("score", rates=(0.01,))
        before = both.parameters()["prior"]
        for step in range(3):
            both.step(step)
        assert float((both.parameters()["prior"] - before)[:2].norm()) > 3 * float(
            (both.parameters()["prior"] - before)[2:].norm()
        )
        one.step(0)

    def test_compiled_steps_lead_to_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compile_ = scg.Program.compile
        monkeypatch.setattr(scg.Program, "compile", lambda self: compile_(self, backend="aot_eager"))
        # In doubles, as Adam makes a whole step of what is left of a gradient of 0.
        one, other = training("score", dtype="float64"), training("score", dtype="float64", is_compiled=True)
        for step in range(3):
            one.step(step)
            other.step(step)
        torch.testing.assert_close(other.parameters(), one.parameters(), rtol=1e-6, atol=1e-8)

    def test_the_bound_rises(self) -> None:
        for policy in ("relax", "nvil", "b1=rebar,b2=disarm"):
            found = training(policy)
            before = found.bound()
            for step in range(60):
                found.step(step)
            assert bool((found.bound() > before + 0.2)[:2].all()), policy

    def test_the_log_variance_is_that_of_gradients_at_given_parameters(self) -> None:
        one, other = training("score"), training("relax")
        for step in range(5):
            other.step(step)
        kept = {name: value.clone() for name, value in one.program.state_dict().items()}
        found = one.log_variance(other.parameters())
        assert found.shape == (2, 4)
        assert all(torch.equal(v, kept[n]) for n, v in one.program.state_dict().items())
        one.program.load_state_dict({**kept, **other.parameters()})
        assert torch.equal(one.log_variance(one.parameters()), found)

    def test_controls_of_runs_and_of_all(self) -> None:
        own, shared = training("relax")._controls()
        assert {len(parameter) for parameter in own} == {4}
        assert {parameter.dim() for parameter in shared} == {0}
        assert training("score")._controls() == ([], [])


def test_a_table_of_known_curves() -> None:
    steps, seconds = torch.tensor([0, 10, 20]), torch.tensor([0.0, 1.0, 2.0])

    def curve(name: str, ends: list[float], evaluations: int, slow: float, **more: Any) -> Curve:
        bound = torch.stack([torch.full((4,), -9.0), torch.full((4,), -5.0), torch.tensor(ends)]).double()
        return Curve(name, (0.1, 0.01), steps, slow * seconds, bound, evaluations, 1, **more)

    first = curve("one", [-4.0, -2.0, -7.0, -7.0], 4, 1.0, validation=torch.tensor([-1.0, -3.0, 0, 0]))
    last = curve("two", [-8.0, -8.0, -3.0, -2.0], 1, 2.0, unbiased=False)
    tables = results([first, last]).split("\n\n")
    rows = [[[c.strip() for c in line.split("|")[1:-1]] for line in t.splitlines()] for t in tables[:3]]
    assert rows[0][0][:5] == ["policy", "rate", "bound after 20 steps", "less one", "validation"]
    assert rows[0][2] == ["one", "0.1", "-3.000 ± 1.000", "", "-2.000 ± 1.000", "4", "1", "100.0"]
    assert rows[0][3] == ["two*", "0.01", "-2.500 ± 0.500", "+0.500 ± 0.500", "", "1", "1", "200.0"]
    assert rows[1][0][1:] == ["bound after 20 evaluations", "less one", "after 2.0 s", "less one"]
    assert rows[1][2][1:] == ["-7.000 ± 0.000", "", "-3.000 ± 1.000", ""]
    assert rows[1][3][1:] == ["-2.500 ± 0.500", "+4.500 ± 0.500", "-5.000 ± 0.000", "-2.000 ± 1.000"]
    assert rows[2][3] == ["two*", "-8.000 ± 0.000", "-2.500 ± 0.500"]
    assert tables[3] == "\\* biased"


@pytest.fixture
def data(tmp_path: Path) -> str:
    path = tmp_path / "own.npz"
    np.savez(path, np.random.default_rng(1).random((40, 2, 2)))
    return str(path)


class TestCommand:
    def options(self, data: str, out: Path, *more: str) -> list[str]:
        few = ["--latents", "3", "--steps", "4", "--seeds", "2", "--rates", "0.1", "0.01"]
        return ["run", "vae", "--data", data, *few, "--out", str(out), *more]

    def test_what_it_leaves(self, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "a path"
        policies = ["--policy", "relax", "score leave-one-out 2", "concrete", "b1=rebar,b2=nvil"]
        assert main(self.options(data, out, *policies)) == 0
        files = sorted(path.name for path in out.iterdir() if path.is_file())
        assert files == [f"vae.{suffix}" for suffix in ("csv", "json", "md", "png", "pt")]
        text, printed = (out / "vae.md").read_text(), capsys.readouterr()
        assert text in printed.out
        named = [line.split("|")[1].strip() for line in text.split("\n\n")[0].splitlines()[2:]]
        assert named == ["relax", "score leave-one-out 2", "concrete*", "b1=rebar,b2=nvil"]
        assert "nan" not in text

    @pytest.mark.parametrize(
        "model", [["--layers", "1", "--nonlinear"], ["--latents", "2x3"], ["--dtype", "float64"]]
    )
    def test_other_models(self, model: list[str], data: str, tmp_path: Path) -> None:
        assert main(self.options(data, tmp_path / "out", "--policy", "relax", "nvil", *model)) == 0

    def test_what_goes_on_is_what_would_have_been(
        self, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        step, parts, whole = Training.step, tmp_path / "parts", tmp_path / "whole"
        policies = ["--policy", "nvil", "relax"]

        def interrupted(training: Training, number: int) -> None:
            if training.policy == "relax" and number == 2:
                signal.raise_signal(signal.SIGINT)
            step(training, number)

        with monkeypatch.context() as patch:
            patch.setattr(Training, "step", interrupted)
            assert main(self.options(data, parts, *policies)) == 130
        assert main(self.options(data, parts, *policies, "--resume")) == 0
        assert main(self.options(data, whole, *policies)) == 0
        found, wanted = (torch.load(out / "vae.pt")["parts"] for out in (parts, whole))
        for name in policies[1:]:
            states = [part[name]["things"]["training"]["program"] for part in (found, wanted)]
            assert all(torch.equal(states[0][key], value) for key, value in states[1].items())

    @pytest.mark.parametrize(
        "options, told",
        [
            (["--policy", "relaks"], "'relaks': there is no estimator 'relaks': 'relax' is meant?"),
            (["--policy", "b1=relax,b3=rebar"], "there is no layer 'b3'; there are b1, b2"),
            (["--policy", "b1=relax"], "has no estimator for b2: write b2=... as well"),
            (["--policy", "score leave-one-in 4"], "there is no baseline 'leave-one-in': 'leave-one-out' is"),
            (
                ["--policy", "disarm self-critical"],
                "disarm takes no baseline; score, rebar, muprop",
            ),
            (["--policy", "4"], "'4' is no policy: write as relax"),
            (["--policy", "score leave-one-out"], "say how many, as in 'score leave-one-out 4'"),
            (["--policy", "reparam"], "reparam cannot estimate 'b1'"),
            (["--device", "cuda:7"], "there is no device 'cuda:7'; there are cpu"),
            (["--dtype", "float"], "there is no dtype 'float'"),
            (["--latents", "2y3"], "'2y3' is neither a number of coins, as 200, nor"),
            (["--data", "mnist"], "there is no data 'mnist': 'mnist5k' is meant?"),
            (["--data", "/nowhere"], "there are digits, mnist5k; or give a folder, or a .npz, that is there"),
        ],
    )
    def test_bad_input(
        self, options: list[str], told: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(self.options(data, tmp_path / "out", *options)) == 1
        error = capsys.readouterr().err
        assert error.startswith("scg run vae: ")
        assert told in error
        assert not (tmp_path / "out").exists()

    def test_a_misspelt_option_is_told_with_the_usage_of_the_command(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            main(["run", "vae", "--polcy", "relax"])
        told = capsys.readouterr().err
        assert ended.value.code == 2
        assert told.startswith("usage: scg run vae ")
        assert told.endswith("scg run vae: error: unrecognized arguments: --polcy relax\n")

    def test_a_misspelt_key(self, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        config = tmp_path / "own.toml"
        config.write_text("ratse = [0.1]\nseeds = 2.5")
        assert main(self.options(data, tmp_path / "out", "--config", str(config))) == 1
        told = capsys.readouterr().err
        assert "there is no key 'ratse': 'rates' is meant?" in told
        assert "'seeds' is 2.5, which does not do" in told

    def test_other_settings(self, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        options = self.options(data, tmp_path / "out", "--policy", "score")
        assert main(options) == 0
        assert main([*options, "--batch", "7", "--resume"]) == 1
        assert "run of other settings: batch 24 -> 7" in capsys.readouterr().err
