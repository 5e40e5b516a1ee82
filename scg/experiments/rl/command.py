"""The commands of the tasks, as ``scg run cartpole``: from options to training, a table and pictures."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from scg.commands import Command, Ended, add_out, positive
from scg.experiments.pictures import require_matplotlib
from scg.experiments.rl.checkpoint import load, save
from scg.experiments.rl.pictures import draw_curves
from scg.experiments.rl.problem import POLICIES, Setting, check_policy
from scg.experiments.rl.results import Curves, results
from scg.experiments.rl.stopping import Stop, stopping
from scg.experiments.rl.tasks import TASKS, Task
from scg.experiments.rl.training import Training
from scg.experiments.threads import one_thread
from scg.progress import Progress

QUICK_SEEDS, QUICK_UPDATES, QUICK_STEPS = 2, 3, 40
PAUSE = 60.0


def run(task: Task, options: argparse.Namespace) -> Ended:
    """Train every run under every policy, or go on, and write a table, pictures and a checkpoint."""
    task.check_installed()
    require_matplotlib()
    setting, updates = _setting(task, options)
    policies = [*dict.fromkeys(options.policy)]
    for policy in policies:
        check_policy(policy)
    path = options.out / f"{task.name}.pt"
    states = load(path, setting) if options.resume else {}
    trainings = [*_trainings(setting, policies)]
    options.out.mkdir(parents=True, exist_ok=True)

    def keep() -> None:
        begun = {_name(training): training.state() for training in trainings if training.rows}
        save(path, setting, {**states, **begun})

    with stopping() as stop, one_thread():
        for training in trainings:
            if _name(training) in states:
                training.restore(states[_name(training)])
        _train(trainings, updates, stop, keep)
    begun = [training for training in trainings if training.rows]
    if not begun:
        raise KeyboardInterrupt
    keep()
    text = _written(task, begun, options.out)
    told = f"{text}\n\n{setting.seeds} runs at rate {setting.rate:g}."
    told += f" Pictures, this table and a checkpoint are in {options.out}."
    return Ended(f"{told} Interrupted: --resume goes on.", 130) if stop.asked else Ended(told)


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
    runs = range(setting.seeds)
    groups = [runs] if setting.of.vectorised else [range(run, run + 1) for run in runs]
    for policy in policies:
        for group in groups:
            yield Training(setting, policy, group)


def _name(training: Training) -> str:
    return f"{training.policy} {training.runs[0]}"


def _train(trainings: Sequence[Training], updates: int, stop: Stop, keep: Callable[[], object]) -> None:
    """Train each until it is over, or an end was asked for, and keep what was reached now and then."""
    progress, kept = Progress(), time.perf_counter()
    for index, training in enumerate(trainings):
        title = f"[{index + 1}/{len(trainings)}] {training.policy}"
        while not stop.asked and not training.is_over(updates):
            training.update()
            progress.tell(_told(title, training))
            if time.perf_counter() - kept > PAUSE:
                keep()
                kept = time.perf_counter()
        if training.rows and not stop.asked:
            progress.finish(_told(title, training))


def _told(title: str, training: Training) -> str:
    reward = float(training.recent().mean())
    variance = float(training.rows[-1][1].mean())
    return (
        f"{title}: update {len(training.rows)}, reward {reward:.1f}, log-variance {variance:.1f}, "
        f"{training.seconds:.0f} s"
    )


def _written(task: Task, trainings: Sequence[Training], out: Path) -> str:
    """Write table and pictures of what was reached, and return the table."""
    by_policy: dict[str, list[Training]] = {}
    for training in trainings:
        by_policy.setdefault(training.policy, []).append(training)
    curves = [Curves(policy, tuple(t.history for t in several)) for policy, several in by_policy.items()]
    text = results(curves, task)
    (out / f"{task.name}.md").write_text(text + "\n", encoding="utf-8")
    (out / f"{task.name}.png").write_bytes(draw_curves(curves, task))
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
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of everything that is drawn (1)")
    parser.add_argument("--quick", action="store_true", help="a few short runs, to see it work")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    add_out(parser)


def _command(task: Task) -> Command:
    until = "" if task.solved is None else f" until the last {task.window} episodes reach {task.solved:g}"
    return Command(
        f"train {task.env} under several estimators{until}",
        lambda parser: _declare(task, parser),
        lambda options: run(task, options),
    )


RL = {name: _command(task) for name, task in TASKS.items()}
