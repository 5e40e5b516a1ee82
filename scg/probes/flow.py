"""Flow: what a function computes from what is learned and from noise, and where gradients are lost in it."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from scg.probes.recording import (
    DOMAIN_CHECKS,
    HIDDEN_STEPS,
    LEAVES_TORCH,
    SHAPE_ONLY,
    STEPPED,
    is_discrete,
    tensors_in,
)
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
STEPS: Final = STEPPED | frozenset(HIDDEN_STEPS) | {aten.copysign, aten.copysign_}
MILD_STEPS: Final = frozenset(HIDDEN_STEPS) | {aten.copysign, aten.copysign_}


@dataclass(frozen=True)
class Leaf:
    """One output: what it is computed from, what was found on the way, and whether it has a gradient."""

    sources: frozenset[int]
    noises: tuple[Finding, ...]
    findings: tuple[Finding, ...]
    is_attached: bool


@dataclass(frozen=True)
class Flow:
    """What one call showed.

    ``sources`` are the tensors that are learned, the given ones first, and ``touched`` those that a finding
    is computed from; on findings in ``escaped`` anything may depend, as Python saw them. ``generators``
    names those outside torch that moved, and ``own`` are torch's that the function holds, with their states
    before the call. A gradient through draws that are ``implicit`` is right though it
    is not the slope under fixed noise.
    """

    sources: tuple[Tensor, ...]
    leaves: tuple[Leaf, ...]
    outputs: tuple[Any, ...]
    touched: Mapping[Finding, frozenset[int]]
    escaped: tuple[Finding, ...]
    generators: tuple[str, ...]
    implicit: bool
    own: tuple[tuple[torch.Generator, Tensor], ...]


def flow(call: Callable[[], Any], learned: Sequence[Tensor], noisy: Sequence[Tensor] = ()) -> Flow:
    """Call a function once and follow what is learned, and noise, through views, writes and detachment.

    The tensors in ``learned``, which require a gradient, are learned, and so is whatever else that requires
    one and is met on the way.

    >>> p = torch.tensor(0.3, requires_grad=True)
    >>> [str(f) for f in flow(lambda: torch.bernoulli(p) * 2, [p]).leaves[0].findings]
    ['bernoulli (<doctest scg.probes.flow.flow[1]>:1)']
    """
    tape = Tape(sys._getframe())
    for tensor in learned:
        tape.source(tensor)
    for tensor in noisy:
        tape.mark(tensor, Mark(noises=tape.bit(Finding(Kind.NOISE, "a parent"), 0)))
    before = _generators()
    with _Functions(tape), _Operations(tape):
        outputs = tuple(pytree.tree_leaves(call()))
        marks = [tape.read(leaf) if isinstance(leaf, Tensor) else BLANK for leaf in outputs]
    after = _generators()
    moved = tuple(name for name, state in after.items() if name in before and state != before[name])
    leaves = [_leaf(tape, mark, value) for mark, value in zip(marks, outputs, strict=True)]
    touched = {found: _members(sources) for found, sources in tape.touched.items()}
    return Flow(
        tuple(tape.sources),
        tuple(leaves),
        outputs,
        touched,
        tape.findings(tape.escaped),
        moved,
        tape.has_implicit_draws,
        tuple(tape.generators),
    )


def _leaf(tape: Tape, mark: Mark, value: Any) -> Leaf:
    findings = tape.findings(mark.findings)
    attached = isinstance(value, Tensor) and value.requires_grad
    if attached and (name := _custom(value)) is not None:
        custom = Finding(Kind.CUSTOM, name)
        tape.bit(custom, mark.sources)
        findings += (custom,)
    return Leaf(_members(mark.sources), tape.findings(mark.noises), findings, attached)


def _members(bits: int) -> frozenset[int]:
    return frozenset(index for index in range(bits.bit_length()) if bits >> index & 1)


def _generators() -> dict[str, Any]:
    """Return the states of the generators outside torch."""
    states: dict[str, Any] = {"Python": random.getstate()}
    if (numpy := sys.modules.get("numpy")) is not None:
        _, words, *rest = numpy.random.get_state()
        states["NumPy"] = words.tobytes(), rest
    return states


def _custom(output: Tensor) -> str | None:
    """Return the name of an ``autograd.Function`` of the user's own on the way to an output."""
    waiting: list[Any] = [output.grad_fn]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, BackwardCFunction):
            function = type(node)._forward_cls  # type: ignore[attr-defined]
            if not function.__module__.startswith("torch."):
                return str(function.__name__)
        waiting += [following for following, _ in node.next_functions]
    return None


class _Functions(TorchFunctionMode):
    """Sees values leave torch, and generators come in, which operations see under other identities."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self._tape = tape

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := getattr(func, "__name__", "")) in LEAVES_TORCH:
            self._tape.escape(args[0], name.strip("_"))
        for value in (*args, *(kwargs or {}).values()):
            if isinstance(value, torch.Generator):
                self._tape.drawn_from(value)
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    """Sees every operation below autograd, where views, writes and detached tensors share a storage."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tape = tape

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = (*tensors_in(args), *tensors_in((*kwargs.values(),)))
        is_seeded = torch.Tag.nondeterministic_seeded in func.tags
        marks = [self._tape.of(tensor) for tensor in given]
        if not is_seeded and all(mark == BLANK for mark in marks):
            result = func(*args, **kwargs)
            for tensor in tensors_in(result):
                self._tape.born(tensor)
            return result
        if func.overloadpacket is aten._local_scalar_dense:
            self._tape.escape(given[0])
            return func(*args, **kwargs)
        operation = _Operation(self._tape, func, args, kwargs, given)
        state = torch.default_generator.get_state() if is_seeded else None
        own = any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values()))
        result = func(*args, **kwargs)
        if not _is_domain_check(func.overloadpacket, args):
            moved = state is not None and not torch.equal(state, torch.default_generator.get_state())
            on_device = any(tensor.device.type != "cpu" for tensor in tensors_in(result))
            operation.mark(tensors_in(result), moved or own or (is_seeded and on_device))
        return result


class _Operation:
    """One operation: what it reads, before it runs, and from that what its results hold."""

    def __init__(
        self, tape: Tape, func: Any, args: Any, kwargs: Mapping[str, Any], given: Sequence[Tensor]
    ) -> None:
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
        if discrete or self._packet in STEPS or self._kwargs.get("rounding_mode") is not None:
            findings |= self._step(result)
        noises |= self._held.noises
        if discrete or not self._attached:
            return Mark(self._held.sources, noises, findings | self._silent())
        if self._tracks:
            return Mark(self._held.sources, noises, findings, is_attached=True)
        return Mark(self._held.sources, noises, findings, self._loss(noises))

    def _drawn(self) -> int:
        """Return the finding of a draw from a law of what is learned."""
        if self._packet in IMPLICIT:
            self._tape.has_implicit_draws |= bool(self._held.sources)
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


def _is_domain_check(packet: Any, args: Sequence[Any]) -> bool:
    """Whether an operation says where a function is defined rather than what it is."""
    if packet in DOMAIN_CHECKS:
        return True
    if packet not in (aten.eq, aten.ne):
        return False
    return args[0] is args[1] or (isinstance(args[1], float) and args[1] in (float("inf"), -float("inf")))
