"""The list of mutants is in order, and what tries them tells what was caught from what was not."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest

from scg.verification import sequential
from tests.mutants import CAUGHT, ROOT, SURVIVED, Finder, Mutant, Served, every, main, outcome

ONE = Mutant("guard", "verification/sequential.py", "GUARD = 100.0", "GUARD = 7.0", ("tests/verification",))


def test_every_row_is_one_defect_of_a_text_that_is_there() -> None:
    mutants = every()
    assert len({mutant.name for mutant in mutants}) == len(mutants)
    assert len({(mutant.file, mutant.changed()) for mutant in mutants}) == len(mutants)
    for mutant in mutants:
        assert bool(mutant.tests) != bool(mutant.equivalent), mutant.name
        assert all((ROOT / test.partition("::")[0]).exists() for test in mutant.tests), mutant.name
        compile(mutant.changed(), mutant.name, "exec")  # what is no Python is noticed by every test


def test_there_are_many_in_every_room_and_a_control() -> None:
    mutants = every()
    assert len([mutant for mutant in mutants if mutant.tests and not mutant.control]) >= 80
    assert any(mutant.control for mutant in mutants)
    rooms = {"estimators", "laws", "surrogate", "noise.py", "oracle", "verification", "choosing"}
    assert rooms <= {mutant.file.partition("/")[0] for mutant in mutants}


def test_a_text_is_served_in_the_place_of_the_file() -> None:
    loader = Served(ONE)
    assert Finder(loader).find_spec("scg.verification.verify") is None
    spec = Finder(loader).find_spec("scg.verification.sequential")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    assert loader.was_asked
    assert (module.GUARD, sequential.GUARD) == (7.0, 100.0)


@pytest.mark.parametrize("old", ["GUARD = 99.0", "Tensor"])
def test_a_text_that_is_not_there_once_is_told(old: str) -> None:
    with pytest.raises(SystemExit, match=r"guard: scg/verification/sequential.py has \d+ times"):
        replace(ONE, old=old).changed()


@pytest.mark.parametrize(
    "mutant, found, is_well, told",
    [
        (ONE, (CAUGHT, ["test_a"], True, ""), True, "caught by test_a"),
        (ONE, (SURVIVED, [], True, ""), False, "survived"),
        (replace(ONE, control=True), (SURVIVED, [], True, ""), True, "survived"),
        (replace(ONE, control=True), (CAUGHT, ["test_a"], True, ""), False, "caught by test_a"),
        (ONE, (CAUGHT, ["test_a"], False, ""), False, "its tests do not import scg/verification"),
        (ONE, (4, [], True, "no such test"), False, "pytest exits with 4:\nno such test"),
        (ONE, None, False, "took more than"),
    ],
)
def test_what_becomes_of_a_mutant(
    mutant: Mutant, found: tuple[int, list[str], bool, str] | None, is_well: bool, told: str
) -> None:
    told_of = outcome(mutant, found, 1.0)
    assert told_of.is_well is is_well
    assert told_of.told.startswith(told)


def test_the_list_has_name_file_change_and_tests(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "replicates-summed", "values-drawn-anew-in-a-slice"]) == 0
    one, other = capsys.readouterr().out.split("\n\n")
    name, file, before, after, test = (line.strip() for line in one.splitlines())
    assert (name, file) == ("replicates-summed", "scg/surrogate/lowering/totals.py")
    assert before.startswith("- mean = [label == REPLICATES or")
    assert after.startswith("+ mean = [(label in plates")
    assert test == "tests/surrogate/lowering/test_credit.py::test_replicates_are_averaged"
    assert "equivalent: a law whose noise is its value" in other


def test_names_that_are_not_there_are_told() -> None:
    with pytest.raises(SystemExit, match="no mutants: nobody"):
        main(["nobody"])
