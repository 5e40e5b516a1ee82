"""Arithmetic: what the estimators of a program compute, as functions of what its lines give them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from scg.choosing.choice import Choice, views
from scg.errors import ScgError
from scg.export.parts import Parts, Reading, Steps, function_text, part_lines
from scg.export.scope import STEP as INDENT
from scg.export.scope import fitted
from scg.export.tape import Given, Ref, Source, refs
from scg.program.prepare import Prepared
from scg.program.recording import Recording
from scg.surrogate.lowering.emitter import Part
from scg.surrogate.lowering.lower import Lowered

STEP = re.compile(r"\.\w+|\[[^\]]*\]")
SITE, ESTIMATE = ("parameters", "noise", "value", "credit", "weight"), ("site", "parameters")
CLOSED = ("relaxed", "downstream")
FIELDS = (
    "parameters",
    "noise",
    "value",
    "credit",
    "weight",
    "unit",
    "share",
    "fresh",
    "standard",
    "terms",
    "redrawn",
)


@dataclass(eq=False)
class Arithmetic:
    """Writes what estimators compute; ``called`` has the functions of the lines that call them."""

    prepared: Prepared
    lowered: Lowered
    called: Mapping[str, str]
    controls: nn.ModuleDict
    record: Callable[[], Recording]
    read: dict[str, set[Steps]] = field(default_factory=dict)
    context: dict[str, list[Ref]] = field(default_factory=dict)

    @cached_property
    def _choices(self) -> dict[str, Choice]:
        """The choice of every view, by what its lines are called after."""
        facts, choices = self.prepared.facts, self.prepared.choices
        several = (view for name, choice in choices.items() for view in views(facts, name, choice))
        return {view.label: view.choice for view in several}

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield a function for each line, or a comment that says why there is none."""
        lines = {str(line.name): line for line in self.lowered.graph.nodes}
        several = [name for name in self.called if not self.lowered.parts[name].pieces]
        if not several:
            return
        try:
            found, why = self.record(), ""
            parts = Parts(found.tape)
        except Exception as error:  # noqa: BLE001 - reading code never fails
            found, why = None, _why(error)
        for name in reversed(several):  # what an estimate reads is what its site has to have
            part, line = self.lowered.parts[name], lines[name]
            arguments = _arguments(line, _defaults(part))
            shown = f"{self.called[name]}({', '.join(arguments)})"
            try:
                if found is None:
                    raise ScgError(why)
                yield name, self._text(parts, found.outside, name, line, arguments)
            except Exception as error:  # noqa: BLE001 - reading code never fails
                yield name, f"# {shown} is not written out: {_why(error)}"

    def _text(
        self, parts: Parts, outside: Mapping[str, Any], name: str, line: Any, arguments: list[str]
    ) -> str:
        part = self.lowered.parts[name]
        is_site = part.label == f"{part.owner}_site"
        wanted = self._site(parts, part.owner, line) if is_site else None
        reading = self._reading(parts, outside, part, arguments)
        lines, given, read = part_lines(parts, parts.index[part.label], reading, wanted)
        functions = [
            f"{key} = {arguments[0]}['{key}']" for key in CLOSED if _calls(lines, key) and not is_site
        ]
        if not is_site:
            self.read[part.owner] = {steps[1:] for steps in read}
        star = len(arguments) - len(line.kwargs)
        signature = [*arguments[:star], *(["*"] if line.kwargs else []), *arguments[star:]]
        body = [*functions, *lines, *_returned(given).split("\n")]
        return function_text(self.called[name], signature, self._said(part), body)

    def _site(self, parts: Parts, node: str, line: Any) -> dict[str, Any]:
        """Return what the site of a node has: what its estimate reads, and what no tensor is."""
        own = (part for part in self.lowered.parts.values() if part.owner == node and not part.pieces)
        label = next(part.label for part in own if part.label != f"{node}_site")
        wanted: dict[Any, Any] = {}
        for ref, given in parts.tape.uses[parts.index[label]].given.items():
            _, *steps = _place("", given)
            is_read = node not in self.read or tuple(steps) in self.read[node]
            if given.root == 0 and _key(steps[0]) in FIELDS and is_read:
                inside = wanted
                for step in steps[:-1]:
                    inside = inside.setdefault(_key(step), {})
                inside[_key(steps[-1])] = ref
        if self.context.get(node):
            wanted["context"] = dict(enumerate(self.context[node]))
        return {**wanted, **{key: key for key in (*CLOSED, "controls") if key in line.kwargs}}

    def _reading(
        self, parts: Parts, outside: Mapping[str, Any], part: Part, arguments: Sequence[str]
    ) -> Reading:
        node, is_site = part.owner, part.label == f"{part.owner}_site"
        first = self.lowered.parts.get(arguments[0])
        site = arguments[0] if first is not None and first.label == f"{node}_site" else ""
        is_value = part.label.endswith("_value")
        controls = ("controls",) if is_value else (site, "['controls']")
        where = "".join(controls)
        nets = [name for name, held in outside.items() if held is self._net(part)] if site else []

        def place(given: Given) -> Steps:
            if site and given.root == 0:
                return _place(site, given)
            root = arguments[given.root] if isinstance(given.root, int) else given.root
            return (root, *STEP.findall(given.place))

        def beside(ref: Ref) -> Steps:
            made = {r for call in parts.calls[parts.index[f"{node}_site"]] for r in refs(call.result)}
            if not site or ref not in made:
                raise ScgError("it reads what it is not given")
            several = self.context.setdefault(node, [])
            if ref not in several:
                several.append(ref)
            return (site, "['context']", f"[{several.index(ref)}]")

        def source(known: Source) -> Steps | None:
            if (site or is_value) and known.root == "controls":
                return (*controls, _attribute(known.text, part.key))
            if known.root in nets:
                return (*controls, ".net", known.text.removeprefix(known.root))
            return None

        closed = {f"{node}_{key}": key for key in CLOSED} if site else {}
        return Reading(
            arguments,
            place,
            beside,
            source,
            lambda key: f"if {where}.training:\n    {where}{_attribute(key, part.key)}",
            {**closed, **dict.fromkeys(nets, f"{where}.net")},
            {} if is_site else {**self._names(node, site), controls: "controls"},
        )

    def _names(self, node: str, site: str) -> dict[Steps, str]:
        """Return what the program calls that which a site has."""
        line = next((line for line in self.lowered.graph.nodes if line.name == site), None)
        if line is None:
            return {}
        parameters, noise, value, credit, _ = line.args
        several: dict[Steps, Any] = {
            ("['noise']",): noise,
            ("['value']",): value,
            ("['credit']",): credit,
            ("['standard']",): line.kwargs.get("standard"),
            ("['terms']",): line.kwargs.get("terms"),
            **{("['parameters']", f"['{key}']"): held for key, held in parameters.items()},
            **{("['fresh']", f"[{i}]"): held for i, held in enumerate(line.kwargs.get("fresh", ()))},
        }
        found = {(site, *steps): str(held.name) for steps, held in several.items() if held is not None}
        found.update({(site, f"['{key}']"): key for key in ("weight", "unit", "share")})
        return {**found, **{("parameters", f"['{key}']"): f"attached_{key}" for key in parameters}}

    def _net(self, part: Part) -> Any:
        held: Any = dict(self.controls.named_modules()).get(part.key or part.node)
        net = getattr(held, "net", None)
        return part.label if net is None else net

    def _said(self, part: Part) -> str:
        node, choice = part.owner, self._choices[part.owner.removesuffix(part.half)]
        name = choice.estimator.name
        if part.label == f"{node}_site":
            return f"Return what {name} is given of {node}: values without gradients, and their weight."
        if part.label == f"{node}_factor":
            return f"Return what multiplies the score of {node}: cost, less a baseline."
        if part.label == f"{node}_{name}_value":
            return f"Return the value of {node} that {name} makes of parameters and noise."
        if choice.asks.branches:
            return f"Return the outcomes of {node} and the probability of each."
        return f"Return what {name} adds to the surrogate for {node}: its backward is the estimate."


