"""Helpers: the text of what emitted programs call besides torch, laws, users' functions and estimators."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any

from scg.surrogate.runtime import ops

TREE = "torch.utils._pytree.tree_map_only(torch.Tensor,"
TEXTS = MappingProxyType(
    {
        ops.possible: '''def {name}(value, mass):
    """Return a value with 0 where it is not finite and its branch impossible, so that 0 inf is 0."""
    return torch.where((mass == 0) & ~torch.isfinite(value), torch.zeros_like(value), value)''',
        ops.discounted: '''def {name}(value, dim, rate):
    """Weigh each element of an ordered plate by rate**t."""
    weights = rate ** torch.arange(value.shape[dim], dtype=value.dtype, device=value.device)
    return value * weights.view([-1 if i == dim else 1 for i in range(value.dim())])''',
        ops.undiscounted: '''def {name}(value, dim, size, rate):
    """Divide by the rate**t of a node's own elements, 0 where that has vanished."""
    weights = rate ** torch.arange(size, dtype=value.dtype, device=value.device)
    weights = torch.where(weights >= torch.finfo(weights.dtype).tiny, weights, torch.inf)
    return value / weights.view([-1 if i == dim else 1 for i in range(value.dim())])''',
        ops.to_go: '''def {name}(value, dim, rate):
    """Return sum over t' >= t of rate**(t' - t) value[t'] along an ordered plate."""
    weights = rate ** torch.arange(value.shape[dim], dtype=torch.float64, device=value.device)
    weights = weights.view([-1 if i == dim else 1 for i in range(value.dim())])
    over = torch.where(weights >= torch.finfo(weights.dtype).tiny, weights, torch.inf)
    return ((value * weights).flip(dim).cumsum(dim).flip(dim) / over).to(value.dtype)''',
        ops.first_order: '''def {name}(surrogate):
    """Return the score terms, and raise where they are differentiated with create_graph."""

    def refuse(gradient):
        if torch.is_grad_enabled():
            raise RuntimeError("score terms are right to first order only")

    if surrogate.requires_grad:
        surrogate.register_hook(refuse)
    return surrogate''',
        ops.add_all: '''def {name}(terms):
    """Return the sum of tensors of one shape."""
    return torch.stack(list(terms)).sum(0)''',
        ops.expand_lead: f'''def {{name}}(value, lead):
    """Expand the leading dimensions given a size; None leaves one as it is."""
    shape = [-1 if size is None else size for size in lead]
    return {TREE} lambda leaf: leaf.expand(*shape, *leaf.shape[len(shape):]), value)''',
        ops.indexed: f'''def {{name}}(value, index):
    """Index every tensor of a value."""
    return {TREE} lambda leaf: leaf[index], value)''',
        ops.size_within: '''def {name}(value, dim):
    """Return the size of a dimension that every tensor of a value has."""
    return torch.utils._pytree.tree_leaves(value)[0].shape[dim]''',
    }
)
OUTPUT = f'''def {{name}}(value):
    """Return a value without gradients."""
    return {TREE} torch.Tensor.detach, value)'''
REPEATED = f'''def {{name}}(value):
    """Return a value without gradients, once for each replicate."""
    return {TREE} lambda leaf: leaf.detach().expand({{count}}, *leaf.shape), value)'''


def helper_text(name: str, held: Any) -> str | None:
    """Return the text of what emitted code holds under a name, or None where that is no helper."""
    count = None
    while isinstance(held, partial):
        count = held.keywords.get("replicates", count)
        held = held.func
    if held is ops.output:
        return OUTPUT.format(name=name) if count is None else REPEATED.format(name=name, count=count)
    text = _text(held)
    return None if text is None else text.replace("{name}", name)


def _text(held: Callable[..., Any]) -> str | None:
    try:
        return TEXTS.get(held)
    except TypeError:
        return None
