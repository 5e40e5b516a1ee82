"""Ordered pairs of estimators, one above the other, in small graphs: integrated exactly.

One of each kind meets every other in all graphs, and the rest in some; all do under HYPOTHESIS_PROFILE=fuzz.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import pytest

import scg
from scg.oracle import exact_gradient
from tests.contract import shapes
from tests.contract.instances import INSTANCES, Instance
from tests.contract.judge import Gradient, is_exact, is_simulated
from tests.contract.shapes import POINTS, Kinds, Shape
from tests.contract.test_alone import facts
from tests.selection import EVERYTHING, by_turns, covering

Make = Callable[[Kinds], Shape]
LAWS = {"bernoulli": "bernoulli-logits", "binomial": "binomial-logits", "normal": "normal"}
DISCRETE_ONCE = ("score", "enumerate")
"""What is tested at a binomial as well; elsewhere a Bernoulli stands for every finite law."""
PLAIN = ("score", "score+self-critical")
"""The options of the score that are tested at a normal too."""


@dataclass(frozen=True)
class End:
    """An instance at a law."""

    instance: Instance
    law: str

    def __str__(self) -> str:
        return f"{self.instance}@{self.law}"


def _ends() -> list[End]:
    found = []
    for instance in INSTANCES.values():
        claimed = [law for law, maker in LAWS.items() if instance.claims(facts(maker, instance.samples))]
        for law in claimed:
            extra = {"bernoulli": True, "binomial": instance.name in DISCRETE_ONCE}
            if extra.get(law, claimed == ["normal"] or instance.name in PLAIN or not instance.exact):
                found.append(End(instance, law))
    return found


ENDS = _ends()
CELLS = [end for end in ENDS if end.instance.integrated != "points"]
"""Without control variates, which have pairs of their own."""
FEW = [
    end
    for end in ENDS
    if end.law != "binomial" and end.instance.name not in ("score+normalise", "score+moving-average")
]
"""Without those that differ from another by a constant: for larger graphs."""


def needed(*instances: Instance) -> int | None:
    return max((i.samples for i in instances if i.samples is not None), default=None)


UNPLATED = (shapes.chain, shapes.fork, shapes.direct)
TWO_ABOVE = (shapes.join, shapes.diamond)
PLATED = (
    shapes.plated,
    shapes.summed,
    shapes.plate_added,
    shapes.sum_added,
    shapes.aligned_and_aggregate,
    shapes.through_a_mean,
    shapes.ordered,
    shapes.mixing,
)
SMALL = (shapes.chain, shapes.direct)
"""Where pairs of replicates are few enough to visit whatever the other node is."""
LARGE = (shapes.summed, shapes.sum_added, shapes.aligned_and_aggregate, shapes.ordered, shapes.mixing)
"""Where they are so many that what compares replicates meets only itself."""


def affordable(make: Make, upper: End, lower: End) -> bool:
    if needed(upper.instance, lower.instance) is None or make in SMALL:
        return True
    if not EVERYTHING and (upper.instance.mirrored or lower.instance.mirrored):
        return False  # of pairs of replicates, each in noise and in noise turned over
    return upper.law == lower.law == "bernoulli" and (make not in LARGE or upper == lower)


Case = tuple[Make, End, End]
STEP = 7
"""What is not a factor of the number of graphs or of ends, so that others meet in other graphs."""


def cases(makes: Sequence[Make], ends: Sequence[End]) -> list[Case]:
    inside = [end for end in ends if end in CELLS]
    every = itertools.product(makes, inside, inside)
    return [case for case in every if affordable(*case)]


OF_A_KIND = [end for end in ENDS if str(end) in ("score@bernoulli", "enumerate@bernoulli", "reparam@normal")]
"""Scores, branches and what the value passes through; what is cut has pairs of its own."""


def kept(several: list[Case], always: Sequence[End] = OF_A_KIND) -> list[Case]:
    """Keep all pairs of some ends in every graph; of the rest, each is above another and below one in some.

    All under HYPOTHESIS_PROFILE=fuzz.
    """
    makes = list(dict.fromkeys(make for make, _, _ in several))

    def is_kept(case: Case) -> bool:
        return {*case[1:]} <= {*always}

    def turn(case: Case) -> tuple[bool, int]:
        make, upper, lower = case
        return not is_kept(case), (makes.index(make) + ENDS.index(upper) + 2 * ENDS.index(lower)) % STEP

    chosen = [case for case in several if is_kept(case)]
    columns = (lambda case: case[0], lambda case: str(case[1]), lambda case: str(case[2]))
    covered = covering(sorted(several, key=turn), *columns)
    return [*chosen, *(case for case in covered if case not in chosen)]


def name(case: Case) -> str:
    make, upper, lower = case
    return f"{make.__name__}-{upper}-{lower}"


def named(several: Sequence[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("make", "upper", "lower"), several, ids=map(name, several))


DEFAULT = [end for end in FEW if end.law != "normal" and end.instance.name in (*DISCRETE_ONCE, "local")]


def policy(
    shape: Shape, upper: Instance, lower: Instance, *, sibling: bool
) -> Mapping[str, scg.Estimator | str]:
    """Return an estimator of its own for every node; networks read a sibling, or the node's parents."""
    parts = {"upper": upper, "lower": lower}
    return {
        name: parts[part].make(shape.siblings.get(name) if sibling else None) if part in parts else part
        for name, part in shape.parts.items()
    }


