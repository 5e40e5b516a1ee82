"""The handle a user holds for a node: arithmetic, torch functions and Tensor methods declare nodes."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from types import FrameType
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from scg.errors import GraphError
from scg.nodes.arguments import parts_of
from scg.nodes.records import attribute

VIEWS = frozenset({"T", "mT", "H", "mH", "real", "imag"})
CONCRETE = frozenset(
    "item tolist numpy backward dim ndimension size numel nelement stride data_ptr is_contiguous "
    "requires_grad_ retain_grad register_hook cpu cuda share_memory_ storage get_device".split()
)


class Declares(Protocol):
    """What a handle needs of its graph: to declare a node for an operation on it."""

    def derive(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Node:
        """Declare the deterministic node ``fn(*args, **kwargs)``."""
        ...

    def value_of(self, name: str) -> Tensor:
        """Return the tensor that a parameter node holds."""
        ...


def _operator(fn: Callable[..., Any]) -> Callable[..., Node]:
    def method(self: Node, *others: Any) -> Node:
        return self.graph.derive(fn, (self, *others), {})

    return method


def _reflected(fn: Callable[..., Any]) -> Callable[..., Node]:
    def method(self: Node, other: Any) -> Node:
        return self.graph.derive(fn, (other, self), {})

    return method


class NodeAttributeError(GraphError, AttributeError):
    """A Tensor attribute was read that a node, having no value yet, does not have."""


class Node:
    """One node of a graph: a name to give to other nodes, with the operations of a Tensor.

    >>> import scg
    >>> g = scg.Graph()
    >>> mu = g.param("mu", 0.5)
    >>> ((mu - 0.499) ** 2).name
    'pow_1'
    """

    __slots__ = ("graph", "name")

    def __init__(self, graph: Declares, name: str) -> None:
        """Name a node of ``graph``."""
        self.graph = graph
        self.name = name

    def __repr__(self) -> str:
        return f"<node '{self.name}'>"

    @property
    def value(self) -> Tensor:
        """The ``nn.Parameter`` of a parameter node."""
        return self.graph.value_of(self.name)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Node:
        node = next(_nodes((args, kwargs or {})))
        if func is torch.broadcast_tensors:
            _misused(node, "unpacked")
        if any(isinstance(item, nn.Parameter) for item in (*args, *(kwargs or {}).values())):
            raise GraphError(
                f"a module, or a parameter that is no node, was applied to node '{node.name}': write "
                f'g.det("name", module, node) for a module and g.param("name", tensor) for a parameter'
            )
        return node.graph.derive(func, args, kwargs or {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"node '{self.name}' has no attribute '{name}'")
        known = getattr(Tensor, name, None)
        if known is not None and name in VIEWS:
            return self.graph.derive(getattr, (self, name), {})
        if known is not None and (name in CONCRETE or name.endswith("_") or not callable(known)):
            raise NodeAttributeError(_advice(self, f"asked for its .{name}"))
        return Attribute(self, name)

    __add__ = _operator(operator.add)
    __radd__ = _reflected(operator.add)
    __sub__ = _operator(operator.sub)
    __rsub__ = _reflected(operator.sub)
    __mul__ = _operator(operator.mul)
    __rmul__ = _reflected(operator.mul)
    __truediv__ = _operator(operator.truediv)
    __rtruediv__ = _reflected(operator.truediv)
    __floordiv__ = _operator(operator.floordiv)
    __rfloordiv__ = _reflected(operator.floordiv)
    __mod__ = _operator(operator.mod)
    __rmod__ = _reflected(operator.mod)
    __pow__ = _operator(operator.pow)
    __rpow__ = _reflected(operator.pow)
    __matmul__ = _operator(operator.matmul)
    __rmatmul__ = _reflected(operator.matmul)
    __and__ = _operator(operator.and_)
    __rand__ = _reflected(operator.and_)
    __or__ = _operator(operator.or_)
    __ror__ = _reflected(operator.or_)
    __xor__ = _operator(operator.xor)
    __rxor__ = _reflected(operator.xor)
    __neg__ = _operator(operator.neg)
    __pos__ = _operator(operator.pos)
    __abs__ = _operator(operator.abs)
    __invert__ = _operator(operator.invert)
    __getitem__ = _operator(operator.getitem)
    __lt__ = _operator(operator.lt)
    __le__ = _operator(operator.le)
    __gt__ = _operator(operator.gt)
    __ge__ = _operator(operator.ge)
    __eq__ = _operator(operator.eq)  # type: ignore[assignment]
    __ne__ = _operator(operator.ne)  # type: ignore[assignment]
    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        _misused(self, "used as a condition")

    def __float__(self) -> float:
        _misused(self, "turned into a float")

    def __int__(self) -> int:
        _misused(self, "turned into an int")

    def __index__(self) -> int:
        _misused(self, "used as an index")

    def __len__(self) -> int:
        _misused(self, "asked for its length")

    def __iter__(self) -> Iterator[Any]:
        raise GraphError(
            f'{_advice(self, "iterated over")}; for several results a, b = g.det(("a", "b"), fn, ...), '
            'and for parts of a value node[0], node["key"] or node.field'
        )

    def __contains__(self, item: object) -> bool:
        _misused(self, "searched")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        _misused(self, "turned into an array")

    def __setitem__(self, key: Any, value: Any) -> None:
        _misused(self, "written to")


class Attribute(Node):
    """An attribute of the value of a node: a node of its own where it is used, a Tensor method if called."""

    __slots__ = ("_label", "_name", "_owner")

    def __init__(self, owner: Node, label: str) -> None:
        """Name an attribute; nothing is declared before it is used."""
        self.graph = owner.graph
        self._owner = owner
        self._label = label
        self._name: str | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name of the node that reads the attribute, declared when it is first asked for."""
        if self._name is None:
            self._name = self.graph.derive(attribute, (self._owner, self._label), {}).name
        return self._name

    def __call__(self, *args: Any, **kwargs: Any) -> Node:
        """Declare the call of a Tensor method."""
        method = getattr(Tensor, self._label, None)
        if method is None:
            near = get_close_matches(self._label, [name for name in dir(Tensor) if name[0] != "_"], 1)
            hint = f"; the nearest is '{near[0]}'" if near else ""
            raise NodeAttributeError(
                f"'{self._label}' was called on node '{self._owner.name}', but is no Tensor method{hint}: "
                f'write g.det("name", fn, node) with a function that calls it'
            )
        return self.graph.derive(method, (self._owner, *args), kwargs)

    def __reduce__(self) -> Any:
        return Node, (self.graph, self.name)


def _nodes(template: Any) -> Iterator[Node]:
    """Yield the nodes in nested arguments."""
    if isinstance(template, Node):
        yield template
        return
    for part in (parts_of(template) or {}).values():
        yield from _nodes(part)


def _misused(node: Node, how: str) -> NoReturn:
    """Raise for an operation that needs the value of a node."""
    raise GraphError(_advice(node, how))


def _advice(node: Node, how: str) -> str:
    """Say what to write instead of an operation that needs the value of a node."""
    frame: FrameType | None = sys._getframe(2)
    for _ in range(6):
        if frame is not None and str(frame.f_globals.get("__name__", "")).startswith("torch.distributions"):
            return (
                f"a distribution was built on node '{node.name}', which has no value yet: give its class "
                f'and arguments apart, as in g.sample("name", Bernoulli, logits=node)'
            )
        frame = None if frame is None else frame.f_back
    return (
        f"node '{node.name}' was {how}, but it has no value while the graph is declared: "
        f'write g.det("name", fn, node) with a function that does it'
    )
