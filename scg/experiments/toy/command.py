"""The command ``scg run toy``: its options, and one run from training to pictures and a table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from scg import runs
from scg.commands import Command, positive
from scg.experiments.means import shown
from scg.experiments.threads import one_thread
from scg.experiments.toy.pictures import draw_curves
from scg.experiments.toy.problem import POLICIES, least_loss
from scg.experiments.toy.training import Curve, Setting, Training
from scg.markdown import table
from scg.panels import require_matplotlib

TS, SEEDS, STEPS = (0.45, 0.499), 64, 10_000


def toy(
    out: Path,
    *,
    ts: Sequence[float] = TS,
    policies: Sequence[str] = tuple(POLICIES),
    seeds: int = SEEDS,
    steps: int = STEPS,
    seed: int = 1,
    resume: bool = False,
    overwrite: bool = False,
) -> str:
    """Train under each policy at each t, write pictures and a table into ``out``, and return the table."""
    require_matplotlib()
    settings = [
        Setting(policy, t, seeds, steps, seed)
        for t in dict.fromkeys(ts)
        for policy in dict.fromkeys(policies)
    ]
    trainings = [Training(setting) for setting in settings]
    shared = {"seeds": seeds, "steps": steps, "seed": seed}
    with one_thread(), runs.open(out, shared, name="toy", resume=resume, overwrite=overwrite) as run:
        run.at_saves(lambda: None)
        curves = [_trained(training, run) for training in trainings]
        draw_curves(curves, out)
        text = results(curves)
        run.write(".md", text + "\n")
    return f"{text}\n\n{seeds} seeds, {steps} steps of Adam. Pictures and this table are in {out}."


def _trained(training: Training, run: runs.Run) -> Curve:
    """Train, or go on, and return what was measured."""
    setting = training.setting
    part = run.part(f"t = {setting.t:g}, {setting.policy}")
    part.keep(training=training)
    if part.step == 0:
        part.log(**training.measured(0))
    for step in part.steps(setting.steps):
        training.step(step)
        if training.is_measured(step + 1):
            with part.aside():
                part.log(**training.measured(step + 1))
    steps, loss = part.history("loss")
    points = zip(loss, part.history("log_variance")[1], strict=True)
    named = ({"loss": one, "log_variance": other} for one, other in points)
    return training.curve(dict(zip(steps.tolist(), named, strict=True)))


def results(curves: Sequence[Curve]) -> str:
    """Return what every curve came to as a Markdown table, with the least loss there is."""
    titles = ("t", "policy", "expected loss", "std. error", "above least", "log-variance")
    rows = []
    for curve in curves:
        t, loss = curve.setting.t, curve.loss[-1]
        above, variance = float(loss.mean()) - least_loss(t), float(curve.log_variance[-1].mean())
        numbers = (*shown(loss, 6), f"{above:.6f}", f"{variance:.1f}")
        rows.append((f"{t:g}", curve.setting.policy, *numbers))
    return table(titles, "><>>>>", rows)


def _declare(parser: argparse.ArgumentParser) -> None:
    named = ", ".join(POLICIES)
    parser.add_argument(
        "--t", type=float, nargs="+", default=TS, metavar="T", help="the t of (b - t)^2 (0.45 0.499)"
    )
    parser.add_argument(
        "--seeds", type=positive, default=SEEDS, metavar="N", help=f"how many runs, all at once ({SEEDS})"
    )
    parser.add_argument("--steps", type=positive, default=STEPS, metavar="N", help=f"steps of Adam ({STEPS})")
    parser.add_argument(
        "--policy",
        nargs="+",
        default=tuple(POLICIES),
        metavar="P",
        help=f"names of estimators, any there are ({named})",
    )
    runs.add_options(parser)


TOY = Command(
    "the toy problem of the REBAR and RELAX papers: minimise E (b - t)^2 over one coin b",
    _declare,
    lambda options: toy(
        options.out,
        ts=options.t,
        policies=options.policy,
        seeds=options.seeds,
        steps=options.steps,
        seed=options.seed,
        resume=options.resume,
        overwrite=options.overwrite,
    ),
)
