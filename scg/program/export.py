"""Exporting a program: the text of a module that needs torch alone, checked against the program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from scg.choosing.choice import View, views
from scg.errors import ExportError, ScgError
from scg.evaluation.probing import undisturbed
from scg.export.module import Drawn, Header, Leaf, module_text
from scg.export.simplify import simplified
from scg.export.sizes import expression
from scg.export.tape import Tape
from scg.export.titles import Title
from scg.nodes.ir import IR
from scg.nodes.records import Cost, identity
from scg.nodes.trees import needs_gradient, placed_leaves
from scg.program.prepare import Prepared
from scg.program.recording import Recording, controls_kept, faults_of, single

Run = Callable[..., Any]


def written(program: nn.Module, ir: IR, prepared: Prepared, found: Recording, run: Run) -> str:
    """Return a recorded program as a module, once its loss and gradients are those of the program."""
    faults_of(found.tape)
    tape, titles, header = (
        simplified(_renamed(ir, found.tape)),
        _titles(ir, prepared),
        _header(program, ir, prepared, found),
    )
    text = module_text(tape, titles, header)
    given = arguments(program, found, text)
    for inputs, noise in found.runs:
        if not _agrees(text, program, given, inputs, noise, run):
            raise ExportError(
                "the program cannot be exported: what was written gives other gradients than the program, "
                "as where a function keeps state, or a constant is of another type than what it meets"
            )
    several = [
        shown
        for plate, shown in found.free.items()
        if not _holds_for_one(text, program, given, single(ir, found, plate), run)
    ]
    return module_text(tape, titles, replace(header, several=frozenset(several))) if several else text


def arguments(program: nn.Module, found: Recording, text: str) -> dict[str, Any]:
    """Return what the function of a module takes besides inputs and noise."""
    head = text[text.index("\ndef loss(") :].partition("->")[0]
    given = {
        name: value for name, value in found.outside.items() if f" {name}: " in head or f"({name}: " in head
    }
    return {**given, "controls": controls(program)} if "controls: " in head else given


def controls(program: nn.Module) -> dict[str, Tensor]:
    """Return what the estimators of a program learn and remember, by name; what nodes share, under each."""
    held = program.get_submodule("controls")
    parameters = dict(held.named_parameters(remove_duplicate=False))
    return {**parameters, **dict(held.named_buffers(remove_duplicate=False))}


def _titles(ir: IR, prepared: Prepared) -> dict[str, Title]:
    found: dict[str, Title] = {}
    several = [
        view for name, choice in prepared.choices.items() for view in views(prepared.facts, name, choice)
    ]
    for view, half in ((each, half) for each in several for half in _halves(each)):
        how, label = view.choice.estimator.name, f"{view.label}{half}"
        found[f"{label}_{how}"] = Title(
            f"{how.replace('-', '_')}_of_{label}",
            f"Return what {how} adds to the surrogate for {label}: its backward is the estimate.",
        )
        found[f"{label}_factor"] = Title(
            f"factor_of_{label}", f"Return what multiplies the score of {label}: cost, less a baseline."
        )
        found[f"{label}_relaxed"] = Title(
            f"relaxed_costs_of_{label}",
            f"Return the costs below {label} at relaxed values of it, by element and in total.",
            is_general=True,
        )
        found[f"{label}_downstream"] = Title(
            f"costs_of_{label}", f"Return the costs below {label} at other values of it.", is_general=True
        )
        found[f"{label}_redrawn"] = Title(
            f"redrawn_costs_of_{label}",
            f"Return the costs below {label}, all that is drawn there drawn anew.",
            is_general=True,
        )
    return found


def _halves(view: View) -> tuple[str, ...]:
    """Return what ends the names of a node's lines: those of a block and of the rest, if it trains on one."""
    return ("",) if view.choice.asks.block is None else ("_block", "_rest")


def _renamed(ir: IR, tape: Tape) -> Tape:
    """Return a tape in which what is a cost is called so, where it has no name but a number."""
    costs: dict[str, str] = {}
    for name in ir.costs:
        record = ir[name]
        if isinstance(record, Cost) and record.fn.call is identity and not _is_named(record.parents[0]):
            costs.setdefault(record.parents[0], name)

    def better(name: str) -> str:
        for before, cost in costs.items():
            if name == before or name.startswith(f"{before}_"):
                return cost + name[len(before) :]
        return name

    return replace(tape, names={key: better(name) for key, name in tape.names.items()})


def _is_named(node: str) -> bool:
    """Say whether a node has a name, and not a number that tells it from others."""
    return not node.rpartition("_")[2].isdigit()


def _learned(program: nn.Module) -> str:
    return "; ``controls`` are what its estimators learn and remember" if controls(program) else ""


