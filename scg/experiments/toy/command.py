"""The command ``scg run toy``: its options, and one run from training to pictures and a table."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from scg.commands import Command, add_out, positive
from scg.experiments.means import standard_error
from scg.experiments.pictures import require_matplotlib
from scg.experiments.threads import one_thread
from scg.experiments.toy.pictures import draw_curves
from scg.experiments.toy.problem import POLICIES, least_loss
from scg.experiments.toy.training import Curve, Point, Setting, toy_program, train
from scg.markdown import table
from scg.progress import Progress

TS, SEEDS, STEPS = (0.45, 0.499), 64, 10_000


def toy(
    out: Path,
    *,
    ts: Sequence[float] = TS,
    policies: Sequence[str] = tuple(POLICIES),
    seeds: int = SEEDS,
    steps: int = STEPS,
    seed: int = 1,
) -> str:
    """Train under each policy at each t, write pictures and a table into ``out``, and return the table."""
    require_matplotlib()
    out.mkdir(parents=True, exist_ok=True)
    settings = [
        Setting(policy, t, seeds, steps, seed)
        for t in dict.fromkeys(ts)
        for policy in dict.fromkeys(policies)
    ]
    programs = [toy_program(setting) for setting in settings]
    progress, curves = Progress(), []
    for index, (setting, program) in enumerate(zip(settings, programs, strict=True)):
        title = f"[{index + 1}/{len(settings)}] t = {setting.t:g}, {setting.policy}"
        with one_thread():
            curves.append(train(program, setting, _teller(progress, title, steps)))
    draw_curves(curves, out)
    text = results(curves)
    (out / "toy.md").write_text(text + "\n", encoding="utf-8")
    return f"{text}\n\n{seeds} seeds, {steps} steps of Adam. Pictures and this table are in {out}."


def _teller(progress: Progress, title: str, steps: int) -> Callable[[Point], None]:
    """Return what tells of a point of training, and keeps what it tells of the last."""

    def tell(point: Point) -> None:
        say = progress.finish if point.step == steps else progress.tell
        say(
            f"{title}: step {point.step}, expected loss {float(point.loss.mean()):.6f}, "
            f"log-variance {float(point.log_variance.mean()):.1f}, {point.speed:.0f} steps/s"
        )

    return tell


def results(curves: Sequence[Curve]) -> str:
    """Return what every curve came to as a Markdown table, with the least loss there is."""
    titles = ("t", "policy", "expected loss", "std. error", "above least", "log-variance")
    rows = []
    for curve in curves:
        t, loss = curve.setting.t, curve.loss[-1]
        mean, error = float(loss.mean()), float(standard_error(loss))
        above, variance = mean - least_loss(t), float(curve.log_variance[-1].mean())
        numbers = (f"{mean:.6f}", f"{error:.6f}", f"{above:.6f}", f"{variance:.1f}")
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
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of all noise (1)")
    add_out(parser)


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
    ),
)
