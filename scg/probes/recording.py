"""A recorder of the discrete values that a function computes from one tensor, and of where they are read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

SHAPE_ONLY = frozenset(
    {
        *(aten.empty_like, aten.zeros_like, aten.ones_like, aten.full_like),
        *(aten.rand_like, aten.randn_like, aten.randint_like),
        *(aten.new_empty, aten.new_zeros, aten.new_ones, aten.new_full, aten.new_empty_strided),
    }
)
# Whether a value is finite, or a factorisation succeeded, says where a function is defined, not what it is.
DOMAIN_CHECKS = frozenset({aten.isnan, aten.isinf, aten.isposinf, aten.isneginf, aten._linalg_check_errors})
STEPPED = frozenset(
    {
        *(aten.round, aten.floor, aten.ceil, aten.trunc, aten.fix, aten.sign, aten.sgn, aten.heaviside),
        *(
            aten.round_,
            aten.floor_,
            aten.ceil_,
            aten.trunc_,
            aten.fix_,
            aten.sign_,
            aten.sgn_,
            aten.heaviside_,
        ),
        *(aten.floor_divide, aten.floor_divide_, aten.bernoulli, aten.poisson, aten.binomial, aten.histc),
    }
)
# The discrete part of operations that jump without returning anything discrete.
HIDDEN_STEPS: Mapping[Any, Callable[..., Tensor]] = {
    aten.remainder: lambda a, b: torch.div(a, b, rounding_mode="floor"),
    aten.fmod: lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    aten.frac: lambda a: a.trunc(),
    aten.hardshrink: lambda a, limit=0.5: a.abs() > limit,
    aten.threshold: lambda a, limit, value: a > limit,
}
LEAVES_TORCH = frozenset({"numpy", "tolist", "__array__", "__dlpack__"})


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


def is_discrete(tensor: Tensor) -> bool:
    """Whether a tensor holds booleans or integers."""
    return not (tensor.is_floating_point() or tensor.is_complex())


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)


def is_domain_check(packet: Any, args: Sequence[Any]) -> bool:
    """Whether an operation asks where a function is defined, and not what it is."""
    if packet in DOMAIN_CHECKS:
        return True
    if packet not in (aten.eq, aten.ne):
        return False
    return args[0] is args[1] or (isinstance(args[1], float) and math.isinf(args[1]))


class Recorder:
    """Everything computed from one tensor while this context is open, through views, detachment and mutation.

    ``reads`` maps (operation, how many before it) to a discrete value that something read; a value that was
    only computed, such as the unused indices of a sort, is not there.
    """

    def __init__(self, source: Tensor) -> None:
        """Follow ``source``."""
        self.reads: dict[tuple[str, int], Any] = {}
        self.lowest = source.dtype
        self._counts: Counter[str] = Counter()
        self._follows: dict[int, Tensor] = {
            _storage(source): source
        }  # keeps storages alive: no address returns
        self._steps: dict[int, str] = {}
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
            self.reads["value read by Python", 0] = tuple(self._flow)

    def follows(self, tensor: Tensor) -> bool:
        """Whether the tensor was computed from the source."""
        return _storage(tensor) in self._follows

    def read(self, tensor: Tensor) -> None:
        """Record a tensor if it is discrete and computed from the source."""
        if self.follows(tensor) and (name := self._steps.get(_storage(tensor))) is not None:
            self._record(name, tensor.detach().clone())

    def escape(self, tensor: Tensor) -> None:
        """Note that Python holds a followed real number: from here on the operations are a recording."""
        if self.follows(tensor) and _storage(tensor) not in self._steps and self._flow is None:
            self._flow = []

    def operation(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run one operation and follow its results."""
        packet = function.overloadpacket
        if self._flow is not None:
            self._flow.append((str(function), *(a for a in args if isinstance(a, (bool, int, float)))))
        inputs = [t for t in (*tensors_in(args), *tensors_in((*kwargs.values(),))) if self.follows(t)]
        if not inputs or is_domain_check(packet, args):
            return function(*args, **kwargs)
        if not function.is_view:
            self._before(packet, inputs, args)
        result = function(*args, **kwargs)
        if packet not in SHAPE_ONLY:
            self._after(function, tensors_in(result), kwargs)
        return result

    def _before(self, packet: Any, inputs: list[Tensor], args: Sequence[Any]) -> None:
        for tensor in inputs:
            self.read(tensor)
        if packet in HIDDEN_STEPS:
            self._record(packet.__name__, HIDDEN_STEPS[packet](*args))
        if packet is aten._local_scalar_dense:
            self.escape(inputs[0])

    def _after(self, function: Any, results: list[Tensor], kwargs: Mapping[str, Any]) -> None:
        packet = function.overloadpacket
        stepped = packet in STEPPED or kwargs.get("rounding_mode") is not None
        for tensor in results:
            storage = _storage(tensor)
            self._follows.setdefault(storage, tensor)
            if not is_discrete(tensor):
                self.lowest = min(self.lowest, tensor.dtype, key=_digits)
            if stepped or is_discrete(tensor):
                self._steps.setdefault(storage, packet.__name__)
            elif not function.is_view:
                self._steps.pop(storage, None)

    def _record(self, name: str, value: Any) -> None:
        self.reads[name, self._counts[name]] = value
        self._counts[name] += 1


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
        if getattr(func, "__name__", "") in LEAVES_TORCH:
            self._recorder.read(args[0])
            self._recorder.escape(args[0])
        return func(*args, **(kwargs or {}))


def same(one: Any, other: Any) -> bool:
    """Whether two recorded values are equal."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)
