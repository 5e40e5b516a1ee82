"""The records a graph is made of: frozen, flat, and joined by name only."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from scg.nodes import trees
from scg.nodes.arguments import Arguments

NO_ARGUMENTS = Arguments()


@dataclass(frozen=True, eq=False)
class Function:
    """What a node calls: a plain callable, or the ``nn.Module`` that the graph keeps under ``owner``."""

    call: Callable[..., Any] | None = None
    owner: str | None = None
    label: str = ""


def identity(value: Any) -> Any:
    """Return the value itself: the function of a cost that is simply a node."""
    return value


def part(value: Any, index: int) -> Any:
    """Return one of several results: the function of a node declared with others in a tuple of names."""
    if not isinstance(value, Tensor) and not hasattr(type(value), "__getitem__"):
        raise TypeError(f"a {type(value).__name__} has no parts in order: name one node, and read node.field")
    return value[index]


def attribute(value: Any, name: str) -> Any:
    """Return an attribute of a value that is no tensor, such as a dataclass or the output of a model."""
    kind = type(value).__name__
    try:
        found = getattr(value, name)
    except AttributeError:
        near = get_close_matches(name, [other for other in dir(value) if not other.startswith("_")], 1)
        hint = f"; the nearest is '{near[0]}'" if near else ""
        if isinstance(value, Mapping) and name in value:
            hint = f"; write node[{name!r}]"
        raise AttributeError(f"a {kind} has no attribute '{name}'{hint}") from None
    if inspect.isroutine(found):
        raise TypeError(f"'{name}' is a method of a {kind}: call it, as in node.{name}()")
    return found


def outcome(value: Any, action: Tensor, mask: Tensor | None = None) -> Any:
    """Return what was recorded with an action, 0 where nothing exists: the function of an outcome."""
    if mask is None:
        return value
    mask = mask if mask.dtype == torch.bool else mask != 0
    if not isinstance(value, Tensor):
        return trees.tree_map(lambda leaf: outcome(leaf, action, mask), value)
    inner = value.dim() - mask.dim()
    zero = 0.0 if value.is_floating_point() else torch.zeros((), dtype=value.dtype, device=value.device)
    return torch.where(mask[(..., *(None,) * inner)] if inner else mask, value, zero)


STRUCTURAL = (identity, part)


@dataclass(frozen=True, eq=False, kw_only=True)
class Record:
    """What every node has: a name, the plates it was declared with, and where that was.

    ``plates`` is None where the node simply takes the union of its parents' plates.
    """

    name: str
    plates: tuple[str, ...] | None = None
    where: str = ""
    arguments: Arguments = NO_ARGUMENTS

    @property
    def parents(self) -> tuple[str, ...]:
        """Names of the nodes that this node reads, each once, in order of first use."""
        return self.arguments.names


@dataclass(frozen=True, eq=False, kw_only=True)
class Param(Record):
    """A leaf whose value is an ``nn.Parameter``; the store holds the tensor under this name."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Constant(Record):
    """A tensor that was written as a parent; the store holds it under this name."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Input(Record):
    """A leaf that the caller supplies at each run."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Det(Record):
    """A deterministic function of its parents.

    ``differentiable``: None is probed, True is declared smooth, False is a black box.
    ``mixes`` names the plates across which the function mixes elements.
    """

    fn: Function
    differentiable: bool | None = None
    relaxed: Callable[..., Any] | None = None
    mixes: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False, kw_only=True)
class Cost(Det):
    """A deterministic node whose value is a term of the objective, one per element of its plates."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Bound(Cost):
    """A cost that is -log mean exp(-terms) over the plate ``over``, which it alone drops."""

    over: str

    @property
    def terms(self) -> str:
        """The node with a term for each element of the plate."""
        return self.arguments.names[0]


@dataclass(frozen=True, eq=False)
class Simulation:
    """A simulator that is called as ``simulate(policy, *arguments)`` in a run, and what it fills in.

    ``inputs`` has the names of the graph's inputs in the places of the record.
    """

    simulate: Callable[..., Any]
    policy: Function
    arguments: Arguments
    inputs: Mapping[str, Any]

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Names of the inputs that an action influences: all but its state, and whether it exists."""
        several = (part for key, part in self.inputs.items() if key not in ("state", "mask"))
        return tuple(name for part in several for name in trees.tree_leaves(part))


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample(Record):
    """A stochastic node: a draw from the distribution that ``dist`` makes of its parents.

    ``value`` names the node that has the value where it was drawn elsewhere, and ``behaviour`` that with its
    log-probability under the law it was drawn from, where that was another. Elements at which the node
    ``exists`` is 0 are none. A ``simulation`` makes all of this in each run.
    """

    dist: Function
    value: str | None = None
    exists: str | None = None
    behaviour: str | None = None
    simulation: Simulation | None = None

    @property
    def besides(self) -> tuple[str, ...]:
        """The nodes that say what was drawn elsewhere, which its law does not read."""
        several = (self.value, self.exists, self.behaviour)
        return tuple(name for name in several if name is not None)

    @property
    def drawn(self) -> tuple[str, ...]:
        """The nodes that have what was drawn elsewhere, and what followed from it, before it is a value."""
        outcomes = () if self.simulation is None else self.simulation.outcomes
        several = (self.value, self.behaviour, *outcomes)
        return tuple(dict.fromkeys(name for name in several if name is not None))

    @property
    def parents(self) -> tuple[str, ...]:
        """The distribution's arguments, and what says what was drawn elsewhere."""
        return tuple(dict.fromkeys((*self.arguments.names, *self.besides)))


@dataclass(frozen=True, eq=False, kw_only=True)
class LogProb(Record):
    """The log-density of ``value`` under the law of the sample ``of``, or under ``dist``."""

    value: str
    of: str | None = None
    dist: Function | None = None

    @property
    def parents(self) -> tuple[str, ...]:
        """The value, the sample whose law is used if any, and the distribution's arguments."""
        sampled = (self.of,) if self.of is not None else ()
        return tuple(dict.fromkeys((self.value, *sampled, *self.arguments.names)))
