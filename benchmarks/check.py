"""The guard: ratios against stored ones. Ratios to a step by hand hardly depend on the machine; times do."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.contest import Contest, Settings
from benchmarks.figures import Figure
from benchmarks.problems import PROBLEMS
from benchmarks.run import run
from benchmarks.timing import Budget, Tell
from scg.markdown import table

STORED = Path(__file__).with_name("stored.json")
BUDGET = Budget(rounds=200, seconds=5.0)


@dataclass(frozen=True)
class Guarded:
    """A stored ratio of a contender, and by what factor it may be exceeded."""

    problem: str
    case: str
    size: int | None
    contender: str
    ratio: float
    slack: float = 1.2

    @property
    def most(self) -> float:
        """The highest ratio that passes."""
        return self.ratio * self.slack


@dataclass(frozen=True)
class Verdict:
    """A stored ratio and the one that was found, or why none was."""

    guarded: Guarded
    found: float | None
    error: str | None = None

    @property
    def holds(self) -> bool:
        """Whether the ratio was found, and within the slack."""
        return self.found is not None and self.found <= self.guarded.most

    @property
    def renewed(self) -> Guarded:
        """What to store for it from now on."""
        return self.guarded if self.found is None else replace(self.guarded, ratio=round(self.found, 3))

    @property
    def word(self) -> str:
        """What to say of it."""
        if self.found is None:
            return self.error or "not found"
        if not self.holds:
            return "MISS"
        return "better: store it" if self.found * self.guarded.slack < self.guarded.ratio else "ok"


def read(path: Path = STORED) -> list[Guarded]:
    """Read the stored ratios."""
    return [Guarded(**each) for each in json.loads(path.read_text(encoding="utf-8"))]


def write(guarded: Sequence[Guarded], path: Path = STORED) -> None:
    """Store ratios."""
    path.write_text(json.dumps([asdict(each) for each in guarded], indent=1) + "\n", encoding="utf-8")


def contests() -> dict[tuple[str, str, int | None], Contest]:
    """Every contest there is, by what figures have in common with it."""
    every = (contest for problem in PROBLEMS.values() for contest in problem(Settings()))
    return {(contest.problem, contest.case, contest.size): contest for contest in every}


def verdicts(stored: Sequence[Guarded], tell: Tell, budget: Budget) -> Iterator[Verdict]:
    """Run what is stored and judge it; what misses is run once more, and the lower ratio counts."""
    known = contests()
    wanted: dict[tuple[str, str, int | None], list[Guarded]] = {}
    for each in stored:
        wanted.setdefault((each.problem, each.case, each.size), []).append(each)
    for key, several in wanted.items():
        if key not in known:
            yield from (Verdict(each, None, "there is no such contest") for each in several)
            continue
        found = judged(known[key], several, tell, budget)
        if not all(verdict.holds for verdict in found):
            again = judged(known[key], several, tell, budget)
            pairs = zip(found, again, strict=True)
            found = [min(pair, key=lambda verdict: verdict.found or math.inf) for pair in pairs]
        yield from found


def judged(contest: Contest, several: Sequence[Guarded], tell: Tell, budget: Budget) -> list[Verdict]:
    """Run the contenders that are guarded, with the one that they are compared to."""
    names = [contest.against, *(each.contender for each in several)]
    contenders = {name: build for name, build in contest.contenders.items() if name in names}
    only = Contest(contest.problem, contest.case, contenders, contest.size, contest.against)
    figures = {figure.contender: figure for figure in run(only, budget, tell)}
    return [verdict(each, figures.get(each.contender)) for each in several]


def verdict(guarded: Guarded, figure: Figure | None) -> Verdict:
    """Judge one figure."""
    if figure is None or figure.ratio is None:
        return Verdict(guarded, None, figure.error if figure is not None else "there is no such contender")
    return Verdict(guarded, figure.ratio.median)


def judgement(found: Sequence[Verdict]) -> str:
    """The table of ratios."""
    rows = []
    for verdict in found:
        each = verdict.guarded
        case = each.case if each.size is None else f"{each.case}, {each.size:,}"
        ratio = "" if verdict.found is None else f"{verdict.found:.2f}"
        stored = (f"{each.ratio:.2f}", ratio, f"{each.slack:.2f}")
        rows.append((each.problem, case, each.contender, *stored, verdict.word))
    return table(("problem", "case", "contender", "stored", "found", "slack", "verdict"), "<<<>>><", rows)
