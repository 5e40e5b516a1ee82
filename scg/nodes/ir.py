"""The frozen graph: a networkx DAG of records, the plates of every node, and what nodes hold."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import networkx as nx
from torch import Tensor, nn

from scg.errors import GraphError
from scg.nodes.plates import Plate
from scg.nodes.records import Cost, Det, Function, Input, Param, Record, Sample, Simulation, identity

CAPTURED = "captured"


@dataclass(frozen=True, eq=False)
class Store:
    """What the records of a graph refer to by name: tensors, modules and example inputs.

    What functions capture is there as well, under ``captured.<node>.<name>``; ``reached`` has the names of
    what the functions of each node capture, and ``lost`` says what they capture that cannot be held.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    examples: Mapping[str, Any] = field(default_factory=dict)
    reached: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lost: tuple[str, ...] = ()


def hold(module: nn.Module, store: Store) -> None:
    """Register what a store has on a module, under the same names, with modules in between for their dots."""
    several = (*store.tensors.items(), *store.modules.items())
    value: Any
    for name, value in sorted(several, key=lambda item: item[0].startswith(f"{CAPTURED}.")):
        *outer, last = name.split(".")
        holder = module
        for part in outer:
            if part not in holder._modules:
                holder.add_module(part, nn.Module())
            holder = holder.get_submodule(part)
        if isinstance(value, nn.Module):
            holder.add_module(last, value)
        elif isinstance(value, nn.Parameter):
            holder.register_parameter(last, value)
        else:
            holder.register_buffer(last, value, persistent=False)
    if CAPTURED not in module._modules:
        module.add_module(CAPTURED, nn.Module())


