"""Recording: runs of a program on plates of several sizes, written down as one tape of calls of torch."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, fx, nn

from scg.errors import ExportError, ScgError
from scg.evaluation.probing import undisturbed
from scg.evaluation.sizes import plate_sizes
from scg.export.recorder import Recorder
from scg.export.sizes import aligned
from scg.export.tape import Tape
from scg.laws import exporting
from scg.nodes import trees
from scg.nodes.ir import IR
from scg.nodes.records import Constant
from scg.program.outside import Names
from scg.program.prepare import Prepared
from scg.surrogate.lowering.lower import Lowered, lower

SMALL = 8
"""The most numbers of a constant that is written out where it is read."""
Draw = Callable[[int, Mapping[str, Any]], Mapping[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Recording:
    """What was recorded: the tape, the inputs and noise of each run, and what the user gave by name.

    ``free`` has the names of sizes that may be others in the next run, and ``sizes`` those of each run.
    """

    tape: Tape
    runs: Sequence[tuple[Mapping[str, Any], Mapping[str, Tensor]]]
    outside: Mapping[str, Any]
    free: Mapping[str, str]
    sizes: Sequence[Mapping[str, int]]


def record(
    program: nn.Module, ir: IR, prepared: Prepared, draw: Draw, *, only: Container[str] | None = None
) -> Recording:
    """Record runs on the example inputs and on plates of other sizes, or of the same if these fail.

    With ``only``, these parts alone are written down, for gradients of all inputs.
    """
    free = _free(ir)
    if free:
        try:
            return _recorded(program, ir, prepared, draw, free, only)
        except ScgError:
            pass
    return _recorded(program, ir, prepared, draw, {}, only)


def _free(ir: IR) -> dict[str, str]:
    """Return the plates whose sizes only inputs tell, each with the name that its size has."""
    held = {plate for name in ir.params for plate in ir.layout[name]}
    several = [name for name, plate in ir.plates.items() if plate.size is None and name not in held]
    given = {plate for name in ir.inputs for plate in ir.layout[name]}
    return {name: f"{name}_size" if name in ir else name for name in several if name in given}


def _recorded(
    program: nn.Module,
    ir: IR,
    prepared: Prepared,
    draw: Draw,
    free: Mapping[str, str],
    only: Container[str] | None,
) -> Recording:
    several = [_resized(ir, prepared.inputs, free, run) for run in range(3)]
    several = [trees.tree_map_only(Tensor, _attached, one) for one in several] if only else several
    runs = [(inputs, draw(run, inputs)) for run, inputs in enumerate(several)]
    names = Names(ir)
    recorder = Recorder(names, only=only)
    lowered, run = _watched(program, prepared, recorder)
    tapes = [_tape(program, ir, prepared, recorder, names, lowered, run, *given) for given in runs]
    found = [plate_sizes(ir, inputs) for inputs in several]
    sizes = [{shown: size[plate] for plate, shown in free.items()} for size in found]
    return Recording(aligned(tapes, sizes), runs, dict(names.given), free, sizes)


def _resized(ir: IR, inputs: Mapping[str, Any], free: Mapping[str, str], run: int) -> dict[str, Any]:
    """Return inputs whose free plates have other sizes in each run, never 1, their elements repeated."""
    order = {plate: index for index, plate in enumerate(free)}

    def wider(name: str, tensor: Tensor) -> Tensor:
        for dim, plate in enumerate(ir.layout[name]):
            if plate in order and (run or tensor.shape[dim] == 1):
                size = max(tensor.shape[dim], 2) + run * (order[plate] + 1) + max(run - 1, 0)
                places = torch.arange(size, device=tensor.device) % tensor.shape[dim]
                tensor = tensor.index_select(dim, places)
        return tensor

    return {name: trees.tree_map_only(Tensor, partial(wider, name), value) for name, value in inputs.items()}


def _attached(tensor: Tensor) -> Tensor:
    """Return an input that requires a gradient, as one of a later run may."""
    return tensor.detach().requires_grad_() if tensor.is_floating_point() else tensor


def single(ir: IR, found: Recording, alone: str) -> dict[str, Any]:
    """Return inputs of one element along a plate, and as they were along all others."""

    def first(name: str, tensor: Tensor) -> Tensor:
        for dim, plate in enumerate(ir.layout[name]):
            tensor = tensor.narrow(dim, 0, 1) if plate == alone else tensor
        return tensor

    return {n: trees.tree_map_only(Tensor, partial(first, n), value) for n, value in found.runs[0][0].items()}


def _watched(program: nn.Module, prepared: Prepared, watch: Recorder) -> tuple[Lowered, Callable[..., Any]]:
    lowered = lower(
        prepared.facts,
        prepared.choices,
        samples=prepared.samples,
        keep=(),
        controls=prepared.controls,
        constants=dict(program.get_submodule("constants").named_buffers()),
        looped=prepared.looped,
        order=prepared.order,
        watch=watch,
    )
    run: Callable[..., Any] = type(fx.GraphModule(program, lowered.graph)).forward
    return lowered, run


def _tape(
    program: nn.Module,
    ir: IR,
    prepared: Prepared,
    recorder: Recorder,
    names: Names,
    lowered: Lowered,
    run: Callable[..., Any],
    inputs: Mapping[str, Any],
    noise: Mapping[str, Tensor],
) -> Tape:
    recorder.start()
    for name, value in inputs.items():
        recorder.declare(value, name, name, detached=not trees.needs_gradient(value))
    for name, tensor in noise.items():
        recorder.declare(tensor, f'noise["{name}"]', "noise", detached=True)
    shadows: dict[str, nn.Module] = {}
    held = _held(program, ir, recorder, names, lowered, shadows)
    with undisturbed({"": program}), torch.enable_grad(), exporting(), recorder:
        results = scg_run(run, held, [inputs[name] for name in ir.inputs], noise)
        _keep(program, recorder, shadows)
    return recorder.stop(results["loss"])


def scg_run(run: Callable[..., Any], held: Any, inputs: Sequence[Any], noise: Any) -> Any:
    """Run a program on what stands for what it holds; names are looked for in the frames above this one."""
    return run(held, *inputs, noise)


def _held(
    program: nn.Module,
    ir: IR,
    recorder: Recorder,
    names: Names,
    lowered: Lowered,
    shadows: dict[str, nn.Module],
) -> Any:
    """Return what stands for the program: tensors that are declared, and modules that are one call each."""
    root = SimpleNamespace()
    for target in _targets(lowered):
        value: Any = operator.attrgetter(target)(program)
        if target.startswith("controls."):
            node = target.removeprefix("controls.")
            value = shadows[node] = _shadow(value, node, recorder, names)
        elif isinstance(value, nn.Module):
            value = recorder.function(None, value)
        elif not target.startswith("constants.") and not _is_small(ir, target, value):
            name = names.argument(target, value)
            recorder.declare(value, name, name, detached=not value.requires_grad)
        _put(root, target, value)
    return root


def _targets(lowered: Lowered) -> list[str]:
    kinds = ("get_attr", "call_module")
    return list(dict.fromkeys(str(line.target) for line in lowered.graph.nodes if line.op in kinds))


def _is_small(ir: IR, name: str, value: Tensor) -> bool:
    return name in ir and isinstance(ir[name], Constant) and value.numel() <= SMALL


def _put(root: SimpleNamespace, target: str, value: Any) -> None:
    *path, last = target.split(".")
    for step in path:
        if not hasattr(root, step):
            setattr(root, step, SimpleNamespace())
        root = getattr(root, step)
    setattr(root, last, value)


def _shadow(module: nn.Module, node: str, recorder: Recorder, names: Names, place: str = "") -> nn.Module:
    """Return a copy of controls on the same tensors: what they remember is kept by the copy alone.

    A network of the user is one call.
    """
    made = copy.copy(module)
    made.__dict__.update(_parameters=dict(module._parameters), _buffers=dict(module._buffers))
    made.__dict__["training"] = True
    made._modules = {
        key: None if child is None else _shadow(child, node, recorder, names, f"{place}{key}.")
        for key, child in module._modules.items()
    }
    net = getattr(module, "net", None) if type(module).__module__.startswith("scg.") else None
    if net is not None and not type(net).__module__.startswith("scg."):
        made._modules = dict(module._modules)
        name = names.network(node, net)
        made.__dict__["net"] = recorder.function(None, net)
        for key, parameter in net.named_parameters() if isinstance(net, nn.Module) else ():
            recorder.declare(parameter, f'{name}.get_parameter("{key}")', name)
    for key, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is not None:
            recorder.declare(tensor, f'controls["{node}.{place}{key}"]', "controls")
    return made


def _keep(program: nn.Module, recorder: Recorder, shadows: Mapping[str, nn.Module]) -> None:
    """Record what controls remember from this run for the next."""
    for node, shadow in shadows.items():
        before = dict(program.get_submodule(f"controls.{node}").named_buffers())
        for key, tensor in shadow.named_buffers():
            if tensor is not before.get(key):
                recorder.keep(f"{node}.{key}", tensor)


@contextmanager
def controls_kept(program: nn.Module) -> Iterator[None]:
    """Leave what estimators remember as it was."""
    several = [(part, dict(part._buffers)) for part in program.get_submodule("controls").modules()]
    try:
        yield
    finally:
        for part, buffers in several:
            part._buffers.update(buffers)


def faults_of(tape: Tape) -> None:
    """Raise for what a tape cannot be written for."""
    if tape.faults:
        raise ExportError("the program cannot be exported: " + "; ".join(tape.faults))