def _calls(lines: Sequence[str], function: str) -> bool:
    return any(re.search(rf"\b{function}\(", line) for line in lines)


def _place(site: str, given: Given) -> Steps:
    """Return the steps to what a site has, which is a dictionary in the text."""
    steps = STEP.findall(given.place.removeprefix(".provided").replace(".terms.values", ".terms"))
    return (site, f"['{steps[0][1:]}']", *steps[1:])


def _key(step: str) -> int | str:
    inside = step[1:-1]
    return int(inside) if inside.isdigit() else inside.strip("'\"")


def _attribute(text: str, node: str) -> str:
    """Return what reads a member of the controls of a node.

    >>> _attribute('controls["b.net.inputs.0.weight"]', "b")
    '.net.inputs[0].weight'
    """
    path = text.removeprefix('controls["').removesuffix('"]').removeprefix(f"{node}.").split(".")
    return "".join(f"[{step}]" if step.isdigit() else f".{step}" for step in path)


def _defaults(part: Part) -> tuple[str, ...]:
    if part.label == f"{part.owner}_site":
        return SITE
    return ("parameters", "noise", "standard") if part.label.endswith("_value") else ESTIMATE


def _arguments(line: Any, defaults: Sequence[str]) -> list[str]:
    """Return the names of what a line gives: those of values, and of what nests them."""
    found: list[str] = []
    for at, item in enumerate(line.args):
        name = getattr(item, "name", None) or (defaults[at] if at < len(defaults) else f"sizes_{at}")
        found.append(name if name not in found else defaults[at])
    return [*found, *line.kwargs]


def _returned(given: Any) -> str:
    """Return the statement that ends a function."""
    if not isinstance(given, dict):
        return f"return {_shown(given)}"
    return fitted("return {", [f"{key!r}: {_shown(item)}" for key, item in given.items()], "}", len(INDENT))


def _shown(given: Any) -> str:
    """Return what a function gives as text."""
    if isinstance(given, dict) and list(given) == [*range(len(given))]:
        given = tuple(given.values())
    if isinstance(given, dict):
        return "{" + ", ".join(f"{key!r}: {_shown(item)}" for key, item in given.items()) + "}"
    if isinstance(given, (tuple, list)):
        return f"({', '.join(map(_shown, given))}{',' if len(given) == 1 else ''})"
    return str(given)


def _why(error: Exception) -> str:
    """Return what was wrong, in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ScgError) else f"{type(error).__name__}: {text}"
