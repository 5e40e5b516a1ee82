"""Transforms taken apart: the tensors of affine and power transforms become parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributions as td
from torch.distributions import Transform, constraints

from scg.errors import GraphError
from scg.laws.alike import Held
from scg.laws.law import Parameters, Reach

# A number, or the name of the parameter that holds the tensor.
Slot = float | str


class Template(ABC):
    """A transform without its tensors."""

    @abstractmethod
    def build(self, parameters: Parameters) -> Transform:
        """The transform with its tensors."""

    def names(self) -> tuple[str, ...]:
        """Names of the tensors."""
        return ()

    def moves(self, reach: Reach, parameters: Parameters) -> tuple[tuple[str, ...], Reach]:
        """Names of the tensors that move a support of that reach, and the reach of the image."""
        transform = self.build(parameters)
        known = _reach(transform.domain) == reach
        return (), _reach(transform.codomain) if known else "bounded"


@dataclass(frozen=True)
class Fixed(Template):
    """A transform that has no tensors to differentiate."""

    held: Held

    @property
    def transform(self) -> Transform:
        """The transform, which compares by value here, and in torch often not."""
        return self.held.value  # type: ignore[no-any-return]

    def build(self, parameters: Parameters) -> Transform:
        """The transform as it is."""
        return self.transform


@dataclass(frozen=True)
class Affine(Template):
    """``loc + scale x``."""

    loc: Slot
    scale: Slot
    event_dim: int = 0

    def build(self, parameters: Parameters) -> Transform:
        """``AffineTransform`` with its tensors."""
        return td.AffineTransform(_fill(self.loc, parameters), _fill(self.scale, parameters), self.event_dim)

    def names(self) -> tuple[str, ...]:
        """Those of loc and scale that are tensors."""
        return tuple(slot for slot in (self.loc, self.scale) if isinstance(slot, str))

    def moves(self, reach: Reach, parameters: Parameters) -> tuple[tuple[str, ...], Reach]:
        """Nothing moves the reals; a scale alone does not move a half-line."""
        if reach == "reals":
            return (), "reals"
        if reach == "half-line" and self.loc == 0:
            positive = bool((torch.as_tensor(_fill(self.scale, parameters)) > 0).all())
            return (), "half-line" if positive else "bounded"
        return self.names(), "bounded"


@dataclass(frozen=True)
class Power(Template):
    """``x ** exponent``."""

    exponent: str

    def build(self, parameters: Parameters) -> Transform:
        """``PowerTransform`` with its tensor."""
        return td.PowerTransform(parameters[self.exponent])

    def names(self) -> tuple[str, ...]:
        """The exponent."""
        return (self.exponent,)

    def moves(self, reach: Reach, parameters: Parameters) -> tuple[tuple[str, ...], Reach]:
        """The half-line and the unit interval are their own images under a positive power."""
        if reach == "half-line" or (reach == "unit" and bool((parameters[self.exponent] > 0).all())):
            return (), reach
        return self.names(), "bounded"


@dataclass(frozen=True)
class Inverse(Template):
    """The inverse of another template."""

    part: Template

    def build(self, parameters: Parameters) -> Transform:
        """The inverse transform."""
        return self.part.build(parameters).inv

    def names(self) -> tuple[str, ...]:
        """Those of the part."""
        return self.part.names()

    def moves(self, reach: Reach, parameters: Parameters) -> tuple[tuple[str, ...], Reach]:
        """As the part, whose tensors move the same supports."""
        if isinstance(self.part, Fixed):
            return super().moves(reach, parameters)
        return self.part.moves(reach, parameters)


@dataclass(frozen=True)
class Independently(Template):
    """An elementwise template over event dims."""

    part: Template
    rank: int

    def build(self, parameters: Parameters) -> Transform:
        """``IndependentTransform``."""
        return td.IndependentTransform(self.part.build(parameters), self.rank)

    def names(self) -> tuple[str, ...]:
        """Those of the part."""
        return self.part.names()

    def moves(self, reach: Reach, parameters: Parameters) -> tuple[tuple[str, ...], Reach]:
        """As the part."""
        return self.part.moves(reach, parameters)


@dataclass(frozen=True)
class Chain(Template):
    """Templates applied one after the other."""

    parts: tuple[Template, ...]

    def build(self, parameters: Parameters) -> Transform:
        """``ComposeTransform``."""
        return td.ComposeTransform([part.build(parameters) for part in self.parts])

    def names(self) -> tuple[str, ...]:
        """Those of the parts."""
        return tuple(name for part in self.parts for name in part.names())

    def moves(self, reach: Reach, parameters: Parameters) -> tuple[tuple[str, ...], Reach]:
        """Those of each part, on the image of the parts before it."""
        movers: tuple[str, ...] = ()
        for part in self.parts:
            found, reach = part.moves(reach, parameters)
            movers += found
        return movers, reach


def template_of(transform: Transform, name: str) -> tuple[Template, dict[str, Tensor]]:
    """Take a transform apart into a template and its tensors, named ``name.loc`` and so on."""
    if type(transform) is td.AffineTransform:
        slots, tensors = _slots(name, loc=transform.loc, scale=transform.scale)
        return Affine(slots["loc"], slots["scale"], transform.event_dim), tensors
    if type(transform) is td.PowerTransform:
        return Power(f"{name}.exponent"), {f"{name}.exponent": transform.exponent}
    if type(transform) is td.ComposeTransform:
        pairs = [template_of(part, f"{name}.part{i}") for i, part in enumerate(transform.parts)]
        return Chain(tuple(part for part, _ in pairs)), {k: v for _, found in pairs for k, v in found.items()}
    if type(transform) is td.IndependentTransform:
        part, tensors = template_of(transform.base_transform, name)
        return Independently(part, transform.reinterpreted_batch_ndims), tensors
    if isinstance(transform, td.transforms._InverseTransform):
        part, tensors = template_of(transform.inv, name)
        return Inverse(part), tensors
    _refuse_hidden(transform, name)
    return Fixed(Held(transform)), {}


def hidden_tensors(holder: Any, seen: set[int] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Yield ``(path, tensor)`` of every tensor inside an object, its attributes and its containers."""
    seen = set() if seen is None else seen
    if id(holder) in seen:
        return
    seen.add(id(holder))
    if isinstance(holder, Tensor):
        yield "", holder
        return
    if isinstance(holder, nn.Module):
        yield from ((f".{name}", tensor) for name, tensor in holder.named_parameters())
        return
    if isinstance(holder, (Transform, td.Distribution)):
        items: Any = vars(holder).items()
    elif isinstance(holder, dict):
        items = holder.items()
    elif isinstance(holder, (list, tuple)):
        items = enumerate(holder)
    else:
        return
    for key, item in items:
        for path, tensor in hidden_tensors(item, seen):
            yield f".{key}{path}", tensor


def _refuse_hidden(transform: Transform, name: str) -> None:
    for path, tensor in hidden_tensors(transform):
        if tensor.requires_grad:
            raise GraphError(
                f"{name} is a {type(transform).__name__} whose tensor '{path[1:]}' requires grad, and its "
                "gradient would be lost. Apply that transform in a deterministic node below the sample, or "
                "use AffineTransform or PowerTransform, whose tensors are parameters of the distribution."
            )


def _slots(name: str, **values: Tensor | float) -> tuple[dict[str, Slot], dict[str, Tensor]]:
    tensors = {f"{name}.{key}": value for key, value in values.items() if isinstance(value, Tensor)}
    slots = {key: f"{name}.{key}" if isinstance(value, Tensor) else value for key, value in values.items()}
    return slots, tensors


def _fill(slot: Slot, parameters: Parameters) -> Tensor | float:
    return parameters[slot] if isinstance(slot, str) else slot


def _reach(constraint: Any) -> Reach:
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    if constraint is constraints.real:
        return "reals"
    if constraint in (constraints.positive, constraints.nonnegative):
        return "half-line"
    return "unit" if constraint is constraints.unit_interval else "bounded"
