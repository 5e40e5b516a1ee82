"""Marking: what the results of one operation hold, from what it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from scg.probes.operations import DOMAIN_STEPS, HIDDEN_STEPS, SHAPE_ONLY, is_discrete, is_stepped
from scg.probes.recording import tensors_in
from scg.probes.tape import BLANK, Finding, Kind, Mark, Tape

aten = torch.ops.aten

# Where the tensors stand that the law of a draw is made of: such a draw has no gradient.
LAWS: Final[Mapping[Any, tuple[int, ...]]] = {
    aten.bernoulli.default: (0,),
    aten.bernoulli.Tensor: (1,),
    aten.bernoulli_.Tensor: (1,),
    aten.multinomial.default: (0,),
    aten.poisson.default: (0,),
    aten.binomial.default: (0, 1),
    aten.normal.Tensor_float: (0,),
    aten.normal.float_Tensor: (1,),
    aten.normal.Tensor_Tensor: (0, 1),
}
# Draws with a derivative in the tensors of their law.
IMPLICIT: Final = frozenset({aten._standard_gamma, aten._sample_dirichlet})
COMPARISONS: Final = frozenset(
    {
        *(aten.lt, aten.le, aten.gt, aten.ge, aten.eq, aten.ne, aten.isclose, aten.signbit),
        *(aten.logical_not, aten.logical_and, aten.logical_or, aten.logical_xor),
    }
)
ORDERINGS: Final = frozenset(
    {
        *(aten.max, aten.min, aten.sort, aten.argsort, aten.topk, aten.kthvalue, aten.median, aten.nanmedian),
        *(aten.cummax, aten.cummin, aten.nonzero, aten.max_pool2d_with_indices, aten.adaptive_max_pool2d),
        *(aten.max_pool3d_with_indices, aten.adaptive_max_pool3d, aten.fractional_max_pool2d),
    }
)
MILD_STEPS: Final = frozenset(HIDDEN_STEPS) | {
    aten.copysign_,
    aten.atan2_,
    aten.remainder_,
    aten.fmod_,
    aten.frac_,
}


class Operation:
    """One operation: what it reads, before it runs, and from that what its results hold."""

    def __init__(
        self, tape: Tape, func: Any, args: Any, kwargs: Mapping[str, Any], given: Sequence[Tensor]
    ) -> None:
        """Look at what it reads; ``given`` are the tensors among its arguments."""
        self._tape, self._func, self._packet = tape, func, func.overloadpacket
        self._name: str = self._packet.__name__.strip("_")
        self._args, self._kwargs = args, kwargs
        self._floating = [tape.of(tensor) for tensor in given if not is_discrete(tensor)]
        self._held = _joined([tape.of(tensor) for tensor in given])
        self._read = self._held if self._keeps_positive() else _joined([tape.read(t) for t in given])
        self._attached = any(tensor.requires_grad for tensor in given)
        self._tracks = torch.is_grad_enabled()

    def _keeps_positive(self) -> bool:
        """Whether it only lifts, in place, what rounding has made zero, as draws of Gammas do."""
        if self._packet not in (aten.clamp_, aten.clamp_min_):
            return False
        low, high = (*self._args[1:], self._kwargs.get("min"), self._kwargs.get("max"))[:2]
        return high is None and isinstance(low, float) and low <= torch.finfo(self._args[0].dtype).tiny

    def mark(self, results: Sequence[Tensor], is_random: bool) -> None:
        """Mark the results."""
        if self._func.is_view:
            if self._packet is aten.detach or not self._tracks:
                self._tape.detach(results[0], "detach" if self._tracks else "no_grad")
            return
        is_implicit = self._packet in IMPLICIT
        noise = self._tape.found(Kind.NOISE, self._name, mild=is_implicit) if is_random else None
        noises = 0 if noise is None else self._tape.bit(noise, 0)
        for result in results:
            self._tape.mark(result, self._result(result, noises))

    def mark_domain(self, results: Sequence[Tensor]) -> None:
        """Mark results that tell only where something is defined."""
        for result in results:
            self._tape.mark(result, Mark(findings=self._undefined()))

    def _undefined(self) -> int:
        """Return the finding of numbers that may replace what is not defined."""
        found = self._tape.found(Kind.UNDEFINED, self._name, mild=True)
        is_named = found.operation == self._name  # rather than a function of torch's own that checks
        return self._tape.bit(found, self._held.sources) if self._held.sources and is_named else 0

    def _result(self, result: Tensor, noises: int) -> Mark:
        if self._packet in SHAPE_ONLY:
            return Mark(noises=noises)
        drawn = self._drawn()
        if self._func in LAWS:
            return (
                Mark(self._held.sources, noises, self._held.findings | drawn)
                if drawn
                else Mark(noises=noises)
            )
        discrete = is_discrete(result)
        findings = (self._held if discrete else self._read).findings
        if discrete or self._packet in MILD_STEPS or is_stepped(self._func, self._kwargs):
            findings |= self._step(result)
        if self._packet in DOMAIN_STEPS:
            findings |= self._undefined()
        noises |= self._held.noises
        if discrete or not self._attached:
            return Mark(self._held.sources, noises, findings | self._silent())
        if self._tracks:
            return Mark(self._held.sources, noises, findings, is_attached=True)
        return Mark(self._held.sources, noises, findings, self._loss(noises))

    def _drawn(self) -> int:
        """Return the finding of a draw from a law of what is learned."""
        if self._packet in IMPLICIT:
            self._tape.has_implicit_draws |= (
                bool(self._held.sources) and self._packet is aten._sample_dirichlet
            )
        law = [value for index, value in enumerate(self._args) if index in LAWS.get(self._func, ())]
        sources = _joined([self._tape.of(tensor) for tensor in tensors_in(law)]).sources
        if not sources:
            return 0
        return self._tape.bit(self._tape.found(Kind.DRAW, self._name, proven=True), sources)

    def _step(self, result: Tensor) -> int:
        """Return the finding of a value that jumps: a draw where noise has a part in it."""
        learned = [mark for mark in self._floating if mark.sources]
        sources = _joined(learned).sources
        if not sources:
            return 0
        name = f"a cast to {result.dtype}" if self._packet is aten._to_copy else self._name
        compares = self._packet in COMPARISONS
        if self._held.noises:
            apart = self._is_apart()
            found = self._tape.found(Kind.DRAW, name, mild=compares and not apart)
        else:
            mild = compares or self._packet in ORDERINGS or self._packet in MILD_STEPS
            found = self._tape.found(Kind.STEP, name, mild=mild)
            if mild and found.operation != name:
                return 0  # of a function of torch's own, such as a check of a distribution's arguments
        return self._tape.bit(found, sources)

    def _is_apart(self) -> bool:
        """Whether noise meets here what is learned, rather than having met it before."""
        marks = self._floating
        return any(m.sources and not m.noises for m in marks) and any(
            m.noises and not m.sources for m in marks
        )

    def _silent(self) -> int:
        """Return the finding of noise that meets, without a gradient, what lost it by no_grad."""
        lost = [mark for mark in self._floating if mark.loss is not None]
        if self._tracks or not lost or not self._is_apart():
            return 0
        return self._tape.bit(self._tape.found(Kind.DRAW, self._name), _joined(lost).sources)

    def _loss(self, noises: int) -> Finding:
        """Return what is lost if a result that is computed without gradients is read without one."""
        is_draw = self._is_apart() or self._packet in IMPLICIT
        found = self._tape.found(Kind.DRAW if is_draw else Kind.LOST, self._name)
        return found if is_draw else Finding(Kind.LOST, f"{found.operation} under no_grad", found.where)


def _joined(marks: Sequence[Mark]) -> Mark:
    joined = BLANK
    for mark in marks:
        joined |= mark
    return joined
