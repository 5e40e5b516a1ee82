"""The recorder: a mode of torch that writes down every call that a program makes, the user's as one each."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.overrides import TorchFunctionMode

from scg.evaluation.invoke import black_box
from scg.export.frames import look
from scg.export.leaves import Leaf
from scg.export.spelling import is_metadata, is_random, public_name, spelled
from scg.export.tape import Call, Kept, Outside, Path, Ref, Source, Suffix, Tape, Use
from scg.export.uses import places, seen
from scg.nodes import trees
from scg.nodes.records import Det, Record
from scg.surrogate.lowering.emitter import is_library
from scg.surrogate.lowering.watch import Watch

Fn = Callable[..., Any]
SHORT = 64
"""The most numbers of a tensor that is written out."""


class Recorder(TorchFunctionMode, Watch):
    """Records calls on a tape; as the watch of a program it tells the parts and the user's functions."""

    def __init__(
        self, outside: Callable[[Record | None, Fn], str], *, only: Container[str] | None = None
    ) -> None:
        """Start an empty tape; ``outside`` names what the user gave.

        With ``only``, these parts are told apart, those that are done for estimators among them, and all
        others are one call each.
        """
        super().__init__()
        self.tape = Tape()
        self._outside = outside
        self._only = only
        self._known: dict[int, Ref] = {}
        self._alive: list[Any] = []
        self._path: Path = ()
        self._paused = True

    def start(self) -> None:
        """Begin an empty tape."""
        self.tape, self._known, self._alive, self._path = Tape(), {}, [], ()
        self._paused = False

    def stop(self, loss: Any) -> Tape:
        """End the tape with what the program gave."""
        self._paused = True
        self.tape.result = self.ref(loss)
        return self.tape

    def declare(self, value: Any, text: str, root: str, *, detached: bool = False) -> None:
        """Say what the expression of a tensor, or of those in a container, is."""
        for place, leaf in trees.placed_leaves(text, value):
            if isinstance(leaf, Tensor) and id(leaf) not in self._known:
                self.tape.sources[self._new(leaf)] = Source(place, root, detached)

    def keep(self, key: str, value: Tensor) -> None:
        """Record that a value is kept for the next run."""
        self._append(Kept(key), (self.ref(value),), {}, None)

    def fault(self, text: str) -> None:
        """Note what cannot be written, once."""
        self.tape.faults.setdefault(text, set()).add(self._path)

    def function(self, record: Record | None, fn: Fn) -> Fn:
        """Return the user's function as one call of the tape."""
        if isinstance(fn, Leaf):
            return fn
        if is_library(fn):
            shown = public_name(fn) or spelled(fn)
            return Leaf(self, Outside(shown, fn, "library"))
        is_boxed = isinstance(record, Det) and record.differentiable is False
        return Leaf(self, Outside(self._outside(record, fn), fn, "boxed" if is_boxed else "plain"))

    def copied(self, module: nn.Module) -> Fn:
        """Return the call of a module on copies of its buffers as one call of the tape."""
        real: Any = module.outside.call if isinstance(module, Leaf) else module
        return Leaf(self, Outside(self._outside(None, real), real, "copied"), super().copied(real))

    def part(self, label: str, fn: Fn) -> Fn:
        """Return a part of the program whose calls are told apart from those around it."""

        def scg_part(*args: Any, **kwargs: Any) -> Any:
            if self._paused:
                return fn(*args, **kwargs)
            if self._only is not None and label not in self._only:
                return self._closed(label, fn, args, kwargs)
            self._look()
            before, index = self._path, len(self.tape.parts)
            self.tape.parts[index] = label
            given = places(self._known, args, kwargs)
            self._path = (*before, index)
            try:
                result = fn(*args, **kwargs)
            finally:
                self._path = before
            self.tape.uses[index] = Use(given, seen(self._known, result))
            return result

        return scg_part

    def _closed(self, label: str, fn: Fn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Write down one call for a part of which nothing is asked."""
        self._look()
        self._paused = True
        try:
            result = fn(*args, **kwargs)
        finally:
            self._paused = False
        several = result if isinstance(result, tuple) else (result,)
        if any(id(item) not in self._known for item in several):
            made = tuple(self._new(item) for item in several)
            given = seen(self._known, args), seen(self._known, kwargs)
            self._append(Outside(label, fn), *given, made if isinstance(result, tuple) else made[0])
        return result

    def detail(self, label: str, fn: Fn) -> Fn:
        """Return a part of the program, if it is to be told apart."""
        return fn if self._only is None else self.part(label, fn)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call, and write the call down."""
        kwargs = dict(kwargs or {})
        result = func(*args, **kwargs)
        if not self._paused:
            self._look()
            self._take(func, args, kwargs, result)
        return result

    def call(self, leaf: Leaf, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function of the user, and write down one call."""
        if self._paused:
            return leaf.call(*args, **kwargs)
        self._look()
        if leaf.outside.how == "library":
            return leaf.call(*args, **kwargs)
        given = trees.tensors((args, kwargs))
        if any(torch._C._functorch.is_functorch_wrapped_tensor(tensor) for tensor in given):
            self.fault(f"'{leaf.outside.name}' is mapped by torch.vmap: write it for any leading dimensions")
        self._paused = True
        try:
            boxed = leaf.outside.how == "boxed"
            result = black_box(leaf.call, args, kwargs) if boxed else leaf.call(*args, **kwargs)
        finally:
            self._paused = False
        return self._given(leaf.outside, args, kwargs, result)

    def mapped(self, outside: Outside, run: Fn, values: Any, dims: Any, given: Any) -> Any:
        """Call a function mapped over dimensions of some values, and write down one call."""
        if self._paused:
            return run()
        self._look()
        self._paused = True
        try:
            result = run()
        finally:
            self._paused = False
        if not isinstance(result, Tensor):
            self.fault(f"'{outside.name}' is mapped by torch.vmap, and gives a {type(result).__name__}")
        told = tuple(map(self.ref, values)), dims, self.ref(given[0]), self.ref(dict(given[1]))
        how = Outside(outside.name, outside.call, f"mapped {outside.how}")
        self._append(how, told, {}, self._new(result))
        return result

    def _look(self) -> None:
        """Note what values are called, where names are asked for."""
        if self._only is None or self._path:
            look(self.tape, self._known, self._path)

    def ref(self, value: Any) -> Any:
        """Return the number of a value, with numbers for the values in a container."""
        if id(value) in self._known:
            return self._known[id(value)]
        if isinstance(value, Tensor):
            return self._literal(value)
        if isinstance(value, slice):
            return slice(*map(self.ref, (value.start, value.stop, value.step)))
        if isinstance(value, tuple):
            return tuple(map(self.ref, value))
        if isinstance(value, list):
            return [*map(self.ref, value)]
        if type(value) is dict:
            return {key: self.ref(item) for key, item in value.items()}
        return value

    def _literal(self, value: Tensor) -> Ref:
        """Take a tensor that no call gave for one that is written out: it has to be there before the run."""
        ref = self._new(value)
        self.tape.literals[ref] = value
        if value.numel() > SHORT or value.requires_grad:
            size = tuple(value.shape)
            self.fault(f"a tensor of shape {size} is no node of the graph: give it to its node as a parent")
        return ref

    def _new(self, value: Any) -> Ref:
        ref = Ref(len(self._alive))
        self._alive.append(value)
        self._known[id(value)] = ref
        if isinstance(value, Tensor):
            self.tape.shapes[ref], self.tape.dtypes[ref] = tuple(value.shape), value.dtype
        return ref

    def _append(self, target: Any, args: Any, kwargs: Any, result: Any) -> None:
        grad = torch.is_grad_enabled()
        self.tape.calls.append(Call(target, args, kwargs, result, self._path, grad))

    def _take(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        name = spelled(func)
        if name == "register_hook" and args[1].__name__ == "_refuse_second_order":
            self._append(func, (self.ref(args[0]),), {}, None)
            return
        if func is torch._assert_async:
            self._append(
                func, (self.ref(args[0]), "a count is over what it was when this was written"), {}, None
            )
            return
        found = [result] if isinstance(result, Tensor) else list(result) if _is_several(result) else []
        if not found:
            if result is not None and not is_metadata(name):
                self.fault(f"{name}() reads a number off a tensor, which would hold for this run alone")
            return
        if is_random(name):
            self.fault(f"{name}() draws what the noise does not cover")
        in_place = name.endswith("_") and not name.endswith("__")
        if (in_place and name != "requires_grad_") or "out" in kwargs or name == "__setitem__":
            self.fault(f"{name}() writes into a tensor")
        if all(id(item) in self._known for item in found) and not in_place:
            return
        given = tuple(self.ref(item) for item in args), {key: self.ref(item) for key, item in kwargs.items()}
        several = [self._new(item) for item in found]
        self._append(func, *given, several[0] if isinstance(result, Tensor) else tuple(several))

    def _given(self, outside: Outside, args: Any, kwargs: Any, result: Any) -> Any:
        """Write down a call of the user's, and the parts of what it gave."""
        given = tuple(map(self.ref, args)), {key: self.ref(item) for key, item in kwargs.items()}
        if isinstance(result, Tensor):
            result = self._apart(result)
            self._append(outside, *given, self._new(result))
            return result
        whole = self._new(result)
        self._append(outside, *given, whole)
        if isinstance(result, Distribution):
            places: Iterable[tuple[str, Any]] = _of_distribution(result)
        else:
            result = trees.tree_map_only(Tensor, self._apart, result)
            self._known[id(result)] = whole
            self._alive.append(result)
            places = trees.placed_leaves("", result)
        for place, leaf in places:
            if isinstance(leaf, Tensor) and id(leaf) not in self._known:
                self._append(Suffix(place), (whole,), {}, self._new(leaf))
            elif isinstance(leaf, (bool, int, float, complex)) and not isinstance(result, Distribution):
                self.fault(f"'{outside.name}' gives {leaf!r}, no tensor: let it return torch.as_tensor(...)")
        return result

    def _apart(self, tensor: Tensor) -> Tensor:
        """Return a tensor that is no other value, as where a function returns what it was given."""
        if id(tensor) not in self._known:
            return tensor
        with torch._C.DisableTorchFunction():
            return tensor.view_as(tensor)


def _is_several(result: Any) -> bool:
    is_sequence = isinstance(result, (tuple, list)) and len(result) > 0
    return is_sequence and all(isinstance(item, Tensor) for item in result)


def _of_distribution(dist: Distribution, place: str = "") -> Iterable[tuple[str, Any]]:
    """Yield the tensors that a distribution holds, with what reads them."""
    for key, held in vars(dist).items():
        if isinstance(held, Tensor) and not key.startswith("_"):
            yield f"{place}.{key}", held
        elif isinstance(held, Distribution):
            yield from _of_distribution(held, f"{place}.{key}")
