"""Check a graph: every probe, on examples or on given inputs, and all faults together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from torch import Tensor

from scg.analysis.facts import checked, gather
from scg.errors import GraphError
from scg.nodes.ir import IR
from scg.nodes.trees import placed_leaves


def check(ir: IR, inputs: Mapping[str, Any]) -> None:
    """Raise one error that lists every fault of the graph; ``inputs`` fill in for missing examples."""
    checked(gather(ir, accept(ir, {**ir.store.examples, **inputs})))


def accept(ir: IR, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a run, or raise for those that are missing, unknown or wrongly shaped."""
    faults = [
        f"unknown input '{name}'; the inputs are {', '.join(ir.inputs) or 'none'}{_meant(ir, name, inputs)}"
        for name in unused(ir, inputs)
    ]
    for name in ir.inputs:
        if name not in inputs:
            faults.append(f"input '{name}' is missing: pass {name}=tensor, or declare it with example=")
        else:
            faults += _faults(ir, name, inputs[name])
    if faults:
        raise GraphError("\n".join(faults))
    return dict(inputs)


def _meant(ir: IR, name: str, inputs: Mapping[str, Any]) -> str:
    """Say which of the missing inputs a name is near to, if it is to one."""
    missing = {other.lower(): other for other in ir.inputs if other not in inputs}
    near = get_close_matches(name.lower(), missing, 1)
    return f"; did you mean '{missing[near[0]]}'?" if near else ""


def unused(ir: IR, inputs: Mapping[str, Any]) -> list[str]:
    """Return the keys that no input of the graph has."""
    return [name for name in inputs if name not in ir.inputs]


def _faults(ir: IR, name: str, value: Any) -> list[str]:
    """Say what is wrong with an input: a tensor, or a container of tensors like its example."""
    if isinstance(value, Tensor):
        return _shape_fault(ir, name, value)
    given = dict(placed_leaves(name, value))
    if list(given) == [name]:
        return [f"input '{name}' is a {type(value).__name__}: pass a tensor"]
    faults = [
        f"input '{name}': {path} is a {type(leaf).__name__}: pass a tensor"
        for path, leaf in given.items()
        if not isinstance(leaf, Tensor)
    ]
    example = ir.store.examples.get(name)
    if example is None:
        return faults
    wanted = dict(placed_leaves(name, example))
    faults += [f"input '{name}' lacks {path}, which its example has" for path in wanted if path not in given]
    faults += [f"input '{name}' has {path}, which its example lacks" for path in given if path not in wanted]
    alike = [path for path, leaf in given.items() if path in wanted and isinstance(leaf, Tensor)]
    return faults + [
        fault for path in alike for fault in _misfit(ir.layout[name], path, given[path], wanted[path])
    ]


def _shape_fault(ir: IR, name: str, value: Tensor) -> list[str]:
    example = ir.store.examples.get(name)
    if example is None:
        return []
    if not isinstance(example, Tensor):
        return [f"input '{name}' is a tensor, but its example is a {type(example).__name__}"]
    return _misfit(ir.layout[name], name, value, example)


def _misfit(plates: Sequence[str], path: str, value: Tensor, example: Tensor) -> list[str]:
    event = example.shape[len(plates) :]
    if value.dim() == example.dim() and value.shape[len(plates) :] == event:
        return []
    wanted = ", ".join([*plates, *map(str, event)])
    return [f"input '{path}' has shape {tuple(value.shape)}, but its example says [{wanted}]"]
