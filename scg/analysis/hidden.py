"""Hidden: draws inside functions and gradients lost in them, on the way from what is learned to a cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from scg.analysis.blame import Judge, doubtful, losing
from scg.analysis.learned import HELD, learned
from scg.analysis.recorded import Recording
from scg.analysis.starved import starved
from scg.analysis.telling import Report, few, tell, tell_of_draw
from scg.evaluation.trace import Trace
from scg.nodes.ir import IR
from scg.nodes.records import Cost, Record
from scg.probes.tape import Finding, Kind


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


def hidden(ir: IR, trace: Trace, contrast: Callable[[], Trace], attached: Iterable[str] = ()) -> Hidden:
    """Record what functions do on example values, and judge it there and in a contrasting world.

    ``attached`` names inputs that require a gradient. Generators and buffers are the caller's to keep.
    """
    found = learned(ir, trace)
    relevant = HELD | sum(2 << ir.inputs.index(name) for name in attached)
    report = Report(found, Judge(found, contrast, relevant), relevant)
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


def _operation(report: Report, record: Record) -> None:
    """Report an operation of a library at which noise meets what is learned, and which steps."""
    bits = report.found.parents(record)[0]
    if not any(bit & report.relevant for bit in bits):
        report.watched.update(name for bit in bits for name in _inputs(report.found.ir, bit))
    else:
        parents = [name for name in record.parents if any(report.found.bits[name])]
        tell_of_draw(report, record, "it", few(parents))


def _node(report: Report, record: Record, call: Recording) -> None:
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
    is_derived = all(finding.kind is not Kind.UNDERIVED for finding in relevant)
    if relevant and is_derived and getattr(record, "differentiable", None) is True:
        shown = few(map(str, relevant))
        report.assumptions.append(f"the gradient through '{record.name}' is meant as it is: {shown} in it")
    elif relevant:
        judge = partial(report.judge, record, call, used)
        escapes = frozenset(relevant) - frozenset(on_leaves)
        blamed = losing(relevant, escapes, call.untaken, judge)
        doubts = [] if blamed else doubtful(relevant, judge)
        if doubts:
            report.assumptions.append(
                f"'{record.name}' is continuous at {few(map(str, doubts))}, which no probe saw switch"
            )
        tell(report, record, call, blamed)
    _noise(report, record, noises, blamed, call.flow.generators)


def _bits(report: Report, record: Record, call: Recording, finding: Finding) -> int:
    union = 0
    for source in call.flow.touched.get(finding, ()):
        union |= report.found.of_source(record, call, source)
    return union


def _inputs(ir: IR, bits: int) -> list[str]:
    return [name for index, name in enumerate(ir.inputs) if bits & (2 << index)]


def _noise(
    report: Report,
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
            report.assumptions.append(f"noise whose {claim}: {few(shown)} at '{record.name}'")
    for name in () if blamed else generators:
        report.assumptions.append(
            f"noise of the generator of {name} at '{record.name}' depends on nothing learned"
        )


def _starved(report: Report) -> None:
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
            f"no gradient ever reaches {few(map(repr, group.names))}, which leads to costs only through "
            f"{kind} '{group.end}' ({end.where}), {what}. Sample what depends on it, g.sample(name, "
            "distribution, ...), or call requires_grad_(False) on it if that is meant"
        )
