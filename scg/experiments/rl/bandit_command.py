"""The command ``scg run bandit``: where a control variate of the action can help, exactly and trained."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

import scg
from scg import runs
from scg.commands import Command, positive
from scg.experiments.means import standard_error
from scg.experiments.rl.bandit import BANDIT_POLICIES, DRAWS, Bandit, exactly, measured
from scg.experiments.rl.bandit_picture import draw_bars
from scg.experiments.rl.residual import residuals
from scg.experiments.threads import one_thread
from scg.markdown import table
from scg.panels import require_matplotlib

SEEDS, UPDATES, ACTIONS = 3, 1500, (2, 8)
QUICK_SEEDS, QUICK_UPDATES, QUICK_DRAWS = 1, 10, 10
RESIDUAL_ACTIONS = (2, 3, 4, 8)


@dataclass(frozen=True)
class Row:
    """Variances of one kind, of bandits of some actions, [seeds]."""

    actions: int
    name: str
    variances: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over bandits."""
        return sum(self.variances) / len(self.variances)


def run(options: argparse.Namespace) -> str:
    """Measure every policy on every bandit, and write tables and a picture."""
    require_matplotlib()
    policies = [*dict.fromkeys(options.policy)]
    unknown = [name for name in policies if name not in BANDIT_POLICIES]
    if unknown:
        raise scg.PolicyError(f"there is no policy '{unknown[0]}'; there are {', '.join(BANDIT_POLICIES)}")
    size = _size(options)
    settings = {"noise": options.noise, "seed": options.seed, "updates": size.updates, "draws": size.draws}
    going_on: Mapping[str, bool] = {"resume": options.resume, "overwrite": options.overwrite}
    left = {actions: residuals(actions, options.seed) for actions in RESIDUAL_ACTIONS}
    with one_thread(), runs.open(options.out, settings, name="bandit", **going_on) as kept:
        kept.at_saves(lambda: None)
        rows = [*_rows(options, policies, size, kept)]
    trained: dict[int, dict[str, float]] = {}
    for row in rows:
        trained.setdefault(row.actions, {})[row.name] = row.mean
    text = f"{residual_table(left)}\n\n{bandit_table(rows)}"
    kept.write(".md", text + "\n")
    kept.write(".png", draw_bars(left, trained))
    return f"{text}\n\nA picture and these tables are in {options.out}."


@dataclass(frozen=True)
class Size:
    """How many bandits there are, how long controls are trained, and how many gradients tell the variance."""

    seeds: int
    updates: int
    draws: int


def _size(options: argparse.Namespace) -> Size:
    """Return the size; what is said goes before what is quick."""
    return Size(
        options.seeds or (QUICK_SEEDS if options.quick else SEEDS),
        options.updates or (QUICK_UPDATES if options.quick else UPDATES),
        QUICK_DRAWS if options.quick else DRAWS,
    )


def _rows(options: argparse.Namespace, policies: Sequence[str], size: Size, kept: runs.Run) -> Iterator[Row]:
    """Yield a row for every policy and number of actions: a loop of the run, with a step for each bandit."""
    for actions in dict.fromkeys(options.actions):
        bandits = [Bandit.of(actions, options.noise, options.seed + index) for index in range(size.seeds)]
        for policy in policies:
            part = kept.part(f"{actions} actions, {policy}")
            for index in part.steps(size.seeds):
                part.log(variance=measured(bandits[index], policy, size.updates, size.draws))
            found = part.history("variance")[1][: size.seeds]
            yield Row(actions, policy, tuple(found.tolist()))
        exact = [exactly(bandit) for bandit in bandits]
        for name in ("best baseline", "ideal c(s, a)"):
            yield Row(actions, name, tuple(one[name] for one in exact))


def residual_table(left: Mapping[int, Mapping[str, float]]) -> str:
    """Return the exact variances over random policies and costs as a Markdown table."""
    titles = ("actions", *next(iter(left.values())))
    rows = [
        (str(n), *(f"{abs(round(value, 3)):.3f}" for value in values.values())) for n, values in left.items()
    ]
    return table(titles, ">" * len(titles), rows)


def bandit_table(rows: Sequence[Row]) -> str:
    """Return the measured variances as a Markdown table, with their ratio to the best baseline's."""
    best = {row.actions: row.mean for row in rows if row.name == "best baseline"}
    lines = []
    for row in rows:
        error = float(standard_error(torch.tensor(row.variances, dtype=torch.float64)))
        over = best[row.actions]
        ratio = f"{row.mean / over:.2f}" if over > 1e-4 else ""
        how = "exact" if row.name not in BANDIT_POLICIES else "trained" if row.name != "score" else "measured"
        lines.append((str(row.actions), row.name, how, f"{abs(row.mean):.3f}", f"{error:.3f}", ratio))
    titles = ("actions", "control", "", "variance", "std. error", "over best baseline")
    return table(titles, "><<>>>", lines)


def _declare(parser: argparse.ArgumentParser) -> None:
    named = tuple(BANDIT_POLICIES)
    parser.add_argument("--policy", nargs="+", default=named, metavar="P", help=f"any of {', '.join(named)}")
    parser.add_argument(
        "--actions", type=positive, nargs="+", default=ACTIONS, metavar="N", help="how many (2 8)"
    )
    parser.add_argument("--noise", type=float, default=0.0, metavar="X", help="scale of noise in costs (0)")
    parser.add_argument("--seeds", type=positive, metavar="N", help=f"how many bandits ({SEEDS})")
    parser.add_argument("--updates", type=positive, metavar="N", help=f"of the controls ({UPDATES})")
    parser.add_argument("--quick", action="store_true", help="one bandit and few updates, to see it work")
    runs.add_options(parser)


BANDIT = Command(
    "measure what baselines and control variates of the action leave of the variance of one action",
    _declare,
    run,
)