def _header(program: nn.Module, ir: IR, prepared: Prepared, found: Recording) -> Header:
    inputs = found.runs[0][0]
    leaves = [
        Leaf(
            name,
            not needs_gradient(inputs[name]),
            isinstance(inputs[name], Tensor),
            is_input=True,
        )
        for name in ir.inputs
    ]
    for name, held in found.outside.items():
        is_tensor = isinstance(held, Tensor)
        parameters = list(held.parameters()) if isinstance(held, nn.Module) else [held] if is_tensor else []
        is_frozen = bool(parameters) and not any(p.requires_grad for p in parameters)
        leaves.append(Leaf(name, is_frozen, is_tensor))
    return Header(
        f"The expected {' + '.join(ir.costs)}, estimated in torch alone{_learned(program)}.",
        leaves,
        {shown: _read(ir, plate, inputs) for plate, shown in found.free.items()},
        _noise(ir, prepared, found),
        frozenset(filter(_is_named, ir)),
    )


def _read(ir: IR, plate: str, inputs: Mapping[str, Any]) -> str:
    """Return what reads the size of a plate."""
    several = [name for name in ir.inputs if plate in ir.layout[name]]
    name = next((name for name in several if isinstance(inputs[name], Tensor)), several[0])
    places = (place for place, leaf in placed_leaves(name, inputs[name]) if isinstance(leaf, Tensor))
    return f"{next(places)}.shape[{ir.layout[name].index(plate)}]"


def _noise(ir: IR, prepared: Prepared, found: Recording) -> list[Drawn]:
    """Return the noise of a run; none where the noise of a node is its value."""
    layouts = [prepared.randomness.layouts(inputs, gradients=True) for inputs, _ in found.runs]
    several = [{name: spec for spec, names in one.groups for name in names} for one in layouts]
    if any(name not in several[0] for name in ir.samples):
        return []
    drawn = []
    for name in sorted(several[0], key=lambda name: (ir.samples.index(name.partition(".")[0]), name)):
        shapes = zip(*(one[name].shape for one in several), strict=True)
        sizes = [values[0] if len(set(values)) == 1 else expression(values, found.sizes) for values in shapes]
        spec = several[0][name]
        drawn.append(Drawn(name, spec.kind, tuple(size for size in sizes if size is not None), spec.dtype))
    return drawn


def _holds_for_one(
    text: str, program: nn.Module, given: Mapping[str, Any], inputs: Mapping[str, Any], run: Run
) -> bool:
    """Say whether a module is right where a plate has one element, as one that leaves one out is not."""
    try:
        noise = run.draw_noise(0, **inputs)  # type: ignore[attr-defined]
        return _agrees(text, program, given, inputs, noise, run)
    except ScgError:
        return False


def _agrees(
    text: str,
    program: nn.Module,
    given: Mapping[str, Any],
    inputs: Mapping[str, Any],
    noise: Mapping[str, Tensor],
    run: Run,
) -> bool:
    """Hold the loss and the gradients of a module against those of the program."""
    space: dict[str, Any] = {"__name__": "exported"}
    exec(compile(text, "<exported>", "exec", dont_inherit=True), space)
    trained = [parameter for parameter in program.parameters() if parameter.requires_grad]
    shown = {**inputs, **given, **({"controls": dict(given["controls"])} if "controls" in given else {})}
    names = space["loss"].__code__
    taken = names.co_varnames[: names.co_argcount + names.co_kwonlyargcount]
    with controls_kept(program):
        with undisturbed({"": program}), torch.enable_grad():
            wanted = _gradients(run(noise=noise, **inputs).loss, trained)
        with undisturbed({"": program}), torch.enable_grad():
            shown["noise"] = noise
            try:
                got = _gradients(space["loss"](**{key: shown[key] for key in taken}), trained)
            except Exception as error:
                raise ExportError(
                    f"the program cannot be exported: what was written raises {type(error).__name__}: "
                    f"{error}. A constant of another type than what it meets has to be given that type"
                ) from error
    whole = max(map(_size, wanted))
    return all(_is_close(one, other, whole) for one, other in zip(wanted, got, strict=True))


def _is_close(one: Tensor, other: Tensor, whole: float) -> bool:
    """Say whether tensors are equal up to rounding, of their own size or of the ``whole`` result."""
    eps = torch.finfo(one.dtype).eps
    tolerance = 1e-9 if one.dtype == torch.float64 else max(1e-3, 10 * eps)
    nearly = tolerance * _size(one) + 100 * eps * whole
    return one.dtype == other.dtype and torch.allclose(one, other, rtol=0.0, atol=nearly, equal_nan=True)


def _size(tensor: Tensor) -> float:
    """Return the largest number in a tensor that is finite."""
    finite = tensor[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _gradients(loss: Tensor, trained: list[nn.Parameter]) -> list[Tensor]:
    if not loss.requires_grad:
        return [loss.detach()]
    found = torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True)
    return [loss.detach(), *found]
