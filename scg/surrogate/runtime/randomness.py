"""Randomness: the noise that runs of a program need, drawn in one call, or given and completed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scg.coupling import Coupling
from scg.errors import GraphError
from scg.evaluation.sizes import plate_sizes
from scg.nodes.ir import IR
from scg.nodes.trees import tensors
from scg.noise import (
    Groups,
    NoiseLayout,
    NoiseSpec,
    draw_noise,
    global_noise,
    merged,
    noise_layout,
    seed_of,
    substream,
    traced,
)

FRESH = "#fresh"
"""The stream of what estimators draw where given noise does not cover it: no name of a node."""


class Noise(dict[str, Tensor]):
    """Base noise by node, and the seed of whatever has to be drawn besides."""

    def __init__(self, given: Mapping[str, Tensor], seed: int | Tensor | None = None) -> None:
        """Hold ``given``; draw the rest from ``seed``, or from torch's global generator."""
        super().__init__(given)
        self._seed = seed

    @property
    def has_seed(self) -> bool:
        """Whether a seed decides what is drawn besides, and not the global generator alone."""
        return self._seed is not None

    @property
    def seed(self) -> int | Tensor:
        """The seed, drawn when it is first asked for; a tensor where torch.compile traces the run."""
        if self._seed is None:
            self._seed = int(torch.randint(2**62, ()))
        return self._seed


def fresh_key(name: str, index: int) -> str:
    """Return the name, in the noise of a run, of what the estimator of a node draws for itself.

    >>> fresh_key("b", 0)
    'b.1'
    """
    return f"{name}.{index + 1}"


def redrawn_key(view: str, name: str) -> str:
    """Return the name of the noise from which a node is drawn anew for a view of one above it.

    >>> redrawn_key("b", "c")
    'b.below.c'
    """
    return f"{view}.below.{name}"


def block_key(view: str) -> str:
    """Return the name of the number that tells where the block starts on which a view trains.

    >>> block_key("b")
    'b.block'
    """
    return f"{view}.block"


