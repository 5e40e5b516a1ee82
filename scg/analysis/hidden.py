"""Hidden: draws inside functions and gradients lost in them, on the way from what is learned to a cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from scg.analysis.blame import Judge, doubtful, losing
from scg.analysis.learned import HELD, Learned, learned
from scg.analysis.recorded import Recording
from scg.analysis.starved import parameter_names, starved
from scg.analysis.trace import Trace
from scg.nodes.ir import IR
from scg.nodes.records import Cost, Record
from scg.probes.tape import Finding, Kind

MANY = 4


@dataclass(frozen=True, eq=False)
class Hidden:
    """What was found, in words; ``nodes`` are those in question.

    The inputs that are ``watched`` flow into what would be an error or a warning if they required a gradient.
    """

    faults: tuple[str, ...]
    warnings: tuple[str, ...]
    assumptions: tuple[str, ...]
    nodes: frozenset[str]
    watched: frozenset[str]


@dataclass(frozen=True, eq=False)
class _Report:
    """What is found while nodes are gone through; ``relevant`` are the bits of what is learned."""

    found: Learned
    judge: Judge
    relevant: int
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)
    nodes: set[str] = field(default_factory=set)
    watched: set[str] = field(default_factory=set)


def hidden(ir: IR, trace: Trace, contrast: Callable[[], Trace], attached: Iterable[str] = ()) -> Hidden:
    """Record what functions do on example values, and judge it there and in a contrasting world.

    ``attached`` names inputs that require a gradient. Generators and buffers are the caller's to keep.
    """
    found = learned(ir, trace)
    relevant = HELD | sum(2 << ir.inputs.index(name) for name in attached)
    report = _Report(found, Judge(found, contrast, relevant), relevant)
    for name in found.drawing:
        _operation(report, ir[name])
    for name, call in found.recordings.items():
        if isinstance(call, Recording):
            _node(report, ir[name], call)
        elif any(found.parents(ir[name])[0]):
            report.assumptions.append(f"nothing is hidden in '{name}', which could not be recorded: {call}")
    _starved(report)
    return Hidden(
        tuple(report.faults),
        tuple(report.warnings),
        tuple(report.assumptions),
        frozenset(report.nodes),
        frozenset(report.watched),
    )


def _operation(report: _Report, record: Record) -> None:
    """Report an operation of a library at which noise meets what is learned, and which steps."""
    bits = report.found.parents(record)[0]
    if not any(bit & report.relevant for bit in bits):
        report.watched.update(name for bit in bits for name in _inputs(report.found.ir, bit))
    else:
        parents = [name for name in record.parents if any(report.found.bits[name])]
        _fault(report, record, ["it"], parents)


def _node(report: _Report, record: Record, call: Recording) -> None:
    """Report what is hidden in the function of one node."""
    used = report.found.used(record.name)
    leaves = [call.flow.leaves[index] for index in sorted(used)]
    escaped = [finding for finding in call.flow.escaped if finding.kind is not Kind.NOISE]
    read = [finding for finding in call.flow.escaped if finding.kind is Kind.NOISE]
    noises = list(dict.fromkeys([*(noise for leaf in leaves for noise in leaf.noises), *read]))
    on_leaves = list(dict.fromkeys(finding for leaf in leaves for finding in leaf.findings))
    if not call.is_complete:
        report.assumptions.append(f"nothing is hidden on more ways than were tried through '{record.name}'")
    bits = {finding: _bits(report, record, call, finding) for finding in (*on_leaves, *escaped)}
    for touched in bits.values():
        if touched and not touched & report.relevant:
            report.watched.update(_inputs(report.found.ir, touched))
    relevant = {finding: touched for finding, touched in bits.items() if touched & report.relevant}
    blamed: list[Finding] = []
    if relevant and getattr(record, "differentiable", None) is True:
        listed = _listed(map(str, relevant))
        report.assumptions.append(f"the gradient through '{record.name}' is meant as it is: {listed} in it")
    elif relevant:
        judge = partial(report.judge, record, call, used)
        escapes = frozenset(relevant) - frozenset(on_leaves)
        blamed = losing(relevant, escapes, call.untaken, judge)
        doubts = [] if blamed else doubtful(relevant, judge)
        if doubts:
            report.assumptions.append(
                f"'{record.name}' is continuous at {_listed(map(str, doubts))}, which no probe saw switch"
            )
        _tell(report, record, call, blamed)
    _noise(report, record, noises, blamed, call.flow.generators)


def _bits(report: _Report, record: Record, call: Recording, finding: Finding) -> int:
    union = 0
    for source in call.flow.touched.get(finding, ()):
        union |= report.found.of_source(record, call, source)
    return union


def _inputs(ir: IR, bits: int) -> list[str]:
    return [name for index, name in enumerate(ir.inputs) if bits & (2 << index)]


def _tell(report: _Report, record: Record, call: Recording, blamed: Sequence[Finding]) -> None:
    """Add the error or the warning of a node."""
    if not blamed:
        return
    draws = [finding for finding in blamed if finding.kind is Kind.DRAW]
    shown = list(dict.fromkeys(map(str, draws or blamed)))
    sources = list(
        dict.fromkeys(
            name
            for finding in draws or blamed
            for source in sorted(call.flow.touched[finding])
            if report.found.of_source(record, call, source) & report.relevant
            for name in [_source_name(report, record, call, source)]
        )
    )
    if draws:
        _fault(report, record, shown, sources)
    else:
        _warning(report, record, shown, sources, call.flow.generators)


def _fault(report: _Report, record: Record, shown: Sequence[str], sources: Sequence[str]) -> None:
    report.nodes.add(record.name)
    report.faults.append(
        f"node '{record.name}' ({record.where}) draws inside its function, {_listed(shown)}, from a law that "
        f"depends on {_listed(sources)}, and the draw leads to a cost, which would give a wrong gradient. "
        "Declare the draw as a node, g.sample(name, distribution, ...), or the node that draws with "
        "differentiable=False where no gradient is wanted"
    )


def _warning(
    report: _Report, record: Record, shown: Sequence[str], sources: Sequence[str], generators: Sequence[str]
) -> None:
    report.nodes.add(record.name)
    drawn = "".join(f"; it draws from the generator of {name}, too" for name in generators)
    report.warnings.append(
        f"node '{record.name}' ({record.where}) loses the gradient of {_listed(sources)} on the way to a "
        f"cost, at {_listed(shown)}{drawn}. If no gradient is wanted there, declare '{record.name}' with "
        "differentiable=False; if the gradient is meant as it is, with differentiable=True"
    )


def _noise(
    report: _Report,
    record: Record,
    noises: Sequence[Finding],
    blamed: Sequence[Finding],
    generators: Sequence[str],
) -> None:
    """List the noise of a node among what is assumed."""
    places = {(finding.operation, finding.where) for finding in blamed}
    own = [n for n in noises if (n.operation, n.where) not in places and n.operation != "a parent"]
    for claim, kind in (("law depends on nothing learned", False), ("law is reparameterised by torch", True)):
        if shown := [str(noise) for noise in own if noise.mild is kind]:
            report.assumptions.append(f"noise whose {claim}: {_listed(shown)} at '{record.name}'")
    for name in () if blamed else generators:
        report.assumptions.append(
            f"noise of the generator of {name} at '{record.name}' depends on nothing learned"
        )


def _starved(report: _Report) -> None:
    """Warn of parameters that no gradient reaches, unless the node that ends it was told already."""
    ir = report.found.ir
    for group in starved(report.found):
        if group.end in report.nodes:
            continue
        end = ir[group.end]
        black = getattr(end, "differentiable", None) is False
        what = "a black box, differentiable=False" if black else "which has no derivative"
        kind = "cost" if isinstance(end, Cost) else "node"
        report.warnings.append(
            f"no gradient ever reaches {_listed(map(repr, group.names))}, which leads to costs only through "
            f"{kind} '{group.end}' ({end.where}), {what}. Sample what depends on it, g.sample(name, "
            "distribution, ...), or call requires_grad_(False) on it if that is meant"
        )


def _source_name(report: _Report, record: Record, call: Recording, source: int) -> str:
    """Return the name of a source: of a parent, of a parameter that the graph holds, or of neither."""
    if source >= len(call.given):
        tensor = call.flow.sources[source]
        known = parameter_names(report.found.ir).get(id(tensor))
        return "a captured tensor" if known is None else f"'{known}'"
    before = 0
    for name in record.arguments.names:
        before += len(report.found.bits[name])
        if call.given[source] < before:
            return f"'{name}'"
    return "a parent"


def _listed(names: Iterable[str]) -> str:
    every = list(dict.fromkeys(names))
    more = f" and {len(every) - MANY} more" if len(every) > MANY else ""
    return ", ".join(every[:MANY]) + more
