"""The tour: one short run of each kind of problem, and the page that shows what they came to."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from scg.commands import Command, Ended
from scg.demo.graphs import five_graphs
from scg.demo.page import Picture, Stop, page
from scg.errors import ScgError
from scg.experiments.rl.bandit_command import BANDIT
from scg.experiments.rl.command import RL
from scg.experiments.toy.command import TOY
from scg.experiments.vae.command import VAE
from scg.panels import require_matplotlib
from scg.runs import seed_of

TITLE = "scg: a tour"
TOLD = (
    "scg compiles graphs of functions, random variables and costs into torch programs, in which "
    "loss.backward() leaves unbiased estimates of the gradient of the expected cost. What follows was "
    "computed just now, with the commands that are shown, each of which has a longer run as its "
    "default and says its options by --help. More: scg run --help, for all experiments, and scg "
    "verify, for a test of a graph of your own."
)
BARS, SIDE, CHANCE = 1200, 8, 0.25
"""Images that are drawn, the pixels of a side, and the chance of each bar."""
TOY_WORDS = ("--t", "0.45", "--steps", "3000")
VAE_WORDS = (
    *("--policy", "relax", "score leave-one-out 4", "--layers", "1", "--latents", "16"),
    *("--seeds", "3", "--rates", "0.01", "--steps", "300"),
)
CARTPOLE_WORDS = ("--policy", "score+value", "--seeds", "5", "--episodes", "400")
BANDIT_WORDS = ("--seeds", "2", "--updates", "300")


@dataclass(frozen=True)
class Leg:
    """An experiment of the tour: its command by name, with the words that make it short."""

    title: str
    told: str
    name: str
    command: Command
    words: Sequence[str]
    caption: str


def demo(out: Path, *, seed: int = 1, overwrite: bool = False) -> str:
    """Write the page, with all that it shows, into ``out``, and return the tables."""
    require_matplotlib()
    start = time.perf_counter()
    # The first one refuses a folder that has a run, before anything else is written.
    legs: Sequence[Callable[[], Leg]] = (toy, lambda: autoencoder(out, seed), rollout)
    ran = [shown(leg(), out, seed, overwrite=overwrite) for leg in legs]
    stops = [five_graphs(out, seed=seed), *ran]
    (out / "index.html").write_text(page(TITLE, TOLD, stops), encoding="utf-8")
    took = f"{time.perf_counter() - start:.0f} seconds"
    text = "\n\n".join(f"{stop.title}\n\n{stop.tables}" for stop in stops)
    return f"{text}\n\n{took}. The page of all this is {out / 'index.html'}."


def shown(leg: Leg, out: Path, seed: int, *, overwrite: bool) -> Stop:
    """Run a command as it would be run by hand, and return what it left."""
    parser = argparse.ArgumentParser(prog=f"scg run {leg.name}")
    leg.command.declare(parser)
    words = [*leg.words, "--seed", str(seed), "--out", str(out)]
    start = time.perf_counter()
    if leg.command.run is None:
        raise ScgError(f"scg run {leg.name} is no command to run")
    again = ["--overwrite"] if overwrite else []
    ended = leg.command.run(parser.parse_args([*words, *again]))
    if isinstance(ended, Ended) and ended.status:
        raise KeyboardInterrupt(ended.text)
    took = time.perf_counter() - start
    picture = Picture(out / f"{leg.name}.png", leg.caption)
    tables = (out / f"{leg.name}.md").read_text(encoding="utf-8").strip()
    return Stop(leg.title, leg.told, f"scg run {leg.name} {shlex.join(words)}", tables, (picture,), (), took)


def toy() -> Leg:
    """Return the toy problem at one t."""
    told = (
        "Minimise E (b - t)^2 over the bias of one coin b: hardly any signal, so that the variance of "
        "the estimator decides. Exact is enumeration; RELAX learns a control variate while it learns "
        "the coin."
    )
    caption = "Expected loss, log-variance of one gradient, and control variates at the end; 64 seeds"
    return Leg("The toy problem", told, "toy", TOY, TOY_WORDS, caption)


def autoencoder(out: Path, seed: int) -> Leg:
    """Return a short autoencoder, of digits where scikit-learn has them, and else of bars that are drawn."""
    told = "A discrete autoencoder: sixteen coins for each image, all seeds in one program. "
    if find_spec("sklearn") is not None:
        data: tuple[str, ...] = ()
        told += "The images are the digits of scikit-learn."
    else:
        data = ("--data", str(draw_bars(out / "bars.npz", seed)))
        told += "The images are bars, drawn for this: with scikit-learn installed they are its digits."
    caption = "Bound on the log-likelihood, against steps and against seconds"
    return Leg("An autoencoder with discrete latents", told, "vae", VAE, (*VAE_WORDS, *data), caption)


def draw_bars(path: Path, seed: int) -> Path:
    """Write images of some horizontal and vertical bars each, as a user's own would be."""
    import numpy as np

    generator = np.random.default_rng(seed_of(seed, "bars"))
    across, down = generator.random((2, BARS, SIDE)) < CHANCE
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, images=(across[:, :, None] | down[:, None, :]).astype(np.float32))
    return path


def rollout() -> Leg:
    """Return CartPole where gymnasium is installed, and else the bandit."""
    if find_spec("gymnasium") is not None:
        told = (
            "Five policies of CartPole at once, with a value baseline that is trained on the variance, until "
            "the last 100 episodes of each reach a mean of 195. The simulator runs inside the program: g.rollout "
            "charges every action with what came after it. More policies: --policy relax score+value a2c."
        )
        caption = "Reward and log-variance of the gradient, against episodes and seconds"
        return Leg("A rollout: CartPole", told, "cartpole", RL["cartpole"], CARTPOLE_WORDS, caption)
    told = (
        'CartPole is left out: it needs gymnasium, pip install "scg[rl]". In its place one action in a '
        "context: what baselines and control variates of the action leave of the variance."
    )
    caption = "What is left of the variance, exactly and with trained controls"
    return Leg("One action: the bandit", told, "bandit", BANDIT, BANDIT_WORDS, caption)
