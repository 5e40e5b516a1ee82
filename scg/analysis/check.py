"""Check a graph: every probe, on examples or on given inputs, and all faults together."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from scg.analysis.facts import checked, gather
from scg.errors import GraphError
from scg.nodes.ir import IR


def check(ir: IR, inputs: Mapping[str, Tensor]) -> None:
    """Raise one error that lists every fault of the graph; ``inputs`` fill in for missing examples."""
    checked(gather(ir, accept(ir, {**ir.store.examples, **inputs})))


def accept(ir: IR, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the inputs of a run, or raise for those that are missing, unknown or wrongly shaped."""
    faults = [
        f"unknown input '{name}'; the inputs are {', '.join(ir.inputs) or 'none'}"
        for name in inputs
        if name not in ir.inputs
    ]
    for name in ir.inputs:
        if name not in inputs:
            faults.append(f"input '{name}' is missing: pass {name}=tensor, or declare it with example=")
        elif not isinstance(inputs[name], Tensor):
            faults.append(f"input '{name}' is a {type(inputs[name]).__name__}: pass a tensor")
        else:
            faults += _shape_fault(ir, name, inputs[name])
    if faults:
        raise GraphError("\n".join(faults))
    return dict(inputs)


def _shape_fault(ir: IR, name: str, value: Tensor) -> list[str]:
    plates, example = ir.layout[name], ir.store.examples.get(name)
    if example is None:
        return []
    event = example.shape[len(plates) :]
    if value.dim() == example.dim() and value.shape[len(plates) :] == event:
        return []
    wanted = ", ".join([*plates, *map(str, event)])
    return [f"input '{name}' has shape {tuple(value.shape)}, but its example says [{wanted}]"]