@dataclass(frozen=True, eq=False)
class IR:
    """A validated graph that no pass changes.

    ``dag`` has the record of node ``name`` at ``dag.nodes[name]["record"]`` and an edge from every
    parent; its insertion order is topological. ``plates`` lists every plate in the one order of the
    whole graph, and ``layout`` the plates of each node in that order. ``detached`` names the nodes that give
    some costs a value without its gradient.
    """

    dag: nx.DiGraph
    plates: Mapping[str, Plate]
    layout: Mapping[str, tuple[str, ...]]
    store: Store = field(default_factory=Store)
    detached: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Record:
        record: Record = self.dag.nodes[name]["record"]
        return record

    def __contains__(self, name: object) -> bool:
        return name in self.dag

    def __iter__(self) -> Iterator[str]:
        """Iterate over names, parents before children."""
        return iter(self.dag)

    def __len__(self) -> int:
        return len(self.dag)

    def records(self) -> Iterator[Record]:
        """Yield every record, parents before children."""
        return (data["record"] for _, data in self.dag.nodes(data=True))

    def children(self, name: str) -> Iterator[str]:
        """Yield the names of the nodes that read ``name``."""
        return iter(self.dag.successors(name))

    def only(self, costs: Collection[str]) -> IR:
        """Return the graph with no other costs than these; others are values like any.

        What reads a value ``detached`` for the sake of other costs reads it as it is.
        """
        dag = self.dag.copy()
        for name in self.detached:
            record = self[name]
            assert isinstance(record, Det)
            dag.nodes[name]["record"] = replace(record, fn=Function(identity, label=name))
        for name in self.costs:
            if name not in costs:
                cost = self[name]
                given = {field.name: getattr(cost, field.name) for field in fields(Det)}
                dag.nodes[name]["record"] = Det(**given)
        return replace(self, dag=dag, detached=())

    def _of(self, kind: type[Record]) -> tuple[str, ...]:
        return tuple(record.name for record in self.records() if isinstance(record, kind))

    @cached_property
    def samples(self) -> tuple[str, ...]:
        """Names of the stochastic nodes, parents before children."""
        return self._of(Sample)

    @cached_property
    def given(self) -> tuple[str, ...]:
        """Names of the stochastic nodes whose value was drawn elsewhere."""
        several = ((name, self[name]) for name in self.samples)
        return tuple(name for name, record in several if isinstance(record, Sample) and record.value)

    def drawn_here(self, what: str) -> None:
        """Raise where some values are not drawn by the graph, which ``what`` needs."""
        if self.given:
            raise GraphError(
                f"{what} needs values that the graph draws, and the value of '{self.given[0]}' "
                f"({self[self.given[0]].where}) is drawn elsewhere"
            )

    def unfounded(self) -> list[str]:
        """Say which values drawn elsewhere were not drawn from their law, as that reads what is drawn here.

        A value is a function of what is drawn in the run and its law reads, or was drawn from another law.
        """
        found = []
        for name in self.given:
            record = self[name]
            assert isinstance(record, Sample) and record.value is not None
            seen = {record.value, *nx.ancestors(self.dag, record.value)}
            names = record.arguments.names
            read = set(names).union(*(nx.ancestors(self.dag, parent) for parent in names)) - seen
            unseen = [other for other in self.samples if other in read and other not in self.given]
            if unseen and record.behaviour is None:
                found.append(
                    f"the law of '{name}' ({record.where}) reads '{unseen[0]}', which is drawn in the run, "
                    f"and its value '{record.value}' does not: it was drawn from another law. Let the value "
                    f"be a function of '{unseen[0]}', or give behaviour="
                )
        return found

    @cached_property
    def masks(self) -> Mapping[str, tuple[str, ...]]:
        """The nodes that say which elements of a cost exist, which do if one of them says so.

        They are those of samples above, as long as every node on the way has all of their plates.
        """
        found: dict[str, tuple[str, ...]] = {}
        for record in self.records():
            kept = set(self.layout[record.name]) - (record.mixes if isinstance(record, Det) else frozenset())
            above = [mask for parent in record.parents for mask in found.get(parent, ())]
            above += [record.exists] if isinstance(record, Sample) and record.exists is not None else []
            several = dict.fromkeys(mask for mask in above if kept.issuperset(self.layout[mask]))
            found[record.name] = tuple(several)
        return {name: found[name] for name in self.costs if found[name]}

    @cached_property
    def costs(self) -> tuple[str, ...]:
        """Names of the costs, in the order of declaration."""
        return self._of(Cost)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, in the order of declaration."""
        return self._of(Input)

    @cached_property
    def partial_inputs(self) -> Mapping[str, tuple[str, ...]]:
        """Inputs of which some elements do not exist, with the inputs of which one says which do.

        Laws read them, or costs: of those that an input reaches, none is to count elements that do not exist.
        """
        found: dict[str, dict[str, None]] = {}
        for record in self.records():
            several = self.masks.get(record.name, ())
            if isinstance(record, Sample):
                several = () if record.exists is None else (record.exists,)
            if several and {*self.inputs}.issuperset(several):
                plates = set().union(*(self.layout[mask] for mask in several))
                above = nx.ancestors(self.dag, record.name).intersection(self.inputs) - {*several}
                for name in above:
                    if plates <= {*self.layout[name]} and (
                        isinstance(record, Sample) or self._is_apart(name)
                    ):
                        found.setdefault(name, {}).update(dict.fromkeys(several))
        return {name: tuple(several) for name, several in found.items()}

    def _is_apart(self, name: str) -> bool:
        """Say whether all costs that a node reaches know of elements that do not exist."""
        return all(cost in self.masks for cost in nx.descendants(self.dag, name).intersection(self.costs))

    @cached_property
    def simulations(self) -> Mapping[str, Simulation]:
        """The simulators, by the node whose value they draw."""
        several = ((name, self[name]) for name in self.samples)
        return {n: r.simulation for n, r in several if isinstance(r, Sample) and r.simulation is not None}

    @cached_property
    def params(self) -> tuple[str, ...]:
        """Names of the parameter nodes, in the order of declaration."""
        return self._of(Param)
