"""Helpers: the text of what emitted programs call besides torch, laws, users' functions and estimators."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any

from scg.evaluation import elsewhere
from scg.nodes.records import outcome
from scg.surrogate.runtime import blocks, ops

TREE = "torch.utils._pytree.tree_map_only(torch.Tensor,"
TEXTS = MappingProxyType(
    {
        ops.possible: '''def {name}(value, mass):
    """Return a value with 0 where it is not finite and its branch impossible, so that 0 inf is 0."""
    return torch.where((mass == 0) & ~torch.isfinite(value), torch.zeros_like(value), value)''',
        ops.rows: '''def {name}(table, index):
    """Return the rows of a table."""
    return table[index]''',
        ops.passed_on: '''def {name}(mass, step):
    """Return sum_k mass[k] step[k, j]."""
    return (mass[:, None] * step).sum(0)''',
        blocks.blocks: '''def {name}(noise, size, parts, of):
    """Return the places of a random block of elements, and those of the rest."""
    order = ((noise * size).long() + torch.arange(size, device=noise.device)) % size
    count = max(1, min(size * parts // of, size - 1))
    return order[:count], order[count:]''',
        blocks.chosen: f'''def {{name}}(value, places, dim):
    """Return the elements at some places along a dimension, or what is 1 long there."""
    return {TREE} lambda leaf: leaf if leaf.shape[dim] == 1 else leaf.index_select(dim, places), value)''',
        ops.share: '''def {name}(value, mass):
    """Return what a sum over branches is for each of several masses: 0 where that is."""
    return value / torch.where(mass >= torch.finfo(mass.dtype).tiny, mass, torch.inf)''',
        ops.discounted: '''def {name}(value, dim, rate):
    """Weigh each element of an ordered plate by rate**t."""
    weights = rate ** torch.arange(value.shape[dim], dtype=value.dtype, device=value.device)
    return value * weights.view([-1 if i == dim else 1 for i in range(value.dim())])''',
        ops.discounted_sum: '''def {name}(value, rate):
    """Return sum_t rate**t value[t] over the last dimension."""
    return value @ rate ** torch.arange(value.shape[-1], dtype=value.dtype, device=value.device)''',
        elsewhere.existing: '''def {name}(mask):
    """Return which elements exist, and the place of the first that does."""
    return mask != 0, (mask != 0).flatten().to(torch.uint8).argmax()''',
        elsewhere.filled: '''def {name}(value, exists):
    """Put a detached copy of an element that exists in the place of those that do not."""
    mask, first = exists
    lead = torch.broadcast_shapes(value.shape[:mask.dim()], mask.shape)
    full = value.expand(lead + value.shape[mask.dim():])
    copy = full.detach().flatten(0, mask.dim() - 1)[first]
    return torch.where(mask[(..., *(None,) * (full.dim() - mask.dim()))], full, copy)''',
        elsewhere.filled_value: '''def {name}(value, exists):
    """Put a copy of an element that exists in the place of those that do not, and 0 if none does."""
    mask, first = exists
    lead = torch.broadcast_shapes(value.shape[:mask.dim()], mask.shape)
    full = value.expand(lead + value.shape[mask.dim():])
    copy = full.flatten(0, mask.dim() - 1)[first] * mask.any()
    return torch.where(mask[(..., *(None,) * (full.dim() - mask.dim()))], full, copy)''',
        elsewhere.selected: '''def {name}(value, *masks):
    """Put 0 in the place of elements that exist by no mask."""
    return torch.where(sum(mask != 0 for mask in masks) > 0, value, 0.0)''',
        elsewhere.kept_of: '''def {name}(value, exists):
    """Put 0 in the place of elements that do not exist."""
    return torch.where(exists[0], value, 0.0)''',
        elsewhere.taken: '''def {name}(parameters, value, dtype, bounds):
    """Return a value that was drawn elsewhere, between its bounds if it has some."""
    return value.detach().to(dtype)''',
        outcome: '''def {name}(value, action, mask=None):
    """Return what was recorded with an action, 0 where nothing exists."""
    if mask is None:
        return value
    return torch.where(mask[(..., *(None,) * (value.dim() - mask.dim()))], value, 0)''',
        ops.log_ratio: '''def {name}(own, behaviour, exists):
    """Return log p - log q of each element that exists."""
    ratio = own.detach() - behaviour.detach()
    return ratio if exists is None else torch.where(exists[0], ratio, 0.0)''',
        ops.along: '''def {name}(log, dim):
    """Add up what each step and those before it have."""
    return log.cumsum(dim)''',
        ops.likelihood: '''def {name}(log):
    """Return a ratio of likelihoods."""
    return log.exp()''',
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
        ops.drawn_again: '''def {name}(costs, value, times):
    """Return the costs at a value so many times, what is below it drawn anew each time."""
    with torch.no_grad():
        return costs(value.detach().expand(times, *value.shape))''',
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
