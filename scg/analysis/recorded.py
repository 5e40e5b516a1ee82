"""Recorded calls: what the function of a node does with what is learned, once for all that call it alike."""

from __future__ import annotations

import operator
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scg.evaluation.calls import leaves_of, listed, of_leaves, signature, user_function
from scg.evaluation.trace import Trace
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.records import STRUCTURAL, Det, Record
from scg.probes.branches import Reads, ways
from scg.probes.flow import Flow, flow
from scg.probes.joint import Joint, Judgement
from scg.probes.known import KNOWN_BROKEN, KNOWN_SMOOTH
from scg.probes.merging import merged
from scg.probes.replay import undisturbed
from scg.probes.tape import Finding, Kind

# With a gradient almost everywhere, and jumps that other functions mend, as sin does those of an angle.
WRAPS: Final = frozenset(
    {
        *(operator.mod, torch.remainder, torch.fmod, torch.frac),
        *(torch.Tensor.remainder, torch.Tensor.fmod, torch.Tensor.frac),
    }
)
DRAWS: Final = frozenset(
    {
        *(torch.bernoulli, torch.multinomial, torch.poisson, torch.binomial, torch.normal),
        *(torch.Tensor.bernoulli, torch.Tensor.multinomial, torch.rand_like, torch.randn_like),
        *(torch.randint_like, torch.dropout, torch.feature_dropout, torch.alpha_dropout, torch.rrelu),
        *(F.rrelu, torch._standard_gamma),
    }
)
UNDERIVED: Final = frozenset(
    {
        *(torch.heaviside, torch.Tensor.heaviside, torch.Tensor.heaviside_),
        *(torch.floor_divide, torch.Tensor.floor_divide, operator.floordiv, torch.Tensor.__floordiv__),
    }
)
BUILT_IN: Final = (
    *(types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType),
    types.GetSetDescriptorType,
)


def loses_gradient(record: Record) -> bool:
    """Say whether a node is an operation of a library that has no useful derivative."""
    if not isinstance(record, Det) or record.differentiable is not None:
        return False
    call = record.fn.call
    return listed(call, KNOWN_BROKEN) and not listed(call, WRAPS) and not listed(call, DRAWS)


def is_recorded(record: Record) -> bool:
    """Say whether a node calls a function that may hide something: not a library's operation by itself."""
    function = user_function(record)
    if function is None or (isinstance(record, Det) and record.differentiable is False):
        return False
    call = function.call
    if call is None or listed(call, DRAWS) or listed(call, UNDERIVED):
        return True
    if listed(call, KNOWN_SMOOTH) or listed(call, KNOWN_BROKEN) or call in STRUCTURAL:
        return False
    module = getattr(call, "__module__", None)
    return not isinstance(call, BUILT_IN) and module not in ("torch.functional", "torch._tensor", "_operator")


@dataclass(frozen=True, eq=False)
class Recording:
    """What calls showed on all ways through a function: ``given`` are the parents' leaves that are sources.

    What is ``untaken`` was found only where Python took another branch than on the example.
    """

    flow: Flow
    given: tuple[int, ...]
    untaken: frozenset[Finding]
    is_complete: bool

    def of_leaf(self, index: int) -> int | None:
        """Return the number of the source that is a leaf of the parents, or None."""
        return self.given.index(index) if index in self.given else None


def key(ir: IR, trace: Trace, record: Record, learned: Sequence[bool], noisy: Sequence[bool]) -> Any:
    """Return what equal recordings share."""
    return signature(ir, trace, record), tuple(learned), tuple(noisy)


def recording(
    ir: IR, trace: Trace, record: Record, learned: Sequence[bool], noisy: Sequence[bool]
) -> Recording | str:
    """Record the call of a node, or return why it could not be; generators and buffers are the caller's."""
    leaves = leaves_of(trace.values, record)
    given = tuple(i for i, leaf in enumerate(leaves) if learned[i] and _is_floating(leaf))
    fn = of_leaves(ir, trace, record)

    def call(reads: Reads) -> Flow:
        with undisturbed(_modules(ir, record), torch.device("cpu")):
            fresh = [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            for index in given:
                fresh[index] = fresh[index].requires_grad_().clone()
            learned = [fresh[index] for index in given]
            noise = [leaf for leaf, is_noise in zip(fresh, noisy, strict=True) if is_noise]
            found = flow(lambda: pytree.tree_leaves(fn(fresh)), learned, noise, reads)
            _rewind(found)
            return found

    try:
        found = ways(call)
    except Exception as error:  # noqa: BLE001 - of an arbitrary function, which ran before
        return f"{type(error).__name__}: {error}"
    every = merged([*found], len(given))
    untaken = frozenset(every.touched) - frozenset(found.taken.touched)
    return Recording(every, given, untaken, found.is_complete)


def _rewind(found: Flow) -> None:
    """Put generators that a function holds back to where they were."""
    for generator, state in found.own:
        generator.set_state(state)


def stirred(
    trace: Trace, other: Trace, record: Record, found: Recording, moved: frozenset[int]
) -> list[Any] | None:
    """Return what the parents hold in another world, changed where no probe moves it and all of it is alike.

    None where that is the example again.
    """
    before, after = leaves_of(trace.values, record), leaves_of(other.values, record)
    own = {index for source, index in enumerate(found.given) if source in moved}
    leaves = [leaf if index in own else _stirred(leaf) for index, leaf in enumerate(after)]
    return None if all(map(_is_same, leaves, before)) else leaves


def judged(
    ir: IR,
    trace: Trace,
    record: Record,
    leaves: Sequence[Any],
    found: Recording,
    used: frozenset[int],
    moved: frozenset[int],
) -> Judgement:
    """Compare gradients and look for jumps of a node's function where its parents hold these leaves.

    ``used`` are the outputs that matter, and ``moved`` the sources.
    """
    fn = of_leaves(ir, trace, record)
    point = {str(index): leaf for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
    given = [str(index) for source, index in enumerate(found.given) if source in moved]

    def call(at: dict[str, Tensor]) -> list[Any]:
        _rewind(found.flow)
        outputs = fn([at.get(str(index), leaf) for index, leaf in enumerate(leaves)])
        return [value for index, value in enumerate(pytree.tree_leaves(outputs)) if index in used]

    findings = [*found.flow.escaped, *(f for leaf in found.flow.leaves for f in leaf.findings)]
    steps = any(finding.kind in (Kind.STEP, Kind.DRAW, Kind.LEAVES) for finding in findings)
    captured = found.flow.sources[len(found.given) :]
    undefined = any(finding.kind is Kind.UNDEFINED for finding in findings)
    joint = Joint(call, point, given, captured, _modules(ir, record))
    judgement = joint.judge(steps=steps, mirrored=undefined)
    _rewind(found.flow)
    return judgement


def _is_same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)


def _stirred(leaf: Any) -> Any:
    """Move an example whose elements are all the same, which may hide what depends on it."""
    if not _is_floating(leaf) or not leaf.numel() or not bool((leaf == leaf.flatten()[0]).all()):
        return leaf
    return leaf + torch.randn_like(leaf)


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _modules(ir: IR, record: Record) -> tuple[nn.Module, ...]:
    function = user_function(record)
    return () if function is None or function.owner is None else (ir.store.modules[function.owner],)
