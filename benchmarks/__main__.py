"""``python -m benchmarks``: run problems and write what was found, or hold ratios to stored ones."""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # read when torch is loaded: the profiler says nothing

import torch
from torch.distributions import Distribution

from benchmarks import check, figures, growth
from benchmarks.contest import Settings
from benchmarks.figures import Results
from benchmarks.problems import PROBLEMS
from benchmarks.report import report
from benchmarks.run import run
from benchmarks.timing import Budget
from scg.progress import Progress

FULL, QUICK = Budget(), Budget(rounds=10, seconds=0.3, limit=3.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for and return the exit status."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    Distribution.set_default_validate_args(False)
    warnings.filterwarnings("ignore")
    progress = Progress()
    if options.check or options.store:
        found = list(check.verdicts(check.read(), progress.tell, check.BUDGET))
        print(check.judgement(found))
        if options.store:
            check.write([verdict.renewed for verdict in found])
        return 0 if options.store or all(verdict.holds for verdict in found) else 1
    devices = [options.device] if options.device else ["cpu", "cuda"][: 1 + torch.cuda.is_available()]
    for place, device in enumerate(devices):
        benchmark(options, device, options.out / device if place else options.out, progress)
    return 0


def benchmark(options: argparse.Namespace, device: str, out: Path, progress: Progress) -> None:
    """Run the problems and write what was found, after each of them anew."""
    out.mkdir(parents=True, exist_ok=True)
    settings = Settings(quick=options.quick, device=device, compiled=not options.quick)
    budget = QUICK if options.quick else replace(FULL, seconds=options.seconds)
    machine, found = figures.machine(device), []
    for name in options.only or PROBLEMS:
        start = time.perf_counter()
        for contest in PROBLEMS[name](settings):
            found += run(contest, budget, progress.tell, device)
        progress.finish(f"{name}: {time.perf_counter() - start:.0f} s")
        results = Results(machine, tuple(found))
        figures.write(results, out / "results.json")
        (out / "results.md").write_text(report(results), encoding="utf-8")
        growth.draw(growth.curves(found), out / "growth.png")
    print(report(results))
    print(f"Results, this table and a picture of growth are in {out}.")


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument("--only", nargs="+", choices=list(PROBLEMS), metavar="NAME", help=", ".join(PROBLEMS))
    made.add_argument("--quick", action="store_true", help="fewer sizes and rounds, torch compiles nothing")
    made.add_argument("--threads", type=int, default=1, metavar="N", help="of torch (1)")
    made.add_argument("--seconds", type=float, default=FULL.seconds, metavar="S", help="for each contest (4)")
    made.add_argument("--device", choices=("cpu", "cuda"), help="cpu, then cuda where there is one")
    made.add_argument("--out", type=Path, default=Path("out/bench"), help="folder for results (out/bench)")
    made.add_argument("--check", action="store_true", help="hold ratios to those in benchmarks/stored.json")
    made.add_argument("--store", action="store_true", help="replace those in benchmarks/stored.json")
    return made


if __name__ == "__main__":
    sys.exit(main())
