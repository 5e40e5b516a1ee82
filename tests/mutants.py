"""Mutants: deliberate defects of scg, each served from memory to the tests that have to notice it.

``python tests/mutants.py`` tries all that tests/mutations/*.toml name, and with names after it some;
``--list`` prints them: name, file, change and tests. It fails where one survives, or where what one
replaces is no longer there.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import tempfile
import textwrap
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
LIMIT = 300
"""Seconds for the tests of one mutant; one that takes longer is not caught."""
CAUGHT, SURVIVED = 1, 0
"""What pytest exits with where a test failed, and where none did; anything else tells of neither."""
LOADED = ("torch._dynamo", "hypothesis", "networkx", "scipy.stats", "sympy")
"""What is imported once, before there is a process for each mutant."""
OPTIONS = (
    "-x",
    "-q",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
)


@dataclass(frozen=True)
class Mutant:
    """What stands in a file of ``scg`` instead of what, and the tests, from fast to slow, that should notice.

    A ``control`` changes nothing that matters, and has to survive. One that is ``equivalent`` is not tried:
    no test can notice it, for the reason given.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = ()
    control: bool = False
    equivalent: str = ""

    @property
    def path(self) -> Path:
        """The file."""
        return ROOT / "scg" / self.file

    @property
    def module(self) -> str:
        """The name that the file is imported under."""
        parts = ("scg", *Path(self.file).with_suffix("").parts)
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def changed(self) -> str:
        """Return the text of the file as changed; refuse what is not in it, or is there twice."""
        text = self.path.read_text()
        if (count := text.count(self.old)) != 1:
            raise SystemExit(
                f"{self.name}: scg/{self.file} has {count} times what the mutant replaces, not once. "
                f"Write what stands there now instead of:\n{self.old}"
            )
        return text.replace(self.old, self.new)

    def __str__(self) -> str:
        """The name, the file, the change, and the tests or the reason that there are none."""
        before, after = (textwrap.dedent(text).strip("\n") for text in (self.old, self.new))
        rows = [*(f"- {row}" for row in before.splitlines()), *(f"+ {row}" for row in after.splitlines())]
        ends = [f"equivalent: {self.equivalent}"] if self.equivalent else [*self.tests]
        return "\n    ".join([self.name, f"scg/{self.file}", *rows, *ends])


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: whether that ``is_well``, what is told of it, and the seconds it took."""

    mutant: Mutant
    is_well: bool
    told: str
    seconds: float


class Served(SourceFileLoader):
    """Loads one module from a text that stands in the place of its file."""

    def __init__(self, mutant: Mutant) -> None:
        super().__init__(mutant.module, str(mutant.path))
        self.text = mutant.changed()
        self.was_asked = False

    def get_code(self, fullname: str) -> Any:
        """Compile the text; what was compiled of the file is passed over."""
        self.was_asked = True
        return compile(self.text, self.path, "exec", dont_inherit=True)


class Finder(MetaPathFinder):
    """Finds the module that is served, and no other."""

    def __init__(self, loader: Served) -> None:
        self.loader = loader

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return where the module comes from."""
        if fullname != self.loader.name:
            return None
        return spec_from_file_location(fullname, self.loader.path, loader=self.loader)


class Failures:
    """A plugin of pytest that keeps the names of tests that fail."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep one that failed."""
        if report.failed:
            self.names.append(report.nodeid)


def every() -> list[Mutant]:
    """Return all mutants, in their order."""
    found = []
    for path in sorted((ROOT / "tests/mutations").glob("*.toml")):
        rows = tomllib.loads(path.read_text())["mutant"]
        found += [Mutant(**{**row, "tests": tuple(row.get("tests", ()))}) for row in rows]
    return found


def chosen(mutants: Sequence[Mutant], names: Sequence[str]) -> list[Mutant]:
    """Return the mutants of some names, or all, once the text of every one is seen to be there."""
    if unknown := set(names) - {mutant.name for mutant in mutants}:
        raise SystemExit(f"no mutants: {', '.join(sorted(unknown))}")
    for mutant in mutants:
        mutant.changed()
    return [mutant for mutant in mutants if not names or mutant.name in names]


