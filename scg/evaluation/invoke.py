"""Calling a user's function: what it sees of its parents, and how what it raises is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from scg.errors import GraphError, ScgError
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.plates import insertion
from scg.nodes.records import Det, Function, Record, attribute


def seen(ir: IR, record: Record, parent: str, value: Any) -> Any:
    """Give a parent's value the size-1 dimensions for the plates of the node that it lacks."""
    have, want = ir.layout[parent], ir.layout[record.name]
    if not have or set(want) <= set(have):
        return value
    every = tuple(plate for plate in ir.plates if plate in have or plate in want)
    index = insertion(have, every)
    if index is None:
        return value
    return pytree.tree_map_only(Tensor, lambda tensor: tensor[index], value)


def call(record: Record, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Call a user's function; what it raises is told with the name and the line of its node."""
    given = pytree.tensors((args, dict(kwargs)))
    given = [leaf for leaf in given if not leaf.is_inference()]  # which have no versions
    versions = [leaf._version for leaf in given]
    try:
        value = fn(*args, **kwargs)
    except ScgError as error:
        raise type(error)(f"node '{record.name}' ({record.where}): {error}") from error
    except Exception as error:
        raise wrapped(record, error) from error
    if any(leaf._version != version for leaf, version in zip(given, versions, strict=True)):
        raise GraphError(
            f"node '{record.name}' ({record.where}) writes into a value of its parents, which others read "
            "too: use out-of-place operations, such as relu(x) for relu_(x) and inplace=False for modules"
        )
    return value


def wrapped(record: Record, error: BaseException) -> GraphError:
    """Say which node an exception came from, and where it was declared."""
    read = ""
    if isinstance(record, Det) and record.fn.call is attribute:
        read = f", which reads an attribute of '{record.parents[0]}',"
    return GraphError(f"node '{record.name}' ({record.where}){read} raised {type(error).__name__}: {error}")


def callable_of(ir: IR, function: Function) -> Callable[..., Any]:
    """Return what a node calls."""
    return ir.store.modules[function.owner] if function.owner is not None else function.call  # type: ignore[return-value]


def black_box(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Call ``fn`` on detached tensors and turn what it returns into tensors of its arguments' kind."""
    args, kwargs = pytree.tree_map_only(Tensor, Tensor.detach, (args, dict(kwargs)))
    tensors = pytree.tensors((args, kwargs))
    floats = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
    dtype = floats[0] if floats else torch.get_default_dtype()
    device = tensors[0].device if tensors else None

    def back(leaf: Any) -> Any:
        if leaf is None or isinstance(leaf, str):
            return leaf
        tensor = torch.as_tensor(leaf, device=device).detach()
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    with torch.no_grad():
        return pytree.tree_map(back, fn(*args, **kwargs))
