"""Defects of the compiler put back on purpose: the strategy, at the class that should show it, finds each."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings

from scg.analysis.edges import SMOOTH
from scg.analysis.hidden import Hidden
from scg.evaluation.calls import transform_of
from scg.probes.smoothness import Smoothness, Verdict
from tests.truth.defects import defects
from tests.truth.judge import verdict

TRIES = 60
CUTS = {torch.ops.aten.atan2, torch.ops.aten.copysign}


@dataclass(frozen=True)
class Fault:
    """What stands in the compiler instead of what, by dotted names, and the class of defects to show it."""

    instead: Mapping[str, Callable[[Any], Any]]
    kind: str
    without: str = "nothing"  # a word of programs that, so broken, would broadcast for minutes
    tries: int = TRIES  # more where other checks see nearly all of the class


def nothing(old: Any) -> Any:
    return lambda *args, **options: []


def always(old: Any) -> Any:
    return lambda *args, **options: True


def empty(old: Any) -> Any:
    return {}


def nothing_found(old: Any) -> Any:
    return lambda *args, **options: frozenset()


def without_cuts(old: Any) -> Any:
    return {packet: step for packet, step in old.items() if packet not in CUTS}


def done(old: Any) -> Any:
    return lambda *args, **options: None


def everything_smooth(old: Any) -> Any:
    return lambda *args, **options: SMOOTH


def unknown_passes(old: Any) -> Any:
    def edge(*args: Any) -> Verdict:
        found: Verdict = old(*args)
        return SMOOTH if found.smoothness is Smoothness.UNKNOWN else found

    return edge


def nothing_hidden(old: Any) -> Any:
    return lambda *args, **options: Hidden((), (), (), frozenset(), frozenset())


def any_law(old: Any) -> Any:
    return lambda record, law: transform_of(record)


ANALYSIS, PROGRAM = "scg.analysis.", "scg.program."
BY_OPERATIONS = {ANALYSIS + "crossing._joint": done, ANALYSIS + "crossing._tells_all": done}
FAULTS: dict[str, Fault] = {
    "crossing is not looked for": Fault({ANALYSIS + "facts.crossings": nothing}, "crossing"),
    "crossing is looked for in values": Fault(BY_OPERATIONS, "crossing"),
    "what sleeps is not seen": Fault(BY_OPERATIONS, "sleeper"),
    "branches are not tried": Fault({"scg.probes.branches._next": nothing}, "hidden"),
    "everything is smooth": Fault({ANALYSIS + "paths.edge": everything_smooth}, "jump"),
    "gates are not moved, and what is unknown is smooth": Fault(
        {
            ANALYSIS + "facts.moved_traces": nothing,
            "scg.probes.smoothness._worlds": nothing,
            ANALYSIS + "paths.edge": unknown_passes,
        },
        "jump",
    ),
    "numbers in the place of NaN are smooth": Fault(
        {"scg.probes.recording.DOMAIN_STEPS": empty, "scg.probes.smoothness.jump": done}, "jump", tries=600
    ),
    "what jumps at a cut is smooth": Fault(
        {"scg.probes.recording.HIDDEN_STEPS": without_cuts}, "jump", tries=600
    ),
    "worlds are run together": Fault({ANALYSIS + "modes.keeps_worlds_apart": always}, "mixing"),
    "places are not told apart": Fault(
        {ANALYSIS + "modes.takes_any_number": always, PROGRAM + "prepare.disagreeing": nothing_found},
        "place",
    ),
    "other sizes are not checked": Fault(
        {PROGRAM + "checked.CheckedRun._shape": done, PROGRAM + "prepare.Prepared.fit": done},
        "place",
        without="lax",
        tries=600,
    ),
    "draws are not looked for": Fault({ANALYSIS + "facts.hidden": nothing_hidden}, "hidden"),
    "laws are not compared": Fault({"scg.surrogate.lowering.worlds.guarded": any_law}, "static"),
}


def is_found(fault: Fault) -> bool:
    """Say whether the strategy meets a program of a class that is neither right nor refused."""

    @settings(
        max_examples=fault.tries,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(defects([fault.kind]).filter(lambda defect: fault.without not in str(defect)))
    def hold(defect: Any) -> None:
        found = verdict(defect.case)
        assume(found.kind not in ("void", "unresolved"))
        assert found.kind in ("right", "refused", "warned")

    try:
        hold()
    except AssertionError:
        return True
    return False


def put_back(fault: Fault, patch: pytest.MonkeyPatch) -> None:
    for where, instead in fault.instead.items():
        owner, _, attribute = where.rpartition(".")
        try:
            holder: Any = importlib.import_module(owner)
        except ModuleNotFoundError:
            module, _, name = owner.rpartition(".")
            holder = getattr(importlib.import_module(module), name)
        patch.setattr(holder, attribute, instead(getattr(holder, attribute)))


@pytest.mark.parametrize("name", FAULTS)
def test_a_defect_that_is_put_back_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put_back(FAULTS[name], monkeypatch)
    assert is_found(FAULTS[name])


@pytest.mark.parametrize("kind", sorted({fault.kind for fault in FAULTS.values()}))
def test_without_a_defect_nothing_is_found(kind: str) -> None:
    tries = max(fault.tries for fault in FAULTS.values() if fault.kind == kind)
    assert not is_found(Fault({}, kind, tries=tries))