@cache
def truth(make: Make, kinds: Kinds) -> Gradient:
    return exact_gradient(make(kinds).graph, points=POINTS)


def judge(
    make: Make,
    upper: End,
    lower: End,
    *,
    sibling: bool = False,
    samples: int | None = None,
    shared: Sequence[str] = (),
) -> None:
    kinds = Kinds(upper.law, lower.law)
    shape, expected = make(kinds), truth(make, kinds)
    instances = (upper.instance, lower.instance)
    samples = samples or needed(*instances)
    exact = all(instance.exact for instance in instances)
    chosen = policy(shape, *instances, sibling=sibling)
    program = scg.compile(shape.graph, chosen, samples=samples if exact else 2000)
    if exact:
        mirrored = any(instance.mirrored for instance in instances)
        is_exact(
            shape.graph,
            program,
            expected,
            samples=samples,
            points=POINTS,
            shared=shared,
            mirrored=mirrored,
        )
    else:
        is_simulated(shape.graph, program, expected)


@named(kept(cases(UNPLATED, ENDS)) + kept(cases(TWO_ABOVE, FEW)))
def test_a_pair_is_exact(make: Make, upper: End, lower: End) -> None:
    judge(make, upper, lower)


@named(kept(cases(PLATED, FEW)))
def test_a_pair_with_plates_is_exact(make: Make, upper: End, lower: End) -> None:
    judge(make, upper, lower)


@pytest.mark.parametrize("end", CELLS, ids=str)
def test_what_lies_between_two_normals_is_exact(end: End) -> None:
    judge(shapes.between_normals, end, End(end.instance, "normal"))


REPLICATED = by_turns(kept(cases([shapes.chain], FEW)), (2, 3))


@pytest.mark.parametrize(
    ("case", "samples"), REPLICATED, ids=[f"{name(case)}-{samples}" for case, samples in REPLICATED]
)
def test_replicates_are_exact(case: Case, samples: int) -> None:
    """With 2 and with 3 by turns; all with both under HYPOTHESIS_PROFILE=fuzz."""
    judge(*case, samples=samples)


READING = End(INSTANCES["score+module"], "bernoulli")
BESIDE = [
    (make, other, READING)
    for make in (shapes.fork, shapes.join, shapes.diamond)
    for other in CELLS
    if other.law == "bernoulli"
]


@named(kept(BESIDE, [*OF_A_KIND, READING]))
def test_a_baseline_that_reads_a_sibling_is_exact(make: Make, upper: End, lower: End) -> None:
    judge(make, upper, lower, sibling=True)


@named(kept(cases([shapes.nested], FEW)) + kept(cases([shapes.wide], DEFAULT), ()))
def test_a_pair_in_nested_plates_is_exact(make: Make, upper: End, lower: End) -> None:
    judge(make, upper, lower, shared=("outer",))


def test_every_shape_is_tested() -> None:
    functions = [f for f in vars(shapes).values() if inspect.isfunction(f)]
    made = {f for f in functions if "kinds" in inspect.signature(f).parameters}
    assert made == {*UNPLATED, *TWO_ABOVE, *PLATED, shapes.between_normals, shapes.nested, shapes.wide}
