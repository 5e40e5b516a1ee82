"""The command ``scg run bandit``: where a control variate of the action can help, exactly and trained."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

import scg
from scg.commands import Command, add_out, positive
from scg.experiments.means import standard_error
from scg.experiments.rl.bandit import BANDIT_POLICIES, DRAWS, Bandit, exactly, measured
from scg.experiments.rl.bandit_picture import draw_bars
from scg.experiments.rl.residual import residuals
from scg.experiments.threads import one_thread
from scg.markdown import table
from scg.panels import require_matplotlib
from scg.progress import Progress

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
    options.out.mkdir(parents=True, exist_ok=True)
    left = {actions: residuals(actions, options.seed) for actions in RESIDUAL_ACTIONS}
    with one_thread():
        rows = [*_rows(options, policies)]
    trained: dict[int, dict[str, float]] = {}
    for row in rows:
        trained.setdefault(row.actions, {})[row.name] = row.mean
    text = f"{residual_table(left)}\n\n{bandit_table(rows)}"
    (options.out / "bandit.md").write_text(text + "\n", encoding="utf-8")
    (options.out / "bandit.png").write_bytes(draw_bars(left, trained))
    return f"{text}\n\nA picture and these tables are in {options.out}."


def _rows(options: argparse.Namespace, policies: Sequence[str]) -> Iterator[Row]:
    seeds = options.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    updates = options.updates or (QUICK_UPDATES if options.quick else UPDATES)
    draws = QUICK_DRAWS if options.quick else DRAWS
    progress = Progress()
    for actions in dict.fromkeys(options.actions):
        bandits = [Bandit.of(actions, options.noise, options.seed + index) for index in range(seeds)]
        for policy in policies:
            found = []
            for index, bandit in enumerate(bandits):
                tell = _teller(progress, f"{actions} actions, {policy}, {index + 1} of {seeds}")
                found.append(measured(bandit, policy, updates, draws, tell))
            row = Row(actions, policy, tuple(found))
            progress.finish(f"{actions} actions, {policy}: variance {row.mean:.3f}")
            yield row
        exact = [exactly(bandit) for bandit in bandits]
        for name in ("best baseline", "ideal c(s, a)"):
            yield Row(actions, name, tuple(one[name] for one in exact))


def _teller(progress: Progress, title: str) -> Callable[[int], None]:
    return lambda update: progress.tell(f"{title}: update {update}")


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
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the first bandit (1)")
    parser.add_argument("--quick", action="store_true", help="one bandit and few updates, to see it work")
    add_out(parser)


BANDIT = Command(
    "measure what baselines and control variates of the action leave of the variance of one action",
    _declare,
    run,
)
