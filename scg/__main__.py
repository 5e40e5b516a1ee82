"""The command ``scg``: a subcommand is a row of ``COMMANDS``, an experiment a row of ``EXPERIMENTS``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from scg.commands import Command, Ended, add_out, offer
from scg.demo.tour import demo
from scg.errors import ScgError
from scg.experiments.attention import ATTENTION
from scg.experiments.estimators.command import ESTIMATORS
from scg.experiments.rl.bandit_command import BANDIT
from scg.experiments.rl.command import RL
from scg.experiments.simulator import SIMULATOR
from scg.experiments.toy.command import TOY
from scg.experiments.vae.command import VAE
from scg.runs import Stopped, configure
from scg.verification.command import VERIFY


def _declare_demo(parser: argparse.ArgumentParser) -> None:
    add_out(parser)
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of all noise (1)")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is in --out")


EXPERIMENTS: dict[str, Command] = {
    "toy": TOY,
    "vae": VAE,
    "attention": ATTENTION.command(),
    "simulator": SIMULATOR.command(),
    "estimators": ESTIMATORS,
    **RL,
    "bandit": BANDIT,
}

COMMANDS: dict[str, Command] = {
    "demo": Command(
        "a tour in two minutes, as one page: five graphs and their estimates against exact gradients, the "
        "toy problem, a discrete autoencoder and a rollout",
        _declare_demo,
        lambda options: demo(options.out, seed=options.seed, overwrite=options.overwrite),
    ),
    "run": Command(
        "run an experiment of the papers behind the estimators",
        lambda parser: offer(parser, EXPERIMENTS, "EXPERIMENT"),
    ),
    "verify": VERIFY,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit status."""
    parser = argparse.ArgumentParser(prog="scg", description="A compiler for stochastic computation graphs.")
    offer(parser, COMMANDS, "COMMAND")
    options, strange = parser.parse_known_args(arguments)
    if strange:
        options.parser.error(f"unrecognized arguments: {' '.join(strange)}")
    try:
        if getattr(options, "config", None) is not None:
            configure(options.parser, options.config)
            options = parser.parse_args(arguments)
        ended = options.run(options)
    except (ScgError, OSError) as error:
        print(f"{options.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(f"{options.prog}: {error if isinstance(error, Stopped) else 'interrupted'}", file=sys.stderr)
        return 130
    print(ended.text if isinstance(ended, Ended) else ended)
    return ended.status if isinstance(ended, Ended) else 0


if __name__ == "__main__":
    sys.exit(main())
