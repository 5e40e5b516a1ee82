"""Code: a program as Python text to the bottom: its lines, then each slice and what estimators compute."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from scg.evaluation.probing import undisturbed
from scg.export.parts import function_text
from scg.export.scope import STEP
from scg.nodes.ir import IR
from scg.program.arithmetic import Arithmetic
from scg.program.helpers import OUTPUT, helper_text
from scg.program.prepare import Prepared
from scg.program.recording import Recording, controls_kept, record
from scg.surrogate.lowering.emitter import Part
from scg.surrogate.runtime.randomness import Noise

INDEX = re.compile(r"\[\(((?:slice\(None, None, None\)|None|Ellipsis|, )+),?\)\]")
FREED = re.compile(r";  \w+( = \w+)* = None$")
DETACHED = "scg_detached"


def code(program: nn.Module, ir: IR, prepared: Prepared) -> str:
    """Return a program as text: ``forward``, and below it the functions that it calls.

    Where estimators compute something, a run on the examples is written down, which leaves no trace.
    """
    emitted = prepared.surrogate(program)
    only = {part.label for part in emitted.lowered.parts.values() if not part.pieces}

    def recorded() -> Recording:
        with (
            undisturbed({"": program}),
            controls_kept(program),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            draw = partial(_noise, program, prepared)
            return record(program, ir, prepared, draw, only=only)

    forward = cleaned(emitted.module.code)
    if not emitted.lowered.parts:
        return f"{forward}\n"
    writer = _Functions(program, prepared, forward)
    several = dict(writer.slices())
    controls: Any = program.get_submodule("controls")
    several.update(Arithmetic(prepared, emitted.lowered, writer.called, controls, recorded).texts())
    ordered = [several[line] for line in writer.called if line in several]
    return "\n\n".join([forward, *ordered, *writer.helpers(emitted.run.__globals__)]) + "\n"


def _noise(program: nn.Module, prepared: Prepared, seed: int, inputs: Mapping[str, Any]) -> Noise:
    """Draw what a run needs; the noise of a node is its value where a run draws that."""
    noise, ir = prepared.randomness.draw(inputs, seed, gradients=True), prepared.ir
    if all(name in noise for name in ir.samples):
        return noise
    with torch.no_grad():
        drawn = prepared.values(program).run(program, *(inputs[name] for name in ir.inputs), noise)["samples"]
    return Noise({**noise, **{name: drawn[name] for name in ir.samples if name not in noise}}, seed)


def cleaned(text: str) -> str:
    r"""Return the code of a torch.fx graph as a person would write it.

    >>> print(cleaned("\n\ndef forward(self, x):\n    y = x[(slice(None, None, None), None)];  x = None"))
    def forward(self, x):
        y = x[:, None]
    """
    lines = (INDEX.sub(_index, FREED.sub("", line.rstrip())) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def _index(found: re.Match[str]) -> str:
    """Write an index of slices and new dimensions as a person would."""
    inside = found.group(1).replace("slice(None, None, None)", ":").replace("Ellipsis", "...")
    return f"[{inside.rstrip(', ')}]"


@dataclass(eq=False)
class _Functions:
    """Writes the functions that a program is given as they were emitted."""

    program: nn.Module
    prepared: Prepared
    forward: str

    def __post_init__(self) -> None:
        self.lowered = self.prepared.surrogate(self.program).lowered
        self.parts: Mapping[str, Part] = self.lowered.parts
        self.called = {
            match[1]: match[2]
            for match in re.finditer(r"^    (\w+) = (scg_\w+)\(", self.forward, re.MULTILINE)
            if match[1] in self.parts
        }
        self.used: dict[str, Any] = {}
        self.needs_detached = False

    def slices(self) -> Iterator[tuple[str, str]]:
        """Yield each slice as a function that returns a function of points."""
        for line in self.called:
            if self.parts[line].pieces:
                yield line, self._slice(line, self.parts[line])

    def _slice(self, line: str, part: Part) -> str:
        (module, first), *_ = part.pieces
        head, *lines = cleaned(module.code).split("\n")
        inner = re.findall(r"\w+", head.partition("self")[2])
        points, captured = inner[: len(inner) - len(first)], inner[len(inner) - len(first) :]
        names = dict(zip(first, captured, strict=True))
        for node in part.captured:
            if node not in names:
                names[node] = _unused(node.name, {*names.values(), *points})
        self.used.update(type(module).forward.__globals__)
        if part.rest is not None:
            result = lines[-1].strip().removeprefix("return ")
            via = next(key for key in self.called if self.parts[key].label == part.rest)
            rest = ", ".join(names[node] for node in self.parts[via].captured)
            lines[-1] = f"{STEP}return {self.called[via]}({rest})({', '.join([result, *points[1:]])})"
        detached = [(names[node], self._detached(node, names[node])) for node in part.captured]
        detached = [(name, text) for name, text in detached if name != text]
        left, right = (", ".join(pair[side] for pair in detached) for side in (0, 1))
        body = [
            *([f"{left} = {right}"] if detached else []),
            "",
            f"def costs({', '.join(points)}):",
            *lines,
            "",
            "return costs",
        ]
        return function_text(self.called[line], [names[node] for node in part.captured], _said(part), body)

    def _detached(self, node: Any, name: str) -> str:
        """Return what a value that a slice captures is in it: tensors have no gradient there."""
        if node.op == "get_attr" and isinstance(operator.attrgetter(node.target)(self.program), nn.Module):
            return name
        if node.name == "noise" or node.target == "size":
            return name
        facts = self.prepared.facts
        held = facts.trace.values.get(self.lowered.nodes.get(node.name, node.name), torch.empty(0))
        if isinstance(held, Tensor):
            return f"{name}.detach()"
        self.needs_detached = True
        return f"{DETACHED}({name})"

    def helpers(self, names: Mapping[str, Any]) -> Iterator[str]:
        """Yield what the lines of the program and of slices call besides."""
        text = "\n".join(
            [self.forward, *(module.code for part in self.parts.values() for module, _ in part.pieces)]
        )
        for name, held in {**self.used, **names}.items():
            found = helper_text(name, held) if name.startswith("scg_") else None
            if found is not None and re.search(rf"\b{name}\(", text):
                yield found
        if self.needs_detached:
            yield OUTPUT.format(name=DETACHED)


def _said(part: Part) -> str:
    if part.label.endswith("_downstream"):
        return f"Return the function that gives the costs below {part.node} at other values of it."
    if part.label.endswith("_redrawn"):
        return f"Return the function that gives the costs below {part.node}, what is drawn there drawn anew."
    return (
        f"Return the function that gives the costs below {part.node} at relaxed values of it, by element and "
        "in total."
    )


def _unused(wanted: str, taken: set[str]) -> str:
    name, count = wanted, 1
    while name in taken:
        name, count = f"{wanted}_{count}", count + 1
    return name
