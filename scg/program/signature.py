"""Signatures: what a run of a program depends on besides values."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scg.choosing.networks import walked
from scg.nodes.ir import IR
from scg.nodes.trees import placed_leaves


class Signature(NamedTuple):
    """The kinds of inputs by name, the type and device of the program's parameters, and modes of modules."""

    given: tuple[tuple[Any, ...], ...]
    held: tuple[torch.dtype, torch.device] | None
    modes: tuple[bool, ...]


def signature(program: nn.Module, ir: IR, inputs: Mapping[str, Any]) -> Signature:
    """Return the signature of a run of a program on these inputs."""
    given: list[tuple[Any, ...]] = []
    for name, value in inputs.items():
        if isinstance(value, Tensor):
            given.append((name, value.shape, value.dtype, value.device))
        else:
            given += _nested(name, value)
    modes = [part.training for module in _switched(program, ir) for part in walked(module)]
    held = _held(program, ir)
    return Signature(tuple(given), None if held is None else (held.dtype, held.device), tuple(modes))


def _nested(name: str, value: Any) -> list[tuple[Any, ...]]:
    """Return the kinds of the tensors in an input that is a container, each with its place."""
    found = [(path, leaf) for path, leaf in placed_leaves(name, value) if isinstance(leaf, Tensor)]
    if not found:
        return [(name, type(value))]
    return [(name, leaf.shape, leaf.dtype, leaf.device, path) for path, leaf in found]


def kind(ir: IR, found: Signature) -> Signature:
    """Return a signature without the sizes of plates."""
    by_name = sorted(found.given, key=itemgetter(0, slice(4, None)))
    given = tuple((name, shape[len(ir.layout[name]) :], *others) for name, shape, *others in by_name)
    return found._replace(given=given)


def _switched(program: nn.Module, ir: IR) -> list[nn.Module]:
    """Return the modules of the graph and the networks of control variates, which training changes."""
    controls: Any = program._modules["controls"]  # by what modules hold: this is done in every run
    parts = [
        own
        for part in controls._modules.values()
        for own in (part._modules.values() if type(part) is nn.ModuleDict else (part,))
    ]
    found = [held(program, name) for name in ir.store.modules] + [own._modules.get("net") for own in parts]
    return [module for module in found if isinstance(module, nn.Module)]


def held(program: nn.Module, name: str) -> Any:
    """Return what a program holds under a name, which has dots where functions captured it."""
    *outer, last = name.split(".")
    for part in outer:
        program = program._modules[part]  # type: ignore[assignment]
    tables: tuple[Mapping[str, Any], ...] = (program._modules, program._parameters, program._buffers)
    return next(table[last] for table in tables if last in table)


def _held(program: nn.Module, ir: IR) -> Tensor | None:
    """Return a parameter that tells where a program is, and of what type."""
    for name, tensor in ir.store.tensors.items():
        if isinstance(tensor, nn.Parameter):
            found: Tensor = held(program, name)
            return found
    return next(program.parameters(), None)
