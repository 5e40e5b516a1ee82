"""How much of a long table of tests is run: all of it under HYPOTHESIS_PROFILE=fuzz, else an even part."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final, TypeVar

import pytest

T = TypeVar("T")
Option = TypeVar("Option")

EVERYTHING: Final = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
THINNED: Final = {
    "analysis/test_paths.py::test_a_gate_of_0_hides_no_break": 2,
    "contract/test_ranks.py::test_elements_are_problems_of_their_own": 4,
    "contract/test_alone.py::test_the_mean_gradient_is_right": 3,
    "contract/test_alone.py::test_what_is_claimed_runs": 4,
    "contract/test_pairs.py::test_replicates_are_exact": 3,
    "contract/test_pairs.py::test_a_pair_in_nested_plates_is_exact": 6,
    "contract/test_pairs.py::test_a_pair_with_plates_is_exact": 5,
    "contract/test_pairs.py::test_a_pair_is_exact": 3,
    "contract/test_variate_pairs.py::test_a_pair_is_exact": 4,
    "contract/test_variate_pairs.py::test_a_pair_in_a_small_graph_is_exact": 2,
    "contract/test_controls.py::test_controls_get_the_gradient_of_the_variance": 3,
    "contract/test_compiled.py::test_compiled_and_eager_agree": 4,
    "laws/test_relaxable.py::test_the_conditional_has_the_law_of_rejection_samples": 2,
    "laws/test_relaxable.py::test_the_mixture_of_conditionals_has_the_law_of_z": 2,
    "oracle/test_twin.py::test_random_graphs": 2,
    "probes/test_smoothness.py::test_judges_rightly": 2,
    "program/test_ranks.py::test_ranks_see_what_one_process_sees": 8,
    "testing/test_estimators.py::test_right_estimators_pass": 16,
    "truth/test_containers.py::test_sparse_experts_do_not_cross_the_plate": 3,
    "truth/test_right_programs.py::test_a_right_program_of_bits_runs": 2,
}
"""Tests of combinations, of which one of so many is run but under the fuzz profile."""


def thinned(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Leave out what ``THINNED`` says, the same in every run.

    Of each so many the next is kept in turn: every so-many-th would always meet the same of the options that
    alternate in a table.
    """
    met: dict[str, int] = {}
    kept = []
    for item in items:
        name = item.nodeid.removeprefix("tests/").partition("[")[0]
        place = met[name] = met.get(name, -1) + 1
        step = THINNED.get(name, 1)
        if EVERYTHING or place % step == place // step % step:
            kept.append(item)
    return kept


def covering(several: Sequence[T], *columns: Callable[[T], Hashable]) -> list[T]:
    """Return so many rows of a table that whatever stands in one of its columns stands there still."""
    seen: set[tuple[int, Hashable]] = set()
    kept = []
    for row in several:
        cells = {(index, column(row)) for index, column in enumerate(columns)}
        if EVERYTHING or not cells <= seen:
            kept.append(row)
            seen |= cells
    return kept


def some(several: Sequence[T], step: int) -> list[T]:
    """Return every ``step``-th of a table."""
    return list(several if EVERYTHING else several[::step])


def by_turns(several: Sequence[T], options: Sequence[Option]) -> list[tuple[T, Option]]:
    """Return every row of a table with one of some options, each in its turn."""
    return [
        (row, option)
        for place, row in enumerate(several)
        for turn, option in enumerate(options)
        if EVERYTHING or place % len(options) == turn
    ]
