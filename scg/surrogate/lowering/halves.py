"""Halves of a plate: the lines that choose a random block of its elements, and the rest of them."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass

from torch import fx

from scg.choosing.choice import View
from scg.surrogate.lowering.plan import NOISE, Labels
from scg.surrogate.lowering.worlds import World
from scg.surrogate.runtime.blocks import blocks, chosen
from scg.surrogate.runtime.randomness import block_key


@dataclass(frozen=True, eq=False)
class Half:
    """Some elements of a plate, as the lines of a node see them: ``name`` ends what these are called.

    ``places`` is the line that gives theirs, ``size`` that of the plate, and controls learn from them if they
    ``train``.
    """

    name: str
    plate: str
    places: fx.Node
    size: fx.Node | int
    train: bool

    def of(self, world: World, value: fx.Node, lead: Labels) -> fx.Node:
        """Append a value that has leading dimensions, or leave it where the plate is none of them."""
        if self.plate not in lead:
            return value
        key = f"#chosen:{value.name}:{self.places.name}"
        if key not in world.root.values:
            shown = world.emitter.shown("chosen", None, chosen)
            line = world.emitter.call(
                shown, value, self.places, lead.index(self.plate), name=f"{value.name}{self.name}"
            )
            world.root.values[key] = line
        return world.root.values[key]

    def all_of(self, world: World, several: Iterable[tuple[fx.Node, Labels]]) -> list[fx.Node]:
        """Append several values."""
        return [self.of(world, value, lead) for value, lead in several]


def halves(world: World, name: str, view: View) -> tuple[Half, ...]:
    """Append the lines that choose what the control variate of a node trains on, and the rest."""
    asks, emitter, key = view.choice.asks, world.emitter, block_key(view.key)
    assert asks.block is not None
    noise = emitter.call(operator.getitem, world.root.value(NOISE), key, name=f"{view.label}_block_noise")
    size, share = world.root.size(asks.block), asks.train_on
    shown = emitter.shown("blocks", None, blocks)
    both = emitter.call(shown, noise, size, share.numerator, share.denominator, name=f"{view.label}_blocks")
    emitter.placed(name, both)
    found = []
    for index, half in enumerate(("_block", "_rest")):
        line = emitter.call(operator.getitem, both, index, name=f"{view.label}{half}")
        found.append(Half(half, asks.block, line, size, train=index == 0))
    return tuple(found)
