"""Flow: what a function computes from what is learned and from noise, and where gradients are lost in it."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from scg.probes.branches import Reads
from scg.probes.marking import Operation
from scg.probes.operations import is_domain_check
from scg.probes.recording import LEAVES_TORCH, tensors_in
from scg.probes.tape import BLANK, Finding, Kind, Mark, Tape

aten = torch.ops.aten
OUTPUTS: Final = 9


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

    ``sources`` are the tensors that are learned, the given ones first, ``alive`` those that an output has a
    gradient in, and ``touched`` those that a finding is computed from; on findings in ``escaped`` anything
    may depend, as Python saw them. ``generators`` names those outside torch that moved, and ``own`` are
    torch's that the function holds, with their states before the call. A gradient through draws that are
    ``implicit`` is right though it is not the slope under fixed noise, so that it cannot be judged.
    """

    sources: tuple[Tensor, ...]
    leaves: tuple[Leaf, ...]
    alive: frozenset[int]
    touched: Mapping[Finding, frozenset[int]]
    escaped: tuple[Finding, ...]
    generators: tuple[str, ...]
    implicit: bool
    own: tuple[tuple[torch.Generator, Tensor], ...]


def flow(
    call: Callable[[], Any],
    learned: Sequence[Tensor],
    noisy: Sequence[Tensor] = (),
    reads: Reads | None = None,
) -> Flow:
    """Call a function once and follow what is learned, and noise, through views, writes and detachment.

    The tensors in ``learned``, which require a gradient, are learned, and so is whatever else that requires
    one and is met on the way. ``reads`` has the numbers that Python reads, and may give others instead.

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
    with _Functions(tape), _Operations(tape, reads or Reads()):
        outputs = tuple(pytree.tree_leaves(call()))
        marks = [tape.read(leaf) if isinstance(leaf, Tensor) else BLANK for leaf in outputs]
    after = _generators()
    moved = tuple(name for name, state in after.items() if name in before and state != before[name])
    leaves = [_leaf(tape, mark, value) for mark, value in zip(marks, outputs, strict=True)]
    touched = {found: _members(sources) for found, sources in tape.touched.items()}
    return Flow(
        tuple(tape.sources),
        tuple(leaves),
        _alive(tape.sources, leaves, outputs, has_escaped=bool(tape.escaped)),
        touched,
        tape.findings(tape.escaped),
        moved,
        tape.has_implicit_draws,
        tuple(tape.generators),
    )


def _leaf(tape: Tape, mark: Mark, value: Any) -> Leaf:
    findings = tape.findings(mark.findings)
    attached = isinstance(value, Tensor) and value.requires_grad
    if attached:
        for found in _met_by_backward(value):
            tape.bit(found, mark.sources)
            findings += (found,)
    return Leaf(_members(mark.sources), tape.findings(mark.noises), findings, attached)


def _alive(
    sources: Sequence[Tensor], leaves: Sequence[Leaf], outputs: Sequence[Any], *, has_escaped: bool
) -> frozenset[int]:
    """Return the sources that an output has a gradient in; all that reach one where nothing was found."""
    reaching = frozenset().union(*(leaf.sources for leaf in leaves if leaf.is_attached))
    attached = [value for value in outputs if isinstance(value, Tensor) and value.requires_grad]
    if not attached or not (has_escaped or any(leaf.findings for leaf in leaves)):
        return reaching
    weights = [torch.zeros_like(output) for output in attached]
    try:
        gradients = torch.autograd.grad(attached, sources, weights, allow_unused=True)
    except RuntimeError:
        return reaching
    return frozenset(index for index, gradient in enumerate(gradients) if gradient is not None)


def _members(bits: int) -> frozenset[int]:
    return frozenset(index for index in range(bits.bit_length()) if bits >> index & 1)


def _generators() -> dict[str, Any]:
    """Return the states of the generators outside torch."""
    states: dict[str, Any] = {"Python": random.getstate()}
    if (numpy := sys.modules.get("numpy")) is not None:
        _, words, *rest = numpy.random.get_state()
        states["NumPy"] = words.tobytes(), rest
    return states


def _met_by_backward(output: Tensor) -> Iterator[Finding]:
    """Yield what only a backward meets: a user's ``autograd.Function``, and what torch cannot derive."""
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
                yield Finding(Kind.CUSTOM, str(function.__name__))
        elif type(node).__name__ == "NotImplemented":
            yield Finding(Kind.UNDERIVED, _missing(node))
        waiting += [following for following, _ in node.next_functions]


def _missing(node: Any) -> str:
    """Return torch's words for a derivative that it does not have; a node takes one for each output."""
    for count in range(1, OUTPUTS):
        try:
            node(*[torch.zeros(())] * count)
        except RuntimeError as error:
            return str(error).partition("\n")[0]
        except TypeError:
            continue
    return "an operation has no derivative"


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

    def __init__(self, tape: Tape, reads: Reads) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tape, self._reads = tape, reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._reads.spend(func, args, kwargs)
        given = (*tensors_in(args), *tensors_in((*kwargs.values(),)))
        is_seeded = torch.Tag.nondeterministic_seeded in func.tags
        marks = [self._tape.of(tensor) for tensor in given]
        if func.overloadpacket is aten._local_scalar_dense:
            self._tape.escape(given[0])
            return self._reads.read(func(*args, **kwargs))
        if not is_seeded and all(mark == BLANK for mark in marks):
            result = func(*args, **kwargs)
            for tensor in tensors_in(result):
                self._tape.born(tensor)
            return result
        operation = Operation(self._tape, func, args, kwargs, given)
        state = torch.default_generator.get_state() if is_seeded else None
        own = any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values()))
        result = func(*args, **kwargs)
        if is_domain_check(func, args):
            operation.mark_domain(tensors_in(result))
        else:
            moved = state is not None and not torch.equal(state, torch.default_generator.get_state())
            on_device = any(tensor.device.type != "cpu" for tensor in tensors_in(result))
            operation.mark(tensors_in(result), moved or own or (is_seeded and on_device))
        return result
