"""The handle of a rollout: the node of its action, and its outcomes by key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scg.errors import GraphError
from scg.nodes.handle import Declares, Node


class Rollout(Node):
    """The actions of a rollout; ``rollout["reward"]`` and the like are what was recorded with them.

    Those are outcomes, which the actions influence. ``parents`` are the nodes with what the policy read,
    which they do not.
    """

    __slots__ = ("outcomes", "parents")

    def __init__(
        self, graph: Declares, name: str, parents: tuple[Node, ...], outcomes: Mapping[str, Node]
    ) -> None:
        """Name the node of the actions."""
        super().__init__(graph, name)
        self.parents = parents
        self.outcomes = outcomes

    def __getitem__(self, key: Any) -> Node:
        """Return the outcome of a key; anything else is a part of the actions."""
        if not isinstance(key, str):
            return Node(self.graph, self.name)[key]
        if key not in self.outcomes:
            raise GraphError(
                f"the record of rollout '{self.name}' has no '{key}'; it has {', '.join(self.outcomes)}"
            )
        return self.outcomes[key]

    def __reduce__(self) -> Any:
        return Rollout, (self.graph, self.name, self.parents, self.outcomes)
