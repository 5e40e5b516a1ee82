"""A recorder of what a function computes from one tensor: its discrete values, and how it differentiates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from scg.probes.operations import (
    DOMAIN_STEPS,
    HIDDEN_STEPS,
    SHAPE_ONLY,
    aten,
    base_name,
    is_discrete,
    is_domain_check,
    is_smooth,
    is_stepped,
)

LEAVES_TORCH = frozenset({"numpy", "tolist", "__array__", "__dlpack__"})
LOOKED_AT = frozenset({aten._local_scalar_dense, aten.equal, aten.nonzero, aten.masked_select, aten.allclose})
Site = tuple[str, int]
PYTHON: Site = ("value read by Python", 0)


class Replaced(NamedTuple):
    """One recorded value, and what it is taken to be instead: a value, or None for another number."""

    site: Site
    value: Any


def tensors_in(values: Any) -> list[Tensor]:
    """The tensors among an operation's arguments or results."""
    if isinstance(values, Tensor):
        return [values]
    if not isinstance(values, (list, tuple)):
        return []
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend(tensors_in(value))
    return found


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)


class Recorder:
    """Everything computed from one tensor while this context is open, through views, detachment and mutation.

    ``reads`` maps (operation, how many before it) to the discrete value that it gave, if something read that;
    a value that was only computed, such as the unused indices of a sort, is not there; those in ``used`` were
    read by operations, others by Python alone; those in ``domain`` tell only where something is defined.
    ``opaque`` names operations of which nothing is known, and ``cuts`` what keeps autograd from seeing
    operations; ``looks`` tells whether Python saw any value, so that others may lead to other operations;
    ``held`` are the parameters that were met.
    """

    def __init__(self, source: Tensor, replaced: Replaced | None = None, *, steps: bool = False) -> None:
        """Follow ``source``, with one recorded value replaced; with ``steps`` list all operations."""
        self.reads: dict[Site, Any] = {}
        self.lowest = source.dtype
        self.opaque: dict[str, None] = {}
        self.cuts: dict[str, None] = {}
        self.used: set[Site] = set()
        self.domain: set[Site] = set()
        self.looks = False
        self.held: dict[int, Tensor] = {}
        self.steps: list[Any] | None = [] if steps else None
        self._replaced = replaced
        self._counts: Counter[str] = Counter()
        self._follows: dict[int, Tensor] = {
            _storage(source): source
        }  # keeps storages alive: no address returns
        self._within: set[int] = set()  # what tells only where something is defined
        self._produced: dict[int, tuple[Site, Tensor]] = {}
        self._detached: dict[int, Tensor] = {}  # autograd detaches too, what it saves; that is not used again
        self._flow: list[Any] | None = None
        self._dispatch = _Dispatch(self)
        self._functions = _Functions(self)

    def __enter__(self) -> Self:
        self._functions.__enter__()  # type: ignore[no-untyped-call]
        self._dispatch.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        self._dispatch.__exit__(*error)  # type: ignore[no-untyped-call]
        self._functions.__exit__(*error)  # type: ignore[no-untyped-call]
        if self._flow is not None:
            self.reads[PYTHON] = tuple(self._flow)

    def follows(self, tensor: Tensor) -> bool:
        """Whether the tensor was computed from the source."""
        return _storage(tensor) in self._follows

    def read(self, tensor: Tensor, *, by_python: bool = False) -> None:
        """Record the discrete value that a tensor belongs to, if it is computed from the source."""
        produced = self._produced.get(_storage(tensor))
        if produced is None:
            return
        if not by_python:
            self.used.add(produced[0])
        if produced[0] not in self.reads:
            self.reads[produced[0]] = produced[1].detach().clone()

    def escape(self, tensor: Tensor) -> None:
        """Note that Python holds a followed real number: from here on the operations are a recording."""
        if self.follows(tensor) and _storage(tensor) not in self._produced:
            self.opaque[PYTHON[0]] = None
            if self._flow is None:
                self._flow = []

    def use(self, tensors: list[Tensor]) -> None:
        """Note whether something uses a detached tensor."""
        if any(id(tensor) in self._detached for tensor in tensors):
            self.cuts["detach"] = None

    def meet(self, tensors: list[Tensor]) -> None:
        """Note the parameters among the arguments of a function."""
        for tensor in tensors:
            if isinstance(tensor, nn.Parameter) or (tensor.requires_grad and tensor.is_leaf):
                self.held[id(tensor)] = tensor

    def operation(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run one operation and follow its results."""
        packet = function.overloadpacket
        self.looks = self.looks or packet in LOOKED_AT
        given = [*tensors_in(args), *tensors_in((*kwargs.values(),))]
        self._list(function, args, given)
        self.use(given)
        inputs = [tensor for tensor in given if self.follows(tensor)]
        if not inputs:
            return function(*args, **kwargs)
        if is_domain_check(function, args):
            return self._checked(function, args, kwargs)
        if packet in DOMAIN_STEPS:
            self._note(packet.__name__, DOMAIN_STEPS[packet](*args))
        if not function.is_view:
            for tensor in inputs:
                self.read(tensor, by_python=packet is aten._local_scalar_dense)
        if packet is aten._local_scalar_dense:
            self.escape(inputs[0])
        result = function(*args, **kwargs)
        return result if packet in SHAPE_ONLY else self._after(function, result, args, kwargs)

    def _list(self, function: Any, args: Sequence[Any], given: list[Tensor]) -> None:
        numbers = [a for a in args if isinstance(a, (bool, int, float))]
        if self._flow is not None:
            self._flow.append((str(function), *numbers))
        if self.steps is not None:
            outside = [_storage(tensor) for tensor in given if isinstance(tensor, nn.Parameter)]
            self.steps.append((str(function), *numbers, *outside))

    def _checked(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run an operation that tells where a function is defined, and follow what it tells."""
        result = function(*args, **kwargs)
        for tensor in tensors_in(result):
            self._follows.setdefault(_storage(tensor), tensor)
            site = self._site(function.overloadpacket.__name__)
            self._produced[_storage(tensor)] = site, tensor
            self._within.add(_storage(tensor))
            self.domain.add(site)
        return result

    def _note(self, name: str, value: Tensor) -> None:
        """Record where an operation gives a number in the place of one that is not defined."""
        site = self._site(name)
        self.reads[site] = value
        self.used.add(site)
        self.domain.add(site)

    def _after(self, function: Any, result: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        packet = function.overloadpacket
        if packet is aten.detach:
            self._detached[id(result)] = result
        elif not torch.is_grad_enabled():
            self.cuts["operations that autograd does not see"] = None
        if packet in HIDDEN_STEPS and self._can_step(packet, args):
            site = self._site(packet.__name__)
            self.reads[site] = HIDDEN_STEPS[packet](*args)
            self.used.add(site)
            self._follow(function, tensors_in(result), True, args)
            return self._given(site, result)
        if isinstance(result, (bool, int, float)) and packet is not aten._local_scalar_dense:
            site = self._site(packet.__name__)
            self.reads[site] = result
            return self._given(site, result)
        self._follow(function, tensors_in(result), is_stepped(function, kwargs), args)
        return result

    def _can_step(self, packet: Any, args: Sequence[Any]) -> bool:
        """Say whether what is followed can make an operation jump: a sign, or the number over a negative."""
        first, *others = [any(map(self.follows, tensors_in([a]))) for a in args]
        if packet is aten.copysign:
            return any(others)
        if packet is aten.atan2:
            self.looks = True
            return first and (any(others) or bool((args[1] < 0).any()))
        return True

    def _follow(self, function: Any, results: list[Tensor], stepped: bool, args: Sequence[Any]) -> None:
        known = stepped or is_smooth(function, args) or all(map(is_discrete, results))
        within = self._is_of_domain(args)
        if not known and function.overloadpacket is not aten._local_scalar_dense:
            self.opaque[base_name(function)] = None
        for tensor in results:
            storage = _storage(tensor)
            self._follows.setdefault(storage, tensor)
            (self._within.add if within else self._within.discard)(storage)
            if not is_discrete(tensor):
                self.lowest = min(self.lowest, tensor.dtype, key=_digits)
            if function.is_view:
                continue
            if (stepped and function.overloadpacket not in HIDDEN_STEPS) or is_discrete(tensor):
                site = self._site(function.overloadpacket.__name__)
                self._produced[storage] = site, tensor
                if within:
                    self.domain.add(site)
                self._given(site, tensor)
            else:
                self._produced.pop(storage, None)

    def _is_of_domain(self, args: Sequence[Any]) -> bool:
        """Say whether all that is followed among arguments tells only where a function is defined."""
        followed = {_storage(tensor) for tensor in tensors_in(args) if self.follows(tensor)}
        return followed <= self._within

    def _site(self, name: str) -> Site:
        self._counts[name] += 1
        return name, self._counts[name] - 1

    def _given(self, site: Site, value: Any) -> Any:
        """Return the value of a site, written over by the one that replaces it."""
        if self._replaced is None or self._replaced.site != site:
            return value
        other = self._replaced.value
        if not isinstance(value, Tensor):
            return (not value) if isinstance(value, bool) else value + 1
        if not isinstance(other, Tensor) or site[0] in _HIDDEN_NAMES:
            return value.add_(1)
        return value.copy_(other)


_HIDDEN_NAMES = frozenset(packet.__name__ for packet in HIDDEN_STEPS)


def _digits(dtype: torch.dtype) -> float:
    return -torch.finfo(dtype).eps


class _Dispatch(TorchDispatchMode):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._recorder = recorder

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._recorder.operation(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tensors_in(args)
        self._recorder.meet([*given, *tensors_in((*(kwargs or {}).values(),))])
        if getattr(func, "__name__", "") in LEAVES_TORCH:
            self._recorder.looks = True
            self._recorder.read(args[0])
            self._recorder.escape(args[0])
        return func(*args, **(kwargs or {}))


def same(one: Any, other: Any) -> bool:
    """Whether two recorded values are equal."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)
