"""A plugin of pytest, which prints graphs and policies of tests that fail as code.

Switched on by ``-p scg.testing.plugin``. Of a Hypothesis test that is the failure after shrinking.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from types import TracebackType
from typing import Any

import pytest

from scg.errors import ScgError
from scg.estimators.protocol.kinds import Estimator
from scg.graph import Graph
from scg.testing.text.code import as_code

TITLE = "Graph as code"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add every graph in sight of a failure to what pytest reports of it."""
    report = yield
    if report.failed and call.excinfo is not None:
        report.sections.extend((TITLE, text) for text in shown(call.excinfo.value))
    return report


def shown(error: BaseException) -> list[str]:
    """Return, as code, every graph among the variables of the functions that an error passed through.

    A policy and inputs of the graph, in the same function, follow it. Of a group of errors, each has its own.
    """
    if isinstance(error, BaseExceptionGroup):
        return [text for one in error.exceptions for text in shown(one)]
    found: dict[int, tuple[Graph, Any, Any]] = {}
    for variables in _frames(error.__traceback__):
        for graph in variables.values():
            if isinstance(graph, Graph):
                policy = next((one for one in variables.values() if _is_policy(one, graph)), None)
                inputs = next((one for one in variables.values() if _are_inputs(one, graph)), None)
                before = found.get(id(graph), (graph, None, None))
                found[id(graph)] = (graph, before[1] or policy, before[2] or inputs)
    return [_text(*one) for one in found.values()]


def _frames(traceback: TracebackType | None) -> Iterator[Mapping[str, Any]]:
    """Yield the variables of every function on the way to an error, but not those of scg itself."""
    while traceback is not None:
        frame = traceback.tb_frame
        if not str(frame.f_globals.get("__name__", "")).startswith("scg."):
            yield dict(frame.f_locals)
        traceback = traceback.tb_next


def _is_policy(value: Any, graph: Graph) -> bool:
    if isinstance(value, Estimator):
        return True
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(one, (str, Estimator)) for one in value.values())
        and all(name in graph for name in value)
    )


def _are_inputs(value: Any, graph: Graph) -> bool:
    return isinstance(value, Mapping) and bool(value) and list(value) == list(graph.freeze().inputs)


def _text(graph: Graph, policy: Any, inputs: Any) -> str:
    """Return a graph with what belongs to it as code, or why that has no text."""
    try:
        return as_code(graph, policy=policy, inputs=inputs)
    except ScgError as error:
        told = f"# {error}\n# policy: {policy!r}"
    try:
        return f"{as_code(graph)}\n{told}"
    except ScgError:
        return told
