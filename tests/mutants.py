"""Mutants: small changes of the compiler that tests have to notice, each put into a copy of the tree and run.

``python tests/mutants.py`` runs all in tests/mutants.toml, and with names after it some. It fails where one
survives, or where what it would replace is no longer there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
COPIED = ("scg", "tests", "docs", "benchmarks", "pyproject.toml", "README.md", "CHANGELOG.md", "Makefile")
LIMIT = 600
"""Seconds for the tests of one mutant; one that takes longer is not caught."""
CAUGHT, SURVIVED = 1, 0
"""What pytest exits with where a test failed, and where none did; anything else tells of neither."""


@dataclass(frozen=True)
class Mutant:
    """What stands in a file of ``scg`` instead of what, and the tests, from fast to slow, that should notice.

    A ``control`` changes nothing that matters, and has to survive.
    """

    name: str
    file: str
    old: str
    new: str
    tests: list[str]
    control: bool = False

    @property
    def path(self) -> Path:
        """The file, within a tree."""
        return Path("scg", self.file)

    def changed(self) -> str:
        """Return the text of the file as changed; refuse what is not in it, or is there twice."""
        text = (ROOT / self.path).read_text()
        if (count := text.count(self.old)) != 1:
            raise SystemExit(
                f"{self.name}: {self.path} has {count} times what the mutant replaces, not once. "
                f"Write what stands there now instead of:\n{self.old}"
            )
        return text.replace(self.old, self.new)


def mutants() -> list[Mutant]:
    """Return all of them, in their order."""
    with (ROOT / "tests/mutants.toml").open("rb") as file:
        return [Mutant(**row) for row in tomllib.load(file)["mutant"]]


def run(mutant: Mutant, tree: Path) -> tuple[bool, str]:
    """Change a tree, run the tests, and put it back; say whether all is well, and what happened."""
    place, text = tree / mutant.path, mutant.changed()
    before = place.read_text()
    place.write_text(text)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests]
    try:
        done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return False, f"took more than {LIMIT} s"
    finally:
        place.write_text(before)
    if done.returncode == CAUGHT:
        failed = [
            line.split()[1] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))
        ]
        return not mutant.control, f"caught by {', '.join(failed)}"
    if done.returncode == SURVIVED:
        return mutant.control, "survived"
    return False, f"pytest exits with {done.returncode}: {done.stdout[-500:]}"


def main(names: list[str]) -> int:
    """Run the mutants of some names, or all, and return what to exit with."""
    every = mutants()
    if unknown := set(names) - {mutant.name for mutant in every}:
        raise SystemExit(f"no mutants: {', '.join(unknown)}")
    for mutant in every:
        mutant.changed()
    several, wrong = [mutant for mutant in every if not names or mutant.name in names], []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, tree / name)
        for place, mutant in enumerate(several, 1):
            start = time.perf_counter()
            is_well, told = run(mutant, tree)
            wrong += [] if is_well else [mutant.name]
            print(
                f"{place}/{len(several)} {mutant.name}: {told} ({time.perf_counter() - start:.0f} s)",
                flush=True,
            )
    print(f"not as it should be: {', '.join(wrong)}" if wrong else "all are as they should be")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
