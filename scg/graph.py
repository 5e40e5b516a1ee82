"""The graph a user declares: names become frozen records, and ``freeze`` makes the IR."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from scg import draw
from scg.analysis.captured import with_captured
from scg.analysis.check import check
from scg.errors import GraphError, PlateError
from scg.evaluation.simulating import run
from scg.nodes.arguments import Arguments, Ref, exemplary, spelled
from scg.nodes.bounds import LogMeanExp, settled, unbounded
from scg.nodes.handle import Node
from scg.nodes.ir import IR, Store, hold
from scg.nodes.names import caller, check_name
from scg.nodes.plates import Plate, Reduce, padded, plate_order, resolve_layout
from scg.nodes.played import played
from scg.nodes.records import (
    Bound,
    Constant,
    Cost,
    Det,
    Function,
    Input,
    LogProb,
    Param,
    Record,
    Sample,
    Simulation,
    attribute,
    identity,
    part,
)
from scg.nodes.rollout import Rollout
from scg.rollouts import check_settled, check_steps, declare

Plates = str | Plate | tuple[str | Plate, ...] | list[str | Plate]


class Graph:
    """A stochastic computation graph in the making (Schulman et al., 2015, arXiv:1506.05254).

    Nodes are declared under names, which are Python identifiers; ``name`` of the graph itself is shown by
    drawings. Parents are nodes, tensors or numbers, also in lists, tuples and dicts. ``plates``, one name or
    several, are the independent replicates that a node has, its leftmost dimensions; left out, they are
    those of its parents. With more of them a sample draws independently and a function's value is expanded,
    with fewer the node is an aggregate. Functions see a parent with size-1 dimensions for the plates that it
    lacks.

    >>> import torch, scg
    >>> g = scg.Graph()
    >>> b = g.sample("b", torch.distributions.Bernoulli, logits=g.param("theta", 0.0))
    >>> g.cost("loss", (b - 0.499) ** 2)
    <node 'loss'>
    """

    def __init__(self, name: str = "graph") -> None:
        """Start an empty graph."""
        self.name = name
        self._records: dict[str, Record] = {}
        self._plates: dict[str, Plate] = {}
        self._described: set[str] = set()
        self._tensors: dict[str, Tensor] = {}
        self._modules: dict[str, nn.Module] = {}
        self._examples: dict[str, Any] = {}
        self._owners: dict[nn.Module, str] = {}
        self._lifted: dict[Tensor, str] = {}
        self._counts: dict[str, int] = {}

    def __getitem__(self, name: str) -> Node:
        if name not in self._records:
            raise GraphError(f"the graph has no node '{name}'; its nodes are {', '.join(self._records)}")
        return Node(self, name)

    def __contains__(self, name: object) -> bool:
        return name in self._records

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the nodes, in the order of declaration."""
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        return f"<scg.Graph '{self.name}': {len(self._records)} nodes>"

    def plate(
        self,
        name: str,
        *,
        size: int | None = None,
        reduce: Reduce = "mean",
        ordered: bool = False,
        discount: float = 1.0,
    ) -> Plate:
        """Say what the plate ``name`` is; a plate that is only named has ``reduce="mean"`` and no order.

        ``size`` is its dimension, taken from inputs where it is None. The objective takes the mean over its
        elements, or their sum with ``reduce="sum"``. Of an ``ordered`` plate, whose elements come one after
        another, the cost at step t counts ``discount**t``, and a value is charged with no earlier step.
        """
        if not name.isidentifier():
            raise PlateError(f"plate names are Python identifiers, {name!r} is not")
        plate = Plate(name, size, reduce, ordered, discount)
        if name in self._described and self._plates[name] != plate:
            raise PlateError(
                f"plate '{name}' is already declared as {self._plates[name]}: give all options in one g.plate"
            )
        self._described.add(name)
        self._plates[name] = plate
        return plate

    def param(self, name: str, init: Any, *, plates: Plates = ()) -> Node:
        """Declare a parameter: ``init`` is an ``nn.Parameter``, used as it is, or a value to copy.

        With ``plates`` every element has its own. ``g[name].value`` is the ``nn.Parameter``.
        """
        if not isinstance(init, nn.Parameter):
            value = torch.as_tensor(init)
            dtype = value.dtype if value.is_floating_point() else torch.get_default_dtype()
            init = nn.Parameter(value.detach().clone().to(dtype))
        node = self._add(Param(name=name, plates=self._named(plates), where=caller()))
        self._tensors[name] = init
        self._lifted[init] = name
        return node

    def input(self, name: str, example: Any = None, *, plates: Plates = ()) -> Node:
        """Declare what the caller supplies at each run under ``name``, best with an ``example``.

        That is a tensor, or a dict of them, with the dimensions of ``plates`` first. With examples for all
        inputs, faults are told when the graph is compiled.
        """
        if isinstance(example, (str, Plate, Node)):
            raise GraphError(
                f"input '{name}' was given {example!r} as its example: give a tensor, or a dict of tensors, "
                "and plates by name, as in plates=..."
            )
        given = None if example is None else exemplary(name, example)
        node = self._add(Input(name=name, plates=self._named(plates), where=caller()))
        if given is not None:
            self._examples[name] = given
        return node

    def det(
        self,
        name: str | tuple[str, ...],
        fn: Callable[..., Any],
        /,
        *args: Any,
        plates: Plates | None = None,
        differentiable: bool | None = None,
        relaxed: Callable[..., Any] | None = None,
        mixes: Plates = (),
        **parents: Any,
    ) -> Any:
        """Declare ``fn(*args, **parents)``; a tuple of names splits a tuple of results.

        ``differentiable`` is found by probes where it is None; True declares ``fn`` smooth, and False a black
        box, which is given detached tensors and may use anything, as NumPy. ``relaxed`` is called in place of
        ``fn`` where a parent has a relaxed value. ``mixes`` names plates whose elements ``fn`` lets
        influence each other, as batch normalisation does: credit no longer keeps them apart.
        """
        base = name if isinstance(name, str) else "_".join(name)
        node = self._add(
            Det(
                name=base,
                plates=None if plates is None else self._named(plates),
                where=caller(),
                arguments=self._arguments(base, args, parents),
                fn=self._function(base, fn),
                differentiable=differentiable,
                relaxed=relaxed,
                mixes=frozenset(self._named(mixes)),
            )
        )
        if isinstance(name, str):
            return node
        return tuple(self._part(part, node, index) for index, part in enumerate(name))

    def sample(
        self,
        name: str,
        dist: Callable[..., Any],
        /,
        *args: Any,
        plates: Plates | None = None,
        value: Node | None = None,
        where: Node | None = None,
        behaviour: Node | None = None,
        **parents: Any,
    ) -> Node:
        """Declare a draw from ``dist(*args, **parents)``, a Distribution class or what returns one.

        Every element of its ``plates`` is drawn on its own; all other dimensions are one event. ``value`` has
        what was drawn elsewhere from this law, in the run that the other parents are of; it passes on
        detached. If it was drawn from another law, ``behaviour`` has its log-probability under that, and
        costs below are weighed by the ratios. Elements where ``where`` is 0 do not exist, nor do those of
        costs below: they count for nothing, whatever was recorded there.
        """
        besides = {"value": value, "where": where, "behaviour": behaviour}
        stated = {key: self._stated(name, key, node) for key, node in besides.items() if node is not None}
        if behaviour is not None and value is None:
            raise GraphError(f"sample '{name}': behaviour= is of a value drawn elsewhere: give value= too")
        return self._add(
            Sample(
                name=name,
                plates=None if plates is None else self._named(plates),
                where=caller(),
                arguments=self._arguments(name, args, parents),
                dist=self._function(name, dist),
                value=stated.get("value"),
                exists=stated.get("where"),
                behaviour=stated.get("behaviour"),
            )
        )

    def _stated(self, name: str, key: str, node: Any) -> str:
        """Return the name of the node that an option of a sample gives."""
        if not isinstance(node, (Node, Tensor)):
            raise GraphError(f"sample '{name}': {key}= is a node, not a {type(node).__name__}")
        return str(self._leaf(f"{name}_{key}", node).name)

    def rollout(
        self,
        name: str,
        simulate: Callable[..., Any],
        policy: Callable[..., Any],
        /,
        *parents: Any,
        plates: Plates,
        example: Any = None,
        behaviour: str | None = None,
    ) -> Rollout:
        """Declare actions that ``simulate(policy, *parents)`` draws from ``policy(state)`` in every run.

        It returns a dict with "action" and "state", what the policy was given, and perhaps "mask", 1 where a
        step exists, "log_prob" and whatever else was recorded, the ``plates`` first; it runs without
        gradients. ``policy(state)`` is then called once on all of it. The node returned is that of the
        actions; ``node["reward"]`` and the like are outcomes, which the actions influence, and
        ``node.parents`` what the policy read, which they do not. ``example`` is a record, made here if none
        is given. ``behaviour`` is the key of the log-probability of the actions if another policy drew them.
        """
        self._check_free(name)
        arguments = self._arguments(name, parents, {})
        check_settled(name, self._records, arguments.names)
        function = self._function(name, policy)
        several = self._named(plates)
        check_steps(name, [self._plates[plate] for plate in several], self._described)
        if example is None:
            known = self.freeze()
            example = run(known, known.store.examples, name, simulate, function, arguments)
        found, inputs = declare(self, name, policy, played(name, example, several), several, behaviour)
        simulation = Simulation(simulate, function, arguments, inputs)
        self._records[name] = replace(self._records[name], simulation=simulation)  # type: ignore[call-arg]
        return found

    def log_prob(self, dist: Any, value: Any = None, /, *args: Any, **parents: Any) -> Node:
        """Declare the log-density of a sample node, or of ``value`` under ``dist(*args, **parents)``.

        It is one number for each element of the plates, and defined at relaxed values too.
        """
        if isinstance(dist, Node):
            self._own(dist, "log_prob")
            if not isinstance(self._records[dist.name], Sample):
                raise GraphError(
                    f"g.log_prob('{dist.name}') needs a sample node; for another value write "
                    f"g.log_prob(Distribution, value, parameter=...)"
                )
            name = f"{dist.name}_log_prob"
            known = self._records.get(name)
            if known is None:
                return self._add(LogProb(name=name, where=caller(), value=dist.name, of=dist.name))
            if not isinstance(known, LogProb) or known.of != dist.name:
                raise GraphError(
                    f"g.log_prob('{dist.name}') is called '{name}', which is another node ({known.where}): "
                    "rename that"
                )
            return self[name]
        name = self._fresh("log_prob")
        arguments = self._arguments(name, args, parents)
        if isinstance(value, Node):
            self._own(value, name)
        else:
            value = self._lift(f"{name}_value", torch.as_tensor(value))
        function = self._function(name, dist)
        return self._add(
            LogProb(name=name, where=caller(), value=value.name, dist=function, arguments=arguments)
        )

    def cost(
        self,
        name: str,
        fn: Any,
        /,
        *args: Any,
        plates: Plates | None = None,
        differentiable: bool | None = None,
        mixes: Plates = (),
        **parents: Any,
    ) -> Node:
        """Declare a term of the objective: a node, or ``fn(*args, **parents)``.

        It is one number for each element of its ``plates``; ``differentiable`` and ``mixes`` are those of
        ``det``. The objective adds all costs, each averaged or summed over its plates.
        """
        call, args = (identity, (fn,)) if isinstance(fn, Node) else (fn, args)
        return self._add(
            Cost(
                name=name,
                plates=None if plates is None else self._named(plates),
                where=caller(),
                arguments=self._arguments(name, args, parents),
                fn=self._function(name, call),
                differentiable=differentiable,
                mixes=frozenset(self._named(mixes)),
            )
        )

    def bound(self, name: str, cost: Node, /, *, over: str | Plate) -> Node:
        """Declare a term of the objective: -log mean exp(-cost) over the elements of the plate ``over``.

        With cost = log q(z | x) - log p(x, z) of several z drawn in a plate of some ``size``, it is the
        importance weighted bound of Burda, Grosse and Salakhutdinov (2016, arXiv:1509.00519). ``cost`` is a
        node with one number for each element of its plates, and no cost by itself.

        >>> import torch, scg
        >>> g = scg.Graph()
        >>> particles = g.plate("particles", size=5)
        >>> b = g.sample("b", torch.distributions.Bernoulli, logits=g.param("a", 0.0), plates=particles)
        >>> g.bound("bound", g.log_prob(b) - 0.7 * b, over=particles)
        <node 'bound'>
        """
        if not isinstance(cost, Node):
            raise GraphError(f"bound '{name}' is of a node, not of a {type(cost).__name__}")
        (plate,) = self._named(over)
        if plate == "samples" and plate not in self._described:
            raise GraphError(
                f"bound '{name}' is over a plate, and samples=K averages: declare one, as in "
                f'g.plate("particles", size=K), give it to what is drawn in it, and write over="particles"'
            )
        arguments = self._arguments(name, (cost,), {})
        fn = Function(LogMeanExp(-1), label="bound")
        return self._add(Bound(name=name, where=caller(), arguments=arguments, fn=fn, over=plate))

    def derive(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Node:
        """Declare ``fn(*args, **kwargs)``, an operation on nodes, under an automatic name."""
        base = args[1] if fn is attribute else getattr(fn, "__name__", "fn").strip("_")
        name = self._fresh(base)
        arguments = self._arguments(name, args, kwargs)
        return self._add(Det(name=name, where=caller(), arguments=arguments, fn=Function(fn, label=name)))

    def value_of(self, name: str) -> Tensor:
        """Return the tensor of the parameter node ``name``."""
        if name not in self._tensors:
            raise GraphError(f"only parameters have a value; '{name}' gets one when a program runs")
        return self._tensors[name]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield every parameter under the key it has in reports and in ``program.state_dict()``."""
        holder = nn.Module()
        hold(holder, self._store())
        yield from holder.named_parameters()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield every parameter, as an optimizer takes them."""
        return (parameter for _, parameter in self.named_parameters())

    def freeze(self) -> IR:
        """Validate the graph and return it frozen; all faults are reported together."""
        records = self._records.values()
        order = plate_order(self._plates, (record.plates for record in records if record.plates))
        layout, faults = resolve_layout(records, order)
        faults += padded(records, layout, self._plates)
        faults += unbounded([*records], layout, self._plates)
        if faults:
            raise PlateError("\n".join(faults))
        dag = nx.DiGraph()
        for record in records:
            dag.add_node(record.name, record=settled(record, layout))
            dag.add_edges_from((parent, record.name) for parent in record.parents)
        plates = {name: self._plates[name] for name in order}
        found = IR(dag, plates, layout, self._store())
        if wrong := found.unfounded():
            raise GraphError("\n".join(wrong))
        return found

    def _store(self) -> Store:
        """Return what the nodes hold, and what their functions capture."""
        store = Store(dict(self._tensors), dict(self._modules), dict(self._examples))
        return with_captured(store, self._records.values())

    def check(self, **inputs: Any) -> None:
        """Run every probe on examples or on ``inputs``, and report all faults together."""
        check(self.freeze(), inputs)

    def draw(self, path: str | Path) -> None:
        """Draw the graph: SVG, PNG, Mermaid or DOT by the suffix of ``path``."""
        draw.write(self.freeze(), path)

    def _repr_svg_(self) -> str:
        return draw.svg(self.freeze())

    def _check_free(self, name: str) -> None:
        check_name(name)
        if name in self._records:
            raise GraphError(
                f"the graph already has a node '{name}' (declared at {self._records[name].where}): choose "
                "another name"
            )

    def _add(self, record: Record) -> Node:
        self._check_free(record.name)
        self._records[record.name] = record
        return Node(self, record.name)

    def _fresh(self, base: str) -> str:
        while True:
            self._counts[base] = self._counts.get(base, 0) + 1
            name = f"{base}_{self._counts[base]}"
            if name not in self._records:
                return name

    def _part(self, name: str, whole: Node, index: int) -> Node:
        arguments = Arguments((Ref(whole.name), index))
        getitem = Function(part, label=name)
        return self._add(Det(name=name, where=caller(), arguments=arguments, fn=getitem, differentiable=True))

    def _named(self, plates: Plates) -> tuple[str, ...]:
        several = (plates,) if isinstance(plates, (str, Plate)) else tuple(plates)
        names = tuple(plate if isinstance(plate, str) else plate.name for plate in several)
        if len(set(names)) < len(names):
            raise PlateError(f"plates {names} name a plate twice")
        for name in names:
            if name not in self._plates and not name.isidentifier():
                raise PlateError(f"plate names are Python identifiers, {name!r} is not")
            self._plates.setdefault(name, Plate(name))
        return names

    def _function(self, node: str, fn: Callable[..., Any]) -> Function:
        if isinstance(fn, Distribution):
            raise GraphError(
                f"node '{node}' was given a finished {type(fn).__name__}: give the class and its arguments, "
                f'as in g.sample("{node}", {type(fn).__name__}, ...)'
            )
        if not callable(fn) or isinstance(fn, Node):
            raise GraphError(f"node '{node}' needs a callable, found {type(fn).__name__}")
        label = getattr(fn, "__name__", type(fn).__name__)
        if not isinstance(fn, nn.Module):
            return Function(fn, label=label)
        owner = self._owners.setdefault(fn, node)
        self._modules[owner] = fn
        return Function(owner=owner, label=label)

    def _arguments(self, node: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
        named = {key: spelled(f"{node}_{key}", value, self._leaf) for key, value in kwargs.items()}
        several = tuple(spelled(f"{node}_{index}", value, self._leaf) for index, value in enumerate(args))
        return Arguments(several, named)

    def _leaf(self, name: str, value: Any) -> Any:
        if isinstance(value, Node):
            self._own(value, name)
            return Ref(value.name)
        if _hides_node(value):
            raise GraphError(
                f"'{name}' is a {type(value).__name__} that holds nodes, which are not found there: give "
                "parents in lists, tuples, dicts or dataclasses"
            )
        return Ref(self._lift(name, value).name) if isinstance(value, Tensor) else value

    def _lift(self, name: str, value: Tensor) -> Node:
        """Keep a tensor that was written as a parent: a parameter if it is one, else a constant."""
        if value in self._lifted:
            return self[self._lifted[value]]
        name = name if name not in self._records and name.isidentifier() else self._fresh("constant")
        if value.requires_grad and not isinstance(value, nn.Parameter):
            raise GraphError(
                f"'{name}' was given a tensor with a gradient history, which a program cannot run again: "
                f"declare what computes it as nodes, or give value.detach()"
            )
        self._tensors[name] = value
        self._lifted[value] = name
        kind = Param if isinstance(value, nn.Parameter) else Constant
        return self._add(kind(name=name, plates=(), where=caller()))

    def _own(self, node: Node, reader: str) -> None:
        if node.graph is not self:
            raise GraphError(
                f"'{reader}' reads node '{node.name}' of another graph: declare that node in this graph"
            )


def _hides_node(value: Any) -> bool:
    """Say whether something that is taken for a constant has nodes in it."""
    held = value if isinstance(value, (set, frozenset)) else getattr(value, "__dict__", {}).values()
    is_opaque = not isinstance(value, (Tensor, nn.Module, type)) and not callable(value)
    return is_opaque and any(isinstance(item, Node) for item in held)
