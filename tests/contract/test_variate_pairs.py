"""Control variates above and below every other estimator, in every small graph: integrated exactly.

The graphs have many copies, one for each point of base noise. Estimators as they come meet in every order;
of the options, which differ less, each is above another and below one, and all pairs are under
HYPOTHESIS_PROFILE=fuzz.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import pytest

import scg
from scg.oracle import exact_gradient
from tests.contract import shapes
from tests.contract.instances import Instance, Odd, itself
from tests.contract.judge import is_integrated
from tests.contract.shapes import Kinds, Shape
from tests.contract.test_pairs import (
    ENDS,
    FEW,
    Case,
    End,
    Make,
    kept,
    named,
    needed,
    policy,
    truth,
)
from tests.support.points import Grid

FINE, COUPLED = 12, 8
CURVED = ("lax", "lax+wrong")
"""Whose networks are no polynomials of a normal, and need more points."""


def ends(*names: str) -> list[End]:
    return [end for end in ENDS if end.instance.name in names and end.law != "binomial"]


VARIATES = [end for end in ENDS if end.instance.integrated == "points"]
OTHERS = [end for end in ENDS if end not in VARIATES]
CORE = ends("rebar", "relax", "lax+net")
FAST = ends("rebar+warm", "relax+both", "lax+net")
"""Those that few points integrate, for the larger graphs."""
BASIC = ends("score", "enumerate")
PLAIN = ends("rebar", "lax", "score", "enumerate", "reparam")
"""One of each kind, at what it takes."""

FIRST = ends("rebar", "reparam")
"""What the value passes through, relaxed or not."""

SMALL: Mapping[Make, tuple[str, ...]] = {
    shapes.fork: (),
    shapes.join: (),
    shapes.diamond: (),
    shapes.plated: ("p",),
    shapes.summed: ("p",),
    shapes.plate_added: ("p",),
    shapes.sum_added: ("p",),
}
"""The graphs where FINE is affordable, with plates whose elements no cost joins."""
LARGE: Mapping[Make, tuple[int, tuple[str, ...]]] = {
    shapes.through_a_mean: (8, ()),
    shapes.aligned_and_aggregate: (4, ()),
    shapes.ordered: (4, ()),
    shapes.mixing: (4, ()),
    shapes.nested: (6, ("outer",)),
}
"""Those where so many points are, with plates whose elements no cost joins."""
PAIRED = (shapes.chain, shapes.plated, shapes.summed)
"""Where pairs of replicates are few enough to visit."""


def relaxes(instance: Instance) -> bool:
    """Whether the estimator needs a cost at relaxed values."""
    return instance.name.startswith("rebar") or instance.name == "relax+both"


def possible(make: Make, upper: End, lower: End) -> bool:
    """Leave out what is refused, as what is discrete below a quadratic, and what takes too many points.

    In a join so many points of a normal would lead to probabilities above 1.
    """
    if make is shapes.join and is_curved(upper, lower):
        return False
    if relaxes(upper.instance) and lower.law == "binomial":
        return False
    if upper.instance.name.startswith("quadratic") and lower.law != "normal":
        return False
    if needed(upper.instance, lower.instance) is None:
        return True
    return make in PAIRED and not is_curved(upper, lower)


def is_curved(*several: End) -> bool:
    return any(end.instance.name in CURVED for end in several)


def pairs(makes: Sequence[Make], own: Sequence[End], others: Sequence[End]) -> list[Case]:
    """Every ordered pair of which at least one is of the first."""
    every = itertools.product(makes, [*own, *others], [*own, *others])
    return [case for case in every if not {*case[1:]}.isdisjoint(own) and possible(*case)]


def alike(makes: Iterable[Make], own: Sequence[End]) -> list[Case]:
    """Each of several above itself."""
    return [(make, end, end) for make in makes for end in own if possible(make, end, end)]


def relaxed_below(shape: Shape, chosen: Mapping[str, scg.Estimator | str]) -> set[str]:
    """Return the nodes whose noise matters within its cells: those that are relaxed."""
    ir = shape.graph.freeze()
    relaxed: set[str] = set()
    reached: set[str] = set()
    for name in ir:
        estimator = chosen.get(name)
        if not reached.isdisjoint(ir[name].parents):
            reached.add(name)
        if isinstance(estimator, (scg.REBAR, scg.RELAX)):
            reached.add(name)
        if name in reached and name in chosen:
            relaxed.add(name)
    return relaxed


def judge(
    make: Make,
    upper: End,
    lower: End,
    *,
    legendre: int = FINE,
    tolerance: float = 1e-4,
    shared: tuple[str, ...] = (),
    sibling: bool = False,
    samples: int | None = None,
) -> None:
    shape = make(Kinds(upper.law, lower.law, many=True))
    instances = (upper.instance, lower.instance)
    chosen = policy(shape, *instances, sibling=sibling)
    compares = needed(*instances) is not None
    grid = Grid(
        legendre=COUPLED if compares else legendre,
        hermite=20 if is_curved(upper, lower) else 3,
        shared=shared,
        coupled=compares,
        flat=set(chosen) - relaxed_below(shape, chosen),
        mirrored=any(instance.mirrored for instance in instances),
    )
    samples = samples or needed(*instances)
    program = scg.compile(shape.graph, chosen, samples=samples)
    expected = truth(make, Kinds(upper.law, lower.law))
    is_integrated(shape.graph, program, expected, grid, samples=samples, tolerance=tolerance)


@named(
    kept(pairs([shapes.chain], VARIATES, [end for end in FEW if end in OTHERS]), PLAIN)
    + kept(
        pairs(
            [shapes.direct],
            [end for end in VARIATES if end.instance.samples is None],
            [end for end in FEW if end in OTHERS and end.instance.samples is None],
        ),
        FIRST,
    )
)
def test_a_pair_is_exact(make: Make, upper: End, lower: End) -> None:
    judge(make, upper, lower)


@named(kept(pairs([shapes.chain], CORE, [end for end in OTHERS if end not in FEW]), ()))
def test_other_options_and_laws_are_exact(make: Make, upper: End, lower: End) -> None:
    judge(make, upper, lower)


@named(
    kept(pairs(list(SMALL), CORE, BASIC), FIRST[:1])
    + kept(alike(SMALL, [end for end in VARIATES if end not in CORE]), ())
)
def test_a_pair_in_a_small_graph_is_exact(make: Make, upper: End, lower: End) -> None:
    judge(make, upper, lower, shared=SMALL[make])


@named(kept(pairs(list(LARGE), FAST, BASIC), ()))
def test_a_pair_in_a_large_graph_is_exact(make: Make, upper: End, lower: End) -> None:
    legendre, shared = LARGE[make]
    judge(make, upper, lower, legendre=legendre, shared=shared, tolerance=1e-3)


@pytest.mark.parametrize("end", VARIATES, ids=str)
def test_what_lies_between_two_normals_is_exact(end: End) -> None:
    judge(shapes.between_normals, end, End(end.instance, "normal"))


@named(kept(pairs([shapes.chain, shapes.plate_added], CORE, BASIC), ()))
@pytest.mark.parametrize("samples", [2, 3])
def test_replicates_are_exact(make: Make, upper: End, lower: End, samples: int) -> None:
    judge(make, upper, lower, samples=samples, shared=SMALL.get(make, ()))


READERS = ends("relax+net", "relax+both", "lax+net")
BESIDE = itertools.product([shapes.fork, shapes.join, shapes.diamond], [*CORE, *BASIC], READERS)


@named(kept(list(BESIDE), [*BASIC, READERS[0]]))
def test_a_network_that_reads_a_sibling_is_exact(make: Make, upper: End, lower: End) -> None:
    judge(make, upper, lower, sibling=True)


DEEP = [
    ("rebar", "relax", "score"),
    ("score", "rebar", "relax"),
    ("relax", "score", "rebar"),
    ("rebar", "enumerate", "relax"),
    ("enumerate", "rebar", "rebar"),
    ("rebar", "rebar", "enumerate"),
    ("rebar", "reparam", "relax"),
    ("reparam", "rebar", "score"),
    ("lax", "rebar", "lax"),
    ("rebar", "relax", "score", "reparam"),
    ("reparam", "score", "relax", "rebar"),
    ("rebar", "score", "relax", "enumerate"),
    ("enumerate", "relax", "rebar", "score"),
    ("relax", "rebar", "reparam", "enumerate"),
]
MADE: Mapping[str, Callable[[], scg.Estimator]] = {
    "rebar": lambda: scg.REBAR(temperature=1.0, eta=0.6),
    "relax": lambda: scg.RELAX(Odd()),
    "lax": lambda: scg.LAX(Odd(itself)),
    "score": scg.Score,
    "reparam": scg.Reparam,
    "enumerate": scg.Enumerate,
}


@pytest.mark.parametrize("names", DEEP, ids="-".join)
def test_a_chain_of_several_is_exact(names: tuple[str, ...]) -> None:
    """Each estimator below the others, in different orders."""
    shape, one = (shapes.deep(many, *map(law, names)) for many in (True, False))
    chosen = {f"x{index}": MADE[name]() for index, name in enumerate(names)}
    grid = Grid(8 if len(names) > 3 else FINE, 3, flat=set(chosen) - relaxed_below(shape, chosen))
    program = scg.compile(shape.graph, chosen)
    expected = exact_gradient(one.graph, points=shapes.POINTS)
    is_integrated(shape.graph, program, expected, grid, tolerance=1e-4)


def law(estimator: str) -> str:
    return "normal" if estimator in ("reparam", "lax") else "bernoulli"
