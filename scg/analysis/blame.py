"""Blame: which of the findings in the call of a node lose a gradient, told by probes where they can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from scg.analysis.learned import Learned
from scg.analysis.recorded import Recording, judged, stirred
from scg.evaluation.calls import leaves_of
from scg.evaluation.trace import Trace
from scg.nodes.records import Record
from scg.probes.joint import UNJUDGED, Answer, Judgement
from scg.probes.tape import Finding, Kind


@dataclass(frozen=True, eq=False)
class Judge:
    """Judges calls on the example and, where nothing is seen there, in a contrasting world, moved about.

    ``relevant`` are the bits of what is learned; calls that nodes share are judged once.
    """

    found: Learned
    contrast: Callable[[], Trace]
    relevant: int
    known: dict[Any, Judgement] = field(default_factory=dict)

    def __call__(self, record: Record, call: Recording, used: frozenset[int]) -> Judgement:
        """Judge the call of a node in all that is learned, ``used`` being the outputs that matter."""
        moved = frozenset(
            source
            for source in range(len(call.flow.sources))
            if self.found.of_source(record, call, source) & self.relevant
        )
        shared = self.found.keys[record.name], moved, used
        if shared not in self.known:
            self.known[shared] = self._judged(record, call, used, moved)
        return self.known[shared]

    def _judged(
        self, record: Record, call: Recording, used: frozenset[int], moved: frozenset[int]
    ) -> Judgement:
        if call.flow.implicit:
            return UNJUDGED
        ir, trace = self.found.ir, self.found.trace
        first = judged(ir, trace, record, leaves_of(trace.values, record), call, used, moved)
        if Answer.YES in (first.disagrees, first.jumps):
            return first
        other = self.contrast() if ir.samples else trace
        leaves = stirred(trace, other, record, call, moved)
        if leaves is None:
            return first
        second = judged(ir, trace, record, leaves, call, used, moved)
        return second if Answer.YES in (second.disagrees, second.jumps) else first


def losing(
    findings: Iterable[Finding],
    escaped: frozenset[Finding],
    untaken: frozenset[Finding],
    judge: Callable[[], Judgement],
) -> list[Finding]:
    """Return the findings that lose a gradient; those that ``escaped`` may have no effect.

    Those that are ``untaken`` stand on ways that no probe has gone.
    """
    proven = [finding for finding in findings if finding.proven and finding not in escaped]
    if proven:
        return proven
    judgement = judge()
    seen = {finding: UNJUDGED if finding in untaken else judgement for finding in findings}
    counting = [finding for finding in findings if _counts(finding, finding in escaped, seen[finding])]
    if not counting and Answer.YES in (judgement.disagrees, judgement.jumps):
        return list(findings)
    return counting


def doubtful(findings: Iterable[Finding], judge: Callable[[], Judgement]) -> list[Finding]:
    """Return the steps that no probe saw, where none of the findings loses a gradient."""
    if judge().jumps is not Answer.UNKNOWN:
        return []
    return [finding for finding in findings if finding.kind is Kind.STEP]


def _counts(finding: Finding, has_escaped: bool, judgement: Judgement) -> bool:
    """Say whether a finding loses a gradient; what is mild, or Python saw, only where something was seen."""
    is_mild = finding.mild or (has_escaped and not finding.proven)
    if finding.kind is Kind.UNDERIVED:
        return True
    if finding.kind is Kind.UNDEFINED:
        return judgement.disagrees is Answer.YES
    if finding.kind in (Kind.LOST, Kind.CUSTOM):
        is_doubtful = judgement.disagrees is Answer.UNKNOWN and not is_mild and finding.kind is Kind.LOST
        return judgement.disagrees is Answer.YES or is_doubtful
    if is_mild:
        return judgement.jumps is Answer.YES
    return not (judgement.disagrees is Answer.NO and judgement.jumps is Answer.NO)
