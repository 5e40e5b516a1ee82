"""What ``g.rollout`` declares: inputs for a record, the actions as a sample, and the outcomes."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, Protocol

from scg.errors import GraphError
from scg.nodes import trees
from scg.nodes.handle import Node
from scg.nodes.plates import Plate
from scg.nodes.played import Played, named
from scg.nodes.records import Record, Sample, outcome
from scg.nodes.rollout import Rollout


class Declares(Protocol):
    """What is needed of a graph."""

    def input(self, name: str, example: Any = None, *, plates: Any = ()) -> Node:
        """Declare an input."""
        ...

    def det(self, name: Any, fn: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        """Declare a deterministic node."""
        ...

    def sample(self, name: str, dist: Callable[..., Any], /, *args: Any, **options: Any) -> Node:
        """Declare a stochastic node."""
        ...


def check_steps(name: str, plates: Sequence[Plate], described: Container[str]) -> None:
    """Refuse to guess whether the last of several plates are steps, of which later ones follow earlier."""
    last = plates[-1].name if len(plates) > 1 else None
    if last is not None and last not in described and not any(plate.ordered for plate in plates):
        raise GraphError(
            f"rollout '{name}' lies in plates {tuple(plate.name for plate in plates)}: is '{last}' one step "
            f'after another? Write g.plate("{last}", ordered=True, reduce="sum"), so that an action is '
            f'charged with what comes later, or g.plate("{last}") for elements that do not follow each other'
        )


def check_settled(name: str, records: Mapping[str, Record], parents: Sequence[str]) -> None:
    """Refuse a simulator that reads what the program draws: it runs before."""
    waiting, seen = [*parents], set(parents)
    while waiting:
        above = records[waiting.pop()]
        if isinstance(above, Sample):
            raise GraphError(
                f"rollout '{name}' simulates from '{above.name}', which is drawn in the program: draw it in "
                "simulate, and declare what was drawn with g.sample(..., value=...)"
            )
        waiting += [parent for parent in above.parents if parent not in seen]
        seen.update(above.parents)


def declare(
    graph: Declares, name: str, policy: Any, record: Played, plates: tuple[str, ...], behaviour: str | None
) -> tuple[Rollout, Played]:
    """Declare a rollout; return its handle, and the names of the inputs in the places of the record."""
    if behaviour is not None and behaviour not in record:
        has = ", ".join(map(str, record))
        raise GraphError(
            f"rollout '{name}': behaviour= is a key of its record, not {behaviour!r}; it has {has}"
        )
    names = named(name, record)
    raw = _inputs(graph, record, names, plates)
    mask, likelihood = raw.get("mask"), None if behaviour is None else raw[behaviour]
    action = graph.sample(
        name, policy, raw["state"], plates=plates, value=raw["action"], where=mask, behaviour=likelihood
    )
    besides, options = (() if mask is None else (mask,)), {"plates": plates, "differentiable": False}
    outcomes = {
        key: graph.det(_called(name, key), outcome, part, action, *besides, **options)
        for key, part in raw.items()
        if key != "action"
    }
    parents = tuple(node for node in trees.tree_leaves(raw["state"]) if isinstance(node, Node))
    return Rollout(action.graph, name, parents, {"action": action, **outcomes}), names


def _called(name: str, key: str) -> str:
    """Return the name of an outcome; that of the log-probability is taken by that of the node itself."""
    return f"{name}_recorded_{key}" if key == "log_prob" else f"{name}_{key}"


def _inputs(graph: Declares, record: Any, names: Any, plates: tuple[str, ...]) -> Any:
    """Declare an input for every tensor of a record, and return their nodes in its places."""
    parts = trees.children(record)
    if parts is None:
        return graph.input(names, record, plates=plates)
    places = trees.children(names) or {}
    return trees.with_children(
        record, {k: _inputs(graph, part, places[k], plates) for k, part in parts.items()}
    )