@dataclass(frozen=True, eq=False)
class Layouts:
    """Where the noise of one run lies: that of nodes, then what estimators draw, then what couples noise."""

    shared: NoiseLayout
    own: NoiseLayout
    joint: NoiseLayout
    groups: Groups

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all entries."""
        return self.shared.names + self.own.names


@dataclass(frozen=True, eq=False)
class Randomness:
    """The noise of a program's runs, whatever the sizes of plates.

    ``base`` has the noise of each node that has some, with its shape beyond the plates; ``events`` the shape
    of a value beyond the plates for each node; ``fresh`` what the estimator of each draws for itself, which
    those in ``made`` make the value of, so that it is drawn in every run.
    ``coupling`` tells which noise replicates draw together, and ``redrawn`` what noise is drawn so many times
    more, with that dimension in front. ``single`` has what is one number, whatever the plates.
    """

    ir: IR
    samples: int | None
    base: Mapping[str, NoiseSpec]
    events: Mapping[str, tuple[int, ...]]
    fresh: Mapping[str, tuple[NoiseSpec, ...]]
    device: torch.device | None
    made: frozenset[str] = frozenset()
    coupling: Coupling | None = None
    redrawn: Mapping[str, tuple[NoiseSpec, int]] = field(default_factory=dict)
    single: tuple[NoiseSpec, ...] = ()
    _layouts: dict[tuple[Any, ...], Layouts] = field(default_factory=dict)

    def draw(self, inputs: Mapping[str, Tensor], seed: int | Tensor | None, *, gradients: bool) -> Noise:
        """Draw what a run needs from a seed, or from torch's global generator."""
        layouts = self.layouts(inputs, gradients=gradients)
        if seed is None:
            drawn = global_noise((*layouts.groups, *layouts.joint.groups), self.device)
        else:
            drawn = draw_noise(seed, layouts.shared, layouts.own, layouts.joint, device=self.device)
        return Noise(drawn if self.coupling is None else self.coupling(drawn), seed)

    def complete(self, noise: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Noise:
        """Check given noise, and draw what it does not cover from a seed of its own."""
        unknown = [name for name in noise if name.partition(".")[0] not in self.ir.samples]
        missing = [name for name in self.base if name not in noise]
        if unknown or missing:
            raise GraphError(
                f"noise has unknown names {unknown} and lacks {missing}: "
                "give what program.draw_noise(seed, **inputs) returns for these inputs"
            )
        for name, shape in self.shapes(inputs).items():
            if name in noise and (wrong := _misfit(noise[name], shape)) is not None:
                raise GraphError(
                    f"noise of '{name}' {wrong}: "
                    "give what program.draw_noise(seed, **inputs) returns for these inputs"
                )
        own = self.layouts(inputs, gradients=True).own
        if all(name in noise for name in (*self.ir.samples, *own.names)):
            return Noise(noise)
        seed = noise.seed if isinstance(noise, Noise) else seed_of(noise)
        if torch.compiler.is_compiling():
            seed = traced(seed, self.device)
        return Noise({**draw_noise(substream(seed, FRESH), own, device=self.device), **noise}, seed)

    def shapes(self, inputs: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
        """Return the shape of the noise of each node, for a run on these inputs."""
        layouts = self.layouts(inputs, gradients=True)
        found = {name: spec.shape for spec, names in layouts.groups for name in names}
        lead, sizes = self._lead(), plate_sizes(self.ir, inputs)
        for name in self.ir.samples:
            if name not in found:
                found[name] = (*lead, *(sizes[plate] for plate in self.ir.layout[name]), *self.events[name])
        return found

    def layouts(self, inputs: Mapping[str, Tensor], *, gradients: bool) -> Layouts:
        """Return the noise of a run on these inputs, with that of estimators where it is read."""
        if torch.compiler.is_compiling():  # where sizes may be symbols, which are not to be hashed
            return self._laid_out(inputs, gradients=gradients)
        key = (gradients, *map(_shapes, inputs.values()))
        if key not in self._layouts:
            self._layouts[key] = self._laid_out(inputs, gradients=gradients)
        return self._layouts[key]

    def _laid_out(self, inputs: Mapping[str, Tensor], *, gradients: bool) -> Layouts:
        lead, sizes = self._lead(), plate_sizes(self.ir, inputs)

        def placed(name: str, spec: NoiseSpec, *times: int) -> NoiseSpec:
            plates = self.ir.layout[spec.name]
            shape = (*times, *lead, *(sizes[plate] for plate in plates), *spec.shape)
            alike = (spec.kind, str(spec.dtype), plates, spec.shape, *times)
            return NoiseSpec(name, spec.kind, shape, spec.dtype, alike)

        shared = [placed(name, spec) for name, spec in self.base.items()]
        own = [
            placed(fresh_key(name, index), spec)
            for name, several in self.fresh.items()
            for index, spec in enumerate(several if gradients or name in self.made else ())
        ]
        own += [placed(key, *redrawn) for key, redrawn in self.redrawn.items() if gradients]
        own += self.single if gradients else ()
        one, other = noise_layout(shared), noise_layout(own)
        joint = [] if self.coupling is None else [self.coupling.numbers(sizes)]
        return Layouts(one, other, noise_layout(joint), merged(one, other))

    def _lead(self) -> Sequence[int]:
        return () if self.samples is None else (self.samples,)


def _shapes(value: Any) -> tuple[Any, ...]:
    """Return the shape of an input, or those of the tensors in it."""
    return value.shape if isinstance(value, Tensor) else tuple(leaf.shape for leaf in tensors(value))


def _misfit(noise: Any, shape: tuple[int, ...]) -> str | None:
    """Say what is wrong with the noise of one node."""
    if not isinstance(noise, Tensor):
        return f"is a {type(noise).__name__}, not a tensor of shape {shape}"
    found = tuple(noise.shape)
    return None if found == shape else f"has shape {found}, not {shape}"
