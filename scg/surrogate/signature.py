"""Signatures: what a run of a program depends on besides values."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scg.nodes.ir import IR
from scg.surrogate.networks import walked


class Signature(NamedTuple):
    """The kinds of inputs by name, the type and device of the program's parameters, and modes of modules."""

    given: tuple[tuple[Any, ...], ...]
    held: tuple[torch.dtype, torch.device] | None
    modes: tuple[bool, ...]


def signature(program: nn.Module, ir: IR, inputs: Mapping[str, Tensor]) -> Signature:
    """Return the signature of a run of a program on these inputs."""
    given = [
        (name, value.shape, value.dtype, value.device) if isinstance(value, Tensor) else (name, type(value))
        for name, value in inputs.items()
    ]
    modes = [part.training for module in _switched(program, ir) for part in walked(module)]
    held = _held(program, ir)
    return Signature(tuple(given), None if held is None else (held.dtype, held.device), tuple(modes))


def kind(ir: IR, found: Signature) -> Signature:
    """Return a signature without the sizes of plates."""
    by_name = sorted(found.given, key=itemgetter(0))
    given = tuple((name, shape[len(ir.layout[name]) :], *others) for name, shape, *others in by_name)
    return found._replace(given=given)


def _switched(program: nn.Module, ir: IR) -> list[nn.Module]:
    """Return the modules of the graph and the networks of control variates, which training changes."""
    controls = program.get_submodule("controls")
    networks = [getattr(part, "net", None) for part in controls.children()]
    modules = [program._modules[name] for name in ir.store.modules]
    return [part for part in (*modules, *networks) if isinstance(part, nn.Module)]


def _held(program: nn.Module, ir: IR) -> Tensor | None:
    """Return a parameter that tells where a program is, and of what type."""
    for name, tensor in ir.store.tensors.items():
        if isinstance(tensor, nn.Parameter):
            return program._parameters[name]
    return next(program.parameters(), None)
