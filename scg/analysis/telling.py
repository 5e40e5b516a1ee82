"""Telling: what is hidden in functions, in words, with the node, the line and what to write instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from scg.analysis.blame import Judge
from scg.analysis.learned import Learned
from scg.analysis.recorded import Recording
from scg.analysis.starved import parameter_names
from scg.nodes.records import Record
from scg.probes.tape import Finding, Kind

MANY = 4


@dataclass(frozen=True, eq=False)
class Report:
    """What is found while nodes are gone through; ``relevant`` are the bits of what is learned."""

    found: Learned
    judge: Judge
    relevant: int
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)
    nodes: set[str] = field(default_factory=set)
    watched: set[str] = field(default_factory=set)


def tell(report: Report, record: Record, call: Recording, blamed: Sequence[Finding]) -> None:
    """Add the error or the warning of a node, of the gravest kind that was found."""
    kinds = {finding.kind for finding in blamed}
    grave = next((kind for kind in (Kind.DRAW, Kind.UNDERIVED) if kind in kinds), None)
    found = [finding for finding in blamed if grave in (None, finding.kind)]
    if not found:
        return
    shown, sources = few(map(str, found)), few(_sources(report, record, call, found))
    if grave is Kind.DRAW:
        tell_of_draw(report, record, shown, sources)
        return
    report.nodes.add(record.name)
    node = f"node '{record.name}' ({record.where})"
    if grave is Kind.UNDERIVED:
        report.faults.append(
            f"{node} is on the way from {sources} to a cost, and torch cannot differentiate it: {shown}. "
            f"Declare '{record.name}' with differentiable=False if no gradient is wanted there, or write it "
            "with operations that have a derivative"
        )
    elif kinds == {Kind.UNDEFINED}:
        report.warnings.append(
            f"{node} turns NaN or infinity into numbers, at {shown}, where autograd's derivative in "
            f"{sources} stays NaN. Keep the arguments of what gives it where it is defined, as with clamp, "
            "rather than replacing its values"
        )
    else:
        drawn = "".join(f"; it draws from the generator of {name}, too" for name in call.flow.generators)
        report.warnings.append(
            f"{node} loses the gradient of {sources} on the way to a cost, at {shown}{drawn}. If no gradient "
            f"is wanted there, declare '{record.name}' with differentiable=False; if the gradient is meant "
            "as it is, with differentiable=True"
        )


def tell_of_draw(report: Report, record: Record, shown: str, sources: str) -> None:
    """Add the error of a node that draws from a law of what is learned."""
    report.nodes.add(record.name)
    report.faults.append(
        f"node '{record.name}' ({record.where}) draws inside its function, {shown}, from a law that "
        f"depends on {sources}, and the draw leads to a cost, which would give a wrong gradient. "
        "Declare the draw as a node, g.sample(name, distribution, ...), or the node that draws with "
        "differentiable=False where no gradient is wanted"
    )


def few(names: Iterable[str]) -> str:
    """Return distinct names in one line, and how many more there are."""
    every = list(dict.fromkeys(names))
    more = f" and {len(every) - MANY} more" if len(every) > MANY else ""
    return ", ".join(every[:MANY]) + more


def _sources(report: Report, record: Record, call: Recording, found: Iterable[Finding]) -> Iterator[str]:
    """Yield the names of what is learned that findings are computed from."""
    for finding in found:
        for source in sorted(call.flow.touched[finding]):
            if report.found.of_source(record, call, source) & report.relevant:
                yield _source_name(report, record, call, source)


def _source_name(report: Report, record: Record, call: Recording, source: int) -> str:
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
