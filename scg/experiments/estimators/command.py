"""The command ``scg run estimators``: every estimator on every graph, to tables and a picture."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from scg import runs
from scg.choosing.policy import Policy
from scg.commands import Command, add_out
from scg.comparison.compare import compare
from scg.comparison.comparison import Comparison
from scg.errors import ScgError
from scg.experiments.estimators.candidates import SAMPLES, candidates
from scg.experiments.estimators.pictures import drawn
from scg.experiments.estimators.problems import PROBLEMS
from scg.experiments.estimators.results import page, values
from scg.experiments.threads import one_thread
from scg.panels import require_matplotlib
from scg.progress import Progress


@dataclass(frozen=True)
class Effort:
    """How many runs train what is learned, tell the variance, and are timed; outcomes summed exactly."""

    steps: int
    draws: int
    repeats: int
    limit: int


FULL, QUICK = Effort(1000, 16384, 100, 2**20), Effort(10, 512, 5, 2**16)


def estimators(
    out: Path,
    *,
    only: Sequence[str] = (),
    policies: Sequence[str] = ("*",),
    effort: Effort = FULL,
    seed: int = 1,
    overwrite: bool = False,
) -> str:
    """Measure estimators, by patterns of names, on graphs; write pictures and tables into ``out``."""
    require_matplotlib()
    graphs = [name for name in PROBLEMS if not only or name in only]
    unknown = [name for name in only if name not in PROBLEMS]
    if unknown:
        raise ScgError(runs.named_nearest("graph", unknown[0], PROBLEMS))
    named = {n: p for n, p in candidates().items() if any(fnmatchcase(n, own) for own in policies)}
    if not named:
        raise ScgError(f"no estimator is called {', '.join(policies)}; there are {', '.join(candidates())}")
    settings = {"effort": asdict(effort), "seed": seed}
    kept = runs.open(out, settings, name="estimators", overwrite=overwrite, tensorboard=False)
    progress, found = Progress(), dict[str, Comparison]()
    for name in graphs:
        with one_thread():
            found[name] = _compared(name, named, effort, seed)
        kept.write(".md", page(found) + "\n")
        kept.write(".csv", values(found))
        progress.finish(f"{name}: {len(found[name].rows)} measured, {len(found[name].refused)} refused")
    kept.write(".png", drawn(found))
    told = f"{effort.steps} steps of Adam for what is learned, then {effort.draws:,} draws."
    return f"{page(found)}\n\n{told} The picture, this page and estimators.csv are in {out}."


def _compared(name: str, policies: Mapping[str, Policy], effort: Effort, seed: int) -> Comparison:
    return compare(
        PROBLEMS[name].make(),
        policies,
        samples=SAMPLES,
        draws=effort.draws,
        steps=effort.steps,
        repeats=effort.repeats,
        limit=effort.limit,
        seed=seed,
        progress=True,
    )


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="GRAPH", help=f"some of {', '.join(PROBLEMS)} (all)"
    )
    parser.add_argument(
        "--policy", nargs="+", default=("*",), metavar="P", help="names of estimators, or patterns (*)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer runs, under a minute: a look, no result")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of all noise (1)")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is in --out")
    add_out(parser)


ESTIMATORS = Command(
    "measure every estimator on five graphs: bias, variance, time, evaluations",
    _declare,
    lambda options: estimators(
        options.out,
        only=options.only,
        policies=options.policy,
        effort=QUICK if options.quick else FULL,
        seed=options.seed,
        overwrite=options.overwrite,
    ),
)
