"""What a simulator recorded: a dict of tensors that have the plates of its node first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from scg.errors import GraphError
from scg.nodes import trees
from scg.nodes.arguments import spelled

Played = dict[str, Any]


def played(name: str, found: Any, plates: Sequence[str]) -> Played:
    """Return the record that a simulator gave for a node, in tensors, or raise for what is wrong with it.

    It is a dict or a TensorDict, of tensors or arrays.
    """
    found = found.to_dict() if hasattr(found, "to_dict") else found
    who = f"the record of rollout '{name}'"
    if not isinstance(found, Mapping):
        raise GraphError(f"{who} is a {type(found).__name__}: simulate returns a dict of tensors")
    lacks = [repr(key) for key in ("action", "state") if key not in found]
    if lacks:
        raise GraphError(
            f"{who} lacks {' and '.join(lacks)}; it has {', '.join(map(str, found)) or 'nothing'}"
        )
    record = {
        key: part.detach() if isinstance(part, Tensor) else trees.tree_map(partial(_tensor, who, key), part)
        for key, part in found.items()
    }
    _check_lead(who, record, plates)
    if "mask" in record:
        record["mask"] = _truth(who, record["mask"])
    return record


def named(name: str, record: Played) -> Played:
    """Return the names of the inputs that a record fills in, in its places.

    >>> named("ep", {"state": {"x": 0, "y": 0}})
    {'state': {'x': 'ep_raw_state_x', 'y': 'ep_raw_state_y'}}
    """
    return {key: spelled(f"{name}_raw_{key}", part, lambda leaf, _: leaf) for key, part in record.items()}


def filling(name: str, inputs: Mapping[str, Any], record: Played) -> dict[str, Tensor]:
    """Return the tensors of a record by the names of the inputs that they fill in."""
    wanted = dict(_places(inputs))
    found = dict(_places(record))
    lacks = [place for place in wanted if place not in found]
    if lacks:
        raise GraphError(
            f"the record of rollout '{name}' lacks {lacks[0]}, which the example has; "
            f"it has {', '.join(found)}"
        )
    return {wanted[place]: found[place] for place in wanted}


def _places(record: Mapping[str, Any]) -> list[tuple[str, Any]]:
    places: list[tuple[str, Any]] = []
    for key, part in record.items():
        place = f"'{key}'"
        places += [(place, part)] if isinstance(part, (Tensor, str)) else trees.placed_leaves(place, part)
    return places


def _tensor(who: str, key: str, leaf: Any) -> Tensor:
    try:
        return torch.as_tensor(leaf).detach()
    except (TypeError, ValueError, RuntimeError):
        raise GraphError(f"{who}: '{key}' holds a {type(leaf).__name__}: give tensors") from None


def _check_lead(who: str, record: Played, plates: Sequence[str]) -> None:
    """Hold the leading dimensions of everything against those of the actions."""
    action, first = record["action"], f"the plates {tuple(plates)} come first"
    if not isinstance(action, Tensor):
        raise GraphError(f"{who}: 'action' is a {type(action).__name__}: give one tensor")
    if action.dim() < len(plates):
        raise GraphError(
            f"{who}: 'action' has shape {tuple(action.shape)}: its plates {tuple(plates)} come first"
        )
    lead = tuple(action.shape[: len(plates)])
    for place, leaf in _places(record):
        if tuple(leaf.shape[: len(lead)]) != lead:
            raise GraphError(
                f"{who}: {place} has shape {tuple(leaf.shape)}, and 'action' begins with {lead}: {first}"
            )
    if "mask" in record and record["mask"].shape != lead:
        raise GraphError(
            f"{who}: 'mask' has shape {tuple(record['mask'].shape)}: give one number for each of {lead}"
        )


def _truth(who: str, mask: Tensor) -> Tensor:
    """Return a mask of truth values."""
    if mask.dtype == torch.bool:
        return mask
    wrong = (mask != 0) & (mask != 1)
    if bool(wrong.any()):
        raise GraphError(
            f"{who}: 'mask' is 0 or 1 for every element, found {mask[wrong].flatten()[0].item()}"
        )
    return mask != 0