def attempt(mutant: Mutant, sender: connection.Connection) -> None:
    """Run the tests of a mutant, in a process of its own, and send what pytest exits with and what failed."""
    signal.alarm(LIMIT)
    os.chdir(ROOT)
    sys.path[0] = str(ROOT)
    failures, served = Failures(), Served(mutant)
    sys.meta_path.insert(0, Finder(served))
    with tempfile.TemporaryFile("w+") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        code = int(pytest.main([*OPTIONS, *mutant.tests], plugins=[failures]))
        file.seek(0)
        sender.send((code, failures.names, served.was_asked, file.read()[-2000:]))


def outcome(mutant: Mutant, found: tuple[int, list[str], bool, str] | None, seconds: float) -> Outcome:
    """Say whether what became of a mutant is as it should be."""
    if found is None:
        return Outcome(mutant, False, f"took more than {LIMIT} s, or ended its process", seconds)
    code, failed, was_asked, output = found
    if not was_asked:
        return Outcome(mutant, False, f"its tests do not import scg/{mutant.file}:\n{output}", seconds)
    if code == CAUGHT:
        return Outcome(mutant, not mutant.control, f"caught by {', '.join(failed)}", seconds)
    if code == SURVIVED:
        return Outcome(mutant, mutant.control, "survived", seconds)
    return Outcome(mutant, False, f"pytest exits with {code}:\n{output}", seconds)


def outcomes(mutants: Sequence[Mutant], jobs: int) -> Iterator[Outcome]:
    """Yield what becomes of each mutant, some at once, in forks of this process."""
    for name in LOADED:
        importlib.import_module(name)
    if "scg" in sys.modules:
        raise RuntimeError("scg is imported already, so that no change of it would be seen")
    context, waiting = get_context("fork"), list(reversed(mutants))
    running: dict[int, tuple[Mutant, Any, connection.Connection, float]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=attempt, args=(waiting[-1], sender))
            process.start()
            sender.close()
            running[process.sentinel] = (waiting.pop(), process, receiver, time.perf_counter())
        for sentinel in connection.wait([*running]):
            assert isinstance(sentinel, int)
            mutant, process, receiver, start = running.pop(sentinel)
            process.join()
            yield outcome(mutant, _sent(receiver), time.perf_counter() - start)


def _sent(receiver: connection.Connection) -> Any:
    """Return what a process sent before it ended, if it did."""
    try:
        return receiver.recv() if receiver.poll() else None
    except EOFError:
        return None


def main(arguments: Sequence[str]) -> int:
    """Try mutants, or list them, and return what to exit with."""
    parser = argparse.ArgumentParser(
        description="Put deliberate defects into scg, and see that tests notice."
    )
    parser.add_argument("names", nargs="*", help="mutants to try (all)")
    parser.add_argument("--list", action="store_true", help="print name, file, change and tests of each")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once (all cores)")
    options = parser.parse_args(arguments)
    several = chosen(every(), options.names)
    if options.list:
        print("\n\n".join(map(str, several)))
        return 0
    tried, start = [mutant for mutant in several if not mutant.equivalent], time.perf_counter()
    wrong = []
    for place, found in enumerate(outcomes(tried, options.jobs), 1):
        wrong += [] if found.is_well else [found.mutant.name]
        print(f"{place}/{len(tried)} {found.mutant.name}: {found.told} ({found.seconds:.1f} s)", flush=True)
    print(
        f"{len(tried)} tried in {time.perf_counter() - start:.0f} s, of them "
        f"{sum(mutant.control for mutant in tried)} without a change; "
        f"{len(several) - len(tried)} equivalent ones were not"
    )
    print(f"not as they should be: {', '.join(wrong)}" if wrong else "all are as they should be")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
