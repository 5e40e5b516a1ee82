"""Learning: programs trained under several policies from the same seeds, each for as many evaluations."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import scg
from scg import runs
from scg.commands import Command, Ended, positive
from scg.experiments.means import standard_error
from scg.experiments.pictures import band
from scg.experiments.threads import one_thread
from scg.markdown import table
from scg.panels import COLOURS, png, require_matplotlib

POINTS = 25


@dataclass(frozen=True)
class Learner:
    """What is trained: a program, the inputs of every step, and what tells how good it is."""

    program: scg.Program
    inputs: Callable[[int], Mapping[str, Tensor]]
    measure: Callable[[], float]


@dataclass(frozen=True)
class Experiment:
    """A problem to learn: how a learner is made of a policy and a seed, and how long it learns.

    ``policies`` are the names of those that are compared unless told otherwise. ``measured`` is what a
    learner's measure is called; ``picture`` draws into a last panel what some learners came to.
    """

    name: str
    summary: str
    measured: str
    policies: Collection[str]
    learner: Callable[[str, int], Learner]
    picture: Callable[[Any, Mapping[str, Learner]], None]
    evaluations: int
    seeds: int = 3
    rate: float = 0.003

    def command(self) -> Command:
        """Return the command of the experiment."""
        return Command(self.summary, self._declare, self._run)

    def _declare(self, parser: argparse.ArgumentParser) -> None:
        say, shown = parser.add_argument, " ".join(self.policies)
        own = tuple(self.policies)
        say("--policy", nargs="+", default=own, metavar="P", help=f"any estimators ({shown})")
        say("--seeds", type=positive, default=self.seeds, metavar="N", help=f"how many runs ({self.seeds})")
        told = f"of the cost for each element of a batch, in a run ({self.evaluations})"
        say("--evaluations", type=positive, default=self.evaluations, metavar="N", help=told)
        say("--rate", type=float, default=self.rate, metavar="R", help=f"of Adam ({self.rate:g})")
        runs.add_options(parser)

    def _run(self, options: argparse.Namespace) -> Ended:
        """Train under every policy, or go on, and write a table and a picture."""
        require_matplotlib()
        seeds = [options.seed + index for index in range(options.seeds)]
        policies = [*dict.fromkeys(options.policy)]
        self._check(policies)
        going_on: Mapping[str, bool] = {"resume": options.resume, "overwrite": options.overwrite}
        settings = {"seeds": options.seeds, "seed": options.seed, "rate": options.rate}
        with one_thread():
            learners = {policy: [self.learner(policy, seed) for seed in seeds] for policy in policies}
            with runs.open(options.out, settings, name=self.name, **going_on) as kept:
                kept.clock = time.process_time
                kept.at_saves(lambda: None)
                curves = {}
                for policy, several in learners.items():
                    parts = [
                        train(f"{policy} {s}", one, s, options, kept)
                        for s, one in zip(seeds, several, strict=True)
                    ]
                    curves[policy] = Curve.of(several[0].program.evaluations, parts)
                text = results(curves, self.measured)
                kept.write(".md", text + "\n")
                first = {policy: several[0] for policy, several in learners.items()}
                kept.write(".png", self._drawn(curves, first))
        return Ended(f"{text}\n\nThe picture and this table are in {options.out}.")

    def _check(self, policies: Sequence[str]) -> None:
        """Refuse policies that there are not before anything long is begun."""
        known = [*dict.fromkeys([*self.policies, *scg.estimator_names()])]
        unknown = [policy for policy in policies if policy not in known]
        if unknown:
            raise scg.PolicyError(runs.named_nearest("policy", unknown[0], known))

    def _drawn(self, curves: Mapping[str, Curve], first: Mapping[str, Learner]) -> bytes:
        def draw(grid: Any) -> None:
            axes = grid[0][0]
            for (policy, curve), colour in zip(curves.items(), COLOURS * len(curves), strict=False):
                band(axes, curve.evaluations, curve.values, policy, colour)
            axes.set(title=self.measured, xlabel="evaluations for each element of a batch")
            axes.legend(loc="best")
            self.picture(grid[0][1], first)

        return png(1, 2, draw)


@dataclass(frozen=True, eq=False)
class Curve:
    """What runs of one policy came to: [points], and values [points, run]; seconds and steps of a run."""

    evaluations: Tensor
    values: Tensor
    seconds: float
    steps: int

    @staticmethod
    def of(each: int, parts: Sequence[runs.Part]) -> Curve:
        """Read the curve from loops that took ``each`` so many evaluations a step."""
        steps = parts[0].history("measured")[0]
        values = torch.stack([part.history("measured")[1] for part in parts], 1)
        seconds = sum(part.seconds for part in parts) / len(parts)
        return Curve(steps * each, values, seconds, parts[0].step)


def train(name: str, learner: Learner, seed: int, options: argparse.Namespace, kept: runs.Run) -> runs.Part:
    """Train a learner, or go on, measure it on the way, and return the loop."""
    program, part = learner.program, kept.part(name)
    groups: list[dict[str, Any]] = [
        {"params": [*program.model_parameters()]},
        {"params": [*program.control_parameters()], "amsgrad": True},
    ]
    adam = torch.optim.Adam([group for group in groups if group["params"]], lr=options.rate)
    part.keep(program=program, adam=adam)
    steps = max(1, options.evaluations // program.evaluations)
    if part.step == 0:
        part.log(measured=learner.measure())
    for step in part.steps(steps):
        adam.zero_grad()
        program(**learner.inputs(step), seed=runs.seed_of(seed, "step", step)).loss.backward()
        adam.step()
        if (step + 1) % max(1, steps // POINTS) == 0 or step + 1 == steps:
            with part.aside():
                part.log(measured=learner.measure())
    return part


def results(curves: Mapping[str, Curve], measured: str) -> str:
    """Return what every policy came to as a Markdown table."""
    titles = ("policy", measured, "std. error", "steps", "evaluations", "cpu seconds")
    rows = []
    for policy, curve in curves.items():
        last = curve.values[-1]
        numbers = (f"{float(last.mean()):.3f}", f"{float(standard_error(last)):.3f}")
        rows.append(
            (policy, *numbers, f"{curve.steps}", f"{int(curve.evaluations[-1])}", f"{curve.seconds:.0f}")
        )
    return table(titles, "<>>>>>", rows)
