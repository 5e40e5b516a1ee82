"""The commands of the tasks, as ``scg run cartpole``: from options to training, a table and pictures."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence

from scg import runs
from scg.commands import Command, Ended, positive
from scg.experiments.rl.pictures import draw_curves
from scg.experiments.rl.problem import POLICIES, Setting, check_policy
from scg.experiments.rl.results import Curves, results
from scg.experiments.rl.tasks import TASKS, Task
from scg.experiments.rl.training import Training
from scg.experiments.threads import one_thread
from scg.panels import require_matplotlib

QUICK_SEEDS, QUICK_UPDATES, QUICK_STEPS = 2, 3, 40


def run(task: Task, options: argparse.Namespace) -> Ended:
    """Train every run under every policy, or go on, and write a table, pictures and a checkpoint."""
    task.check_installed()
    require_matplotlib()
    setting, updates = _setting(task, options)
    policies = [*dict.fromkeys(options.policy)]
    for policy in policies:
        check_policy(policy)
    trainings = [*_trainings(setting, policies)]
    going_on: Mapping[str, bool] = {"resume": options.resume, "overwrite": options.overwrite}
    stopped = ""
    with one_thread(), runs.open(options.out, setting, name=task.name, **going_on) as kept:
        kept.clock = time.process_time
        kept.at_saves(lambda: _written(task, trainings, kept))
        try:
            _train(trainings, updates, kept)
        except runs.Stopped as error:
            stopped = f" It was {error}."
        text = _written(task, trainings, kept)
    told = f"{text}\n\n{setting.seeds} runs at rate {setting.rate:g}."
    told += f" Pictures, this table and a checkpoint are in {options.out}.{stopped}"
    return Ended(told, 130 if stopped else 0)


def _setting(task: Task, options: argparse.Namespace) -> tuple[Setting, int]:
    """Return the setting and how many updates there are; what is said goes before what is quick."""
    quick = options.quick
    steps = None if task.steps is None else options.steps or (QUICK_STEPS if quick else task.steps)
    setting = Setting(
        task.name,
        options.seeds or (QUICK_SEEDS if quick else task.seeds),
        options.seed,
        options.rate,
        options.control_rate or options.rate,
        steps,
        options.value_steps,
    )
    return setting, options.updates or (QUICK_UPDATES if quick else task.updates)


def _trainings(setting: Setting, policies: Sequence[str]) -> Iterator[Training]:
    """Make the trainings of every policy, in one program if environments are vectorised."""
    every = range(setting.seeds)
    groups = [every] if setting.of.vectorised else [range(run, run + 1) for run in every]
    for policy in policies:
        for group in groups:
            yield Training(setting, policy, group)


def _train(trainings: Sequence[Training], updates: int, kept: runs.Run) -> None:
    """Train each until it is solved or has had its updates."""
    parts = [kept.part(f"{training.policy} {training.runs[0]}") for training in trainings]
    for part, training in zip(parts, trainings, strict=True):
        part.keep(training=training)
    for part, training in zip(parts, trainings, strict=True):
        for _ in part.steps(updates):
            training.update()
            part.log(reward=training.recent().mean(), log_variance=training.rows[-1][1].mean())
            if training.is_solved:
                part.finish()


def _written(task: Task, trainings: Sequence[Training], kept: runs.Run) -> str:
    """Write table and pictures of what was reached, and return the table."""
    by_policy: dict[str, list[Training]] = {}
    for training in trainings:
        if training.rows:
            by_policy.setdefault(training.policy, []).append(training)
    curves = [Curves(policy, tuple(t.history for t in several)) for policy, several in by_policy.items()]
    text = results(curves, task)
    kept.write(".md", text + "\n")
    kept.write(".png", draw_curves(curves, task))
    return text


def _declare(task: Task, parser: argparse.ArgumentParser) -> None:
    own = ("relax", "score+value") if task.discrete else ("lax", "score+value")
    parser.add_argument("--policy", nargs="+", default=own, metavar="P", help=f"any of {', '.join(POLICIES)}")
    parser.add_argument("--seeds", type=positive, metavar="N", help=f"how many runs ({task.seeds})")
    parser.add_argument(
        "--updates", "--episodes", type=positive, metavar="N", help=f"at most, of each run ({task.updates})"
    )
    if task.steps is not None:
        parser.add_argument(
            "--steps",
            type=positive,
            metavar="N",
            help=f"in whole episodes, of an update ({task.steps}; the papers have 2500)",
        )
    parser.add_argument("--rate", type=float, default=task.rate, metavar="R", help=f"of Adam ({task.rate:g})")
    parser.add_argument("--control-rate", type=float, metavar="R", help="of Adam for controls (as --rate)")
    parser.add_argument(
        "--value-steps", type=positive, default=1, metavar="N", help="steps of the controls in an update (1)"
    )
    parser.add_argument("--quick", action="store_true", help="a few short runs, to see it work")
    runs.add_options(parser)


def _command(task: Task) -> Command:
    until = "" if task.solved is None else f" until the last {task.window} episodes reach {task.solved:g}"
    return Command(
        f"train {task.env} under several estimators{until}",
        lambda parser: _declare(task, parser),
        lambda options: run(task, options),
    )


RL = {name: _command(task) for name, task in TASKS.items()}
