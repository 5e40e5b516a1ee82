"""Blocks: some elements of a plate, on which a control variate trains, and the rest of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from scg.estimators.protocol.site import Site
from scg.nodes import trees as pytree


def blocks(noise: Tensor, size: int, parts: int, of: int) -> tuple[Tensor, Tensor]:
    """Return the places of a block of ``parts`` in ``of`` of a plate, one at least, and those of the rest.

    It starts anywhere and goes on at the first element behind the last, so that each is in it equally often.
    """
    order = ((noise * size).long() + torch.arange(size, device=noise.device)) % size
    count = max(1, min(size * parts // of, size - 1))
    return order[:count], order[count:]


def chosen(value: Any, places: Tensor, dim: int) -> Any:
    """Return the elements at some places along a dimension, of a tensor or of all in a container.

    What is 1 long there stays as it is: it repeats, or the plate has one element and the rest none.
    """
    return pytree.tree_map_only(Tensor, lambda leaf: _elements(leaf, places, dim), value)


def _elements(value: Tensor, places: Tensor, dim: int) -> Tensor:
    """Return the elements of a tensor, or all where it lacks the dimension, or repeats along it."""
    if not -value.dim() <= dim < value.dim() or value.shape[dim] == 1:
        return value
    return value.index_select(dim, places)


def within(site: Site, places: Tensor, dim: int, *, trains: bool) -> Site:
    """Return the site of the elements at some places along a dimension; they count what they did."""

    def at(tensor: Tensor) -> Tensor:
        return _elements(tensor, places, dim)

    def counted(weight: Tensor) -> Tensor:  # which may lack dimensions on the left
        found = _elements(weight, places, dim - site.lead)
        return found if len(places) else torch.zeros_like(found)

    axis = site.axes[dim]._replace(size=max(len(places), 1))
    provided = site.provided
    return replace(
        site,
        parameters={name: at(leaf) for name, leaf in site.parameters.items()},
        noise=at(site.noise),
        value=at(site.value),
        credit=at(site.credit),
        axes=(*site.axes[:dim], axis, *site.axes[dim + 1 :]),
        weight=None if site.weight is None else counted(site.weight),
        unit=None if site.unit is None else counted(site.unit),
        share=None if site.share is None else counted(site.share),
        exists=None if site.exists is None else at(site.exists),
        ratio=None if site.ratio is None else at(site.ratio),
        trained=site.trained if trains else (),
        provided=replace(
            provided,
            fresh=tuple(map(at, provided.fresh)),
            standard=None if provided.standard is None else at(provided.standard),
        ),
    )
