"""The command ``scg run vae``: discrete autoencoders under several estimators, to tables and curves."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

import scg
from scg import runs
from scg.commands import Command, Ended, positive
from scg.experiments.threads import one_thread
from scg.experiments.vae.data.images import Images
from scg.experiments.vae.data.packaged import PACKAGED
from scg.experiments.vae.data.reading import read
from scg.experiments.vae.model import Spec, latents
from scg.experiments.vae.pictures import draw_curves
from scg.experiments.vae.results import Curve, results
from scg.experiments.vae.training import Setting, Training
from scg.panels import require_matplotlib

POLICIES = ("relax", "rebar", "nvil", "score leave-one-out 4")
STEPS, SEEDS, RATES, BATCH = 2500, 5, (0.01, 0.003), 24
QUICK_STEPS, QUICK_SEEDS = 300, 2
POINTS = 20
FEW, MANY = 32, 200
"""Latents of a layer for images of at most 64 pixels, and for larger ones."""
NONLINEAR = (200, 200)


def run(options: argparse.Namespace) -> Ended:
    """Train under every policy, or go on, and write tables, a picture and a checkpoint."""
    require_matplotlib()
    where, _ = runs.device(options.device), runs.dtype(options.dtype)  # before images are read
    images = read(options.data, options.seed)
    setting, spec = _setting(options, images)
    steps = options.steps or (QUICK_STEPS if options.quick else STEPS)
    policies = [*dict.fromkeys(options.policy)]
    trainings = [Training(setting, spec, images, policy, where) for policy in policies]
    going_on: Mapping[str, bool] = {"resume": options.resume, "overwrite": options.overwrite}
    with one_thread(), runs.open(options.out, setting, name="vae", **going_on) as kept:
        kept.clock = time.process_time if where.type == "cpu" else time.perf_counter
        kept.at_saves(lambda: _write(_curves(trainings, kept), kept))
        try:
            _train(trainings, steps, kept)
        except runs.Stopped as error:
            text = _write(_curves(trainings, kept), kept)
            return Ended(f"{text}\n\nIt was {error}.", 130)
        text = _write(_judged(trainings, _curves(trainings, kept)), kept)
    told = f"{len(setting.run_seeds)} runs of every policy, {len(images.train)} images of {setting.data}."
    return Ended(f"{text}\n\n{told} The picture, these tables and a checkpoint are in {options.out}.")


def _setting(options: argparse.Namespace, images: Images) -> tuple[Setting, Spec]:
    """Return the setting; what is said goes before what is quick, or usual for images of a size."""
    small = images.height * images.width <= 64
    text = options.latents or str(FEW if small else MANY)
    hidden = NONLINEAR if options.nonlinear and not options.hidden else tuple(options.hidden)
    seeds = options.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    setting = Setting(
        data=options.data,
        layers=options.layers,
        latents=text,
        hidden=hidden,
        seeds=seeds,
        seed=options.seed,
        rates=tuple(dict.fromkeys(options.rates)),
        control_scale=options.control_scale,
        amsgrad=not options.no_amsgrad,
        batch=options.batch,
        dtype=options.dtype,
        is_compiled=options.compile,
    )
    try:
        count, outcomes = latents(text)
    except ValueError as error:
        raise scg.RunError(f"--latents: {error}") from error
    return setting, Spec(options.layers, count, outcomes, hidden)


def _train(trainings: Sequence[Training], steps: int, kept: runs.Run) -> None:
    """Train under one policy after another, and measure on the way, whose seconds do not count."""
    every = max(1, steps // POINTS)
    for training in trainings:
        part = kept.part(training.policy)
        part.keep(training=training)
        if part.step == 0:
            part.log(bound=training.bound())
        for step in part.steps(steps):
            training.step(step)
            if (step + 1) % every == 0 or step + 1 == steps:
                with part.aside():
                    part.log(bound=training.bound())


def _curves(trainings: Sequence[Training], kept: runs.Run) -> list[Curve]:
    """Return what was measured so far."""
    found = []
    for training in trainings:
        part = kept.part(training.policy)
        if part.rows:
            steps, bound = part.history("bound")
            seconds = torch.tensor([row["seconds"] for row in part.rows], dtype=torch.float64)
            how = (training.program.evaluations, training.replicates, training.unbiased)
            found.append(Curve(training.policy, training.setting.rates, steps, seconds, bound, *how))
    return found


def _judged(trainings: Sequence[Training], curves: Sequence[Curve]) -> list[Curve]:
    """Add what is measured at the end: validation, and variances at the parameters of the first policy."""
    common: dict[str, Tensor] = trainings[0].parameters()
    return [
        replace(curve, validation=training.validation(), log_variance=training.log_variance(common))
        for training, curve in zip(trainings, curves, strict=True)
    ]


def _write(curves: Sequence[Curve], kept: runs.Run) -> str:
    """Write the tables and the picture, and return the tables."""
    text = results(curves)
    kept.write(".md", text + "\n")
    kept.write(".png", draw_curves(curves))
    return text


def _declare(parser: argparse.ArgumentParser) -> None:
    say = parser.add_argument
    shown = " ".join(f'"{name}"' if " " in name else name for name in POLICIES)
    say(
        "--policy",
        nargs="+",
        default=POLICIES,
        metavar="P",
        help=f'estimators, as relax, "rebar 4" with replicates, b1=relax,b2=nvil by layer ({shown})',
    )
    named = ", ".join(PACKAGED)
    say("--data", default="digits", metavar="D", help=f"{named}, a folder (MNIST, Omniglot, images), a .npz")
    say("--layers", type=positive, default=2, metavar="N", help="of latents (2)")
    say("--latents", metavar="N", help=f"of a layer: 200, or 20x10 of ten outcomes ({FEW}, {MANY} if large)")
    say("--nonlinear", action="store_true", help="two layers of 200 tanh between latents")
    say("--hidden", type=positive, nargs="*", default=[], metavar="N", help="units in between, instead")
    say("--seeds", type=positive, metavar="N", help=f"how many runs at each rate ({SEEDS})")
    say(
        "--rates", type=float, nargs="+", default=RATES, metavar="R", help="of Adam, all at once (0.01 0.003)"
    )
    say("--control-scale", type=float, default=1.0, metavar="X", help="rates of controls over these (1)")
    say("--no-amsgrad", action="store_true", help="plain Adam for controls")
    say("--batch", type=positive, default=BATCH, metavar="N", help=f"images of a step ({BATCH})")
    say("--compile", action="store_true", help="let torch compile the steps")
    say("--steps", type=positive, metavar="N", help=f"of Adam ({STEPS})")
    say("--quick", action="store_true", help="a few short runs, to see it work")
    runs.add_options(parser, devices=True)


VAE = Command("train discrete autoencoders under several estimators, seeds and rates at once", _declare, run)
