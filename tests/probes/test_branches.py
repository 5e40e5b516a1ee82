"""Ways: every number that Python reads is replaced in turn, and what raises is no way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scg.probes.branches import CALLS, LENGTH, NEAR, TIMES, Reads, others, ways
from scg.probes.flow import flow
from scg.probes.merging import merged
from scg.probes.provenance import Provenance


def test_ways_within_ways_are_found() -> None:
    def call(reads: Reads) -> str:
        if not reads.read(False):
            return "short"
        return "deep" if reads.read(False) else "far"

    found = ways(call)
    assert found.taken == "short" and found.is_complete
    assert found.untaken == {((0, True),): "far", ((0, True), (1, True)): "deep"}


def test_what_raises_on_the_way_taken_is_the_caller_s() -> None:
    def call(reads: Reads) -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        ways(call)


def test_many_reads_are_not_all_tried() -> None:
    calls = []
    source = "[" + ", ".join(["reads.read(True)"] * (CALLS + 1)) + "]"

    def call(reads: Reads) -> None:
        calls.append(eval(source, {"reads": reads}))

    assert not ways(call).is_complete
    assert len(calls) == CALLS + 1


def test_a_line_in_a_loop_is_tried_a_few_times() -> None:
    def call(reads: Reads) -> list[bool]:
        return [reads.read(True) for _ in range(50)]

    found = ways(call)
    assert len(found.untaken) == TIMES and not found.is_complete


def test_a_loop_that_is_stopped_does_not_tell_all() -> None:
    def call(reads: Reads) -> int:
        return next((step for step in range(2) if reads.read(step > 0)), 2)

    found = ways(call)
    assert list(found) == [1, 0, 2] and not found.is_complete


def test_what_follows_a_loop_is_tried_in_spite_of_it() -> None:
    def call(reads: Reads) -> bool:
        for _ in range(50):
            reads.read(0.5)
        return reads.read(False)

    assert True in list(ways(call))


@pytest.mark.parametrize("value", [True, 3, 0.5, float("inf"), "text", None])
def test_others_are_of_the_same_kind(value: object) -> None:
    assert all(type(other) is type(value) for other in others(value))


def test_a_count_that_became_a_million_is_cut_short() -> None:
    def call(reads: Reads) -> Tensor:
        x = torch.ones(3)
        with Provenance({}, given=[x], reads=reads):
            for _ in range(int(x.sum())):
                x = x + 1
        return x

    found = ways(call)
    assert [float(x[0]) for x in found] == [4.0, 5.0, 1.0, 1.0 + NEAR]
    assert not found.is_complete


def test_a_size_that_became_a_million_is_made_nearer() -> None:
    def call(reads: Reads) -> int:
        x = torch.ones(3)
        with Provenance({}, given=[x], reads=reads):
            return len(torch.zeros(int(x.sum()), 100))

    found = ways(call)
    assert list(found) == [3, 4, int(NEAR)]
    assert not found.is_complete


def test_all_ways_together_are_bounded() -> None:
    spent = []

    def call(reads: Reads) -> None:
        x = torch.ones(3)
        with Provenance({}, given=[x], reads=reads):
            try:
                while x.sum() < 50:
                    x = x + 1 if x[0] > 0 else x + 2
            finally:
                spent.append(reads.spent)

    ways(call)
    assert sum(spent[1:]) <= 5 * (LENGTH + 2 * spent[0])


def test_constants_are_not_replaced() -> None:
    def call(reads: Reads) -> bool:
        with Provenance({}, given=[], reads=reads):
            return bool(torch.ones(3).sum() > 2)

    assert not ways(call).untaken


def test_flows_are_merged_by_what_they_share() -> None:
    p, flag = torch.tensor(0.5, requires_grad=True), torch.tensor(0.0)
    one, two = torch.nn.Parameter(torch.ones(())), torch.nn.Parameter(torch.ones(()))

    def fn() -> Tensor:
        return p * two * torch.bernoulli(one) if flag > 0 else (p * one).round()

    found = ways(lambda reads: flow(fn, [p], reads=reads))
    every = merged([*found], 1)
    assert [id(source) for source in every.sources] == [id(p), id(one), id(two)]
    assert every.leaves[0].sources == {0, 1, 2} and every.alive == {0, 1, 2}
    names = {finding.operation: touched for finding, touched in every.touched.items()}
    assert names == {"round": {0, 1}, "bernoulli": {1}}
