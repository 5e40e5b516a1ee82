"""What emitted programs call besides torch, the user's functions and the laws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache, partial, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module as holding

from scg.errors import EstimatorError
from scg.evaluation.elsewhere import Existing, selected
from scg.laws import Law, Relaxable, broadcast, can_look, divisor, is_seen_finite, is_transformed
from scg.nodes import trees as pytree
from scg.noise import start_generators, substream
from scg.surrogate.runtime.randomness import Noise

SHORT = 256
"""The most steps of which a product adds up what is to go: it has as many numbers as that squared."""


def replay(
    noise: Noise, key: str, law: Law, parameters: Mapping[str, Tensor], lead: Sequence[int], inner: int
) -> Tensor:
    """Return the value given as noise for ``key``, or draw one: for laws without a base-noise form."""
    if key in noise:
        return noise[key]
    own = law.batch_shape(parameters)
    batch = torch.broadcast_shapes(own, (*lead, *(1,) * inner))
    if torch.compiler.is_compiling():
        return law.sample(parameters, torch.Size(batch))
    with torch.random.fork_rng(), torch.no_grad():
        start_generators(substream(int(noise.seed), key))
        return law.sample(parameters, torch.Size(batch))


def relaxed_draw(
    law: Relaxable, parameters: Mapping[str, Tensor], standard: Tensor, temperature: Tensor
) -> Tensor:
    """Return the relaxed value of a discrete variable, in the type of its parameters."""
    soft = law.relax(law.location(parameters) + standard, temperature)
    return soft.to(parameters[law.given].dtype)


def log_ratio(own: Tensor, behaviour: Tensor, exists: Existing | None) -> Tensor:
    """Return log p - log q of each element, detached; 0 for those that do not exist."""
    found = own.detach() - behaviour.detach().to(own.dtype)
    return found if exists is None else selected(found, exists.mask)


def along(log: Tensor, dim: int) -> Tensor:
    """Add up what each step and those before it have."""
    return log.cumsum(dim)


def box(log: Tensor) -> Tensor:
    """Return p / sg p: 1, with every derivative of p over p."""
    return (log - log.detach()).exp()


def left_by(baseline: Tensor, own: Tensor, above: Tensor | None) -> Tensor:
    """Return box(above) (1 - box(own)) b: 0, in expectation also every derivative of it."""
    taken = (1 - box(own)) * baseline
    return taken if above is None else box(above) * taken


def likelihood(log: Tensor) -> Tensor:
    """Return the ratio of likelihoods of its logarithm."""
    return log.exp()


def log_prob(law: Law, lead: int, parameters: Mapping[str, Tensor], value: Tensor) -> Tensor:
    """Return log p(value), summed over all but the leading dimensions."""
    return law.log_prob_over(parameters, value, lead)


def possible(value: Tensor, mass: Tensor) -> Tensor:
    """Return a value with 0 where it is not finite and its branch impossible, so that 0 inf is 0."""
    if is_seen_finite(value):
        return value.expand(broadcast(value.shape, mass.shape))
    return torch.where((mass == 0) & ~torch.isfinite(value), torch.zeros_like(value), value)


def rows(table: Any, index: Any) -> Any:
    """Return ``table[index]``, by a faster way where the index is one of integers along one dimension."""
    is_plain = (
        isinstance(table, Tensor) and isinstance(index, Tensor) and index.dim() == 1 and table.dim() > 0
    )
    return table.index_select(0, index) if is_plain and index.dtype is torch.long else table[index]


def passed_on(mass: Tensor, step: Tensor) -> Tensor:
    """Return sum_k mass[k] step[k, j], in full precision."""
    if mass.dtype == step.dtype and not torch.is_autocast_enabled(mass.device.type):
        return mass @ step
    return (mass[:, None] * step).sum(0)


def share(value: Tensor, mass: Tensor) -> Tensor:
    """Return what a sum over branches is for each of several masses: 0 where that is."""
    return value / divisor(mass)


def discount_weights(like: Tensor, size: int, rate: float) -> Tensor:
    """Return rate**t for t < size."""
    if not _can_hold(like):
        return rate ** torch.arange(size, dtype=like.dtype, device=like.device)
    return _held_weights(size, rate, like.dtype)


def _can_hold(like: Tensor) -> bool:
    """Say whether what is computed here may be kept for later runs."""
    return can_look(like) and not torch.is_inference_mode_enabled()


@lru_cache(maxsize=64)
def _held_sums(size: int, rate: float, dtype: torch.dtype) -> Tensor:
    """Return what rate**(t' - t) is for t' >= t, [t', t], 0 below: one product adds up what is to go."""
    steps = torch.arange(size, dtype=torch.float64)
    return (rate ** (steps[:, None] - steps).clamp(min=0)).tril().to(dtype)


@lru_cache(maxsize=64)
def _held_weights(size: int, rate: float, dtype: torch.dtype) -> Tensor:
    """Return rate**t for t < size, the same tensor each time: nothing writes into it."""
    return rate ** torch.arange(size, dtype=dtype)


def discounted(value: Tensor, dim: int, rate: float) -> Tensor:
    """Weigh each element of an ordered plate by rate**t."""
    weights = discount_weights(value, value.shape[dim], rate)
    return value * weights[(..., *(None,) * (value.dim() - dim - 1))]


def discounted_sum(value: Tensor, rate: float) -> Tensor:
    """Return sum_t rate**t value[t] over the last dimension."""
    return value @ discount_weights(value, value.shape[-1], rate)


def undiscounted(value: Tensor, dim: int, size: int, rate: float) -> Tensor:
    """Divide by the rate**t of a node's own elements, 0 where that has vanished."""
    weights = discount_weights(value, size, rate)
    return value / divisor(weights[(..., *(None,) * (value.dim() - dim - 1))])


def to_go(value: Tensor, dim: int, rate: float) -> Tensor:
    """Return sum over t' >= t of rate**(t' - t) value[t'] along an ordered plate."""
    if rate == 1.0:
        return value.flip(dim).cumsum(dim).flip(dim)
    is_short = dim == value.dim() - 1 and value.shape[dim] <= SHORT
    if is_short and _can_hold(value) and is_seen_finite(value):
        return value @ _held_sums(value.shape[dim], rate, value.dtype)
    wide = discounted(value.to(torch.float64), dim, rate)
    summed = wide.flip(dim).cumsum(dim).flip(dim)
    return undiscounted(summed, dim, value.shape[dim], rate).to(value.dtype)


def paired(detached: Tensor, attached: Tensor) -> Tensor:
    """Return <sg a, b>, whose backward gives b the gradient a."""
    if not detached.dim() and not attached.dim():
        return detached * attached
    if detached.dtype != attached.dtype or detached.shape != attached.shape:
        return (detached * attached).sum()
    return torch.dot(detached.reshape(-1), attached.reshape(-1))


def descend(several: Sequence[tuple[Tensor, Tensor]], trained: Sequence[nn.Parameter]) -> Tensor:
    """Return <sg dL/dphi, phi> for L = sum <sg weights, tensor>, from pairs of a tensor and its weights.

    Its backward gives the control parameters phi the gradient of L, and nothing else.
    """
    learning = [(found, weights) for found, weights in several if found.requires_grad]
    if not learning:
        return several[0][1].new_zeros(())
    gradients = torch.autograd.grad(
        [found for found, _ in learning],
        trained,
        [weights for _, weights in learning],
        materialize_grads=True,
    )
    return add_all([*map(paired, gradients, trained)])


def first_order(surrogate: Tensor) -> Tensor:
    """Return what is right to first order, and raise where it is differentiated with ``create_graph``.

    Factors are detached, so a second derivative would silently lack terms.
    """
    if surrogate.requires_grad and not is_transformed():
        surrogate.register_hook(_refuse_second_order)
    return surrogate


def _refuse_second_order(gradient: Tensor) -> None:
    if torch.is_grad_enabled():
        raise EstimatorError(
            "the loss of a program compiled with order=1 was differentiated with create_graph=True: its "
            "score terms are right to first order only, as is what a biased estimator passes on. "
            "Differentiate it once, compile with order=2, or use reparam or enumerate"
        )


def add_all(terms: Sequence[Tensor]) -> Tensor:
    """Return the sum of tensors of one shape, in one operation where there are many."""
    return reduce(torch.add, terms) if len(terms) < 4 else torch.stack(list(terms)).sum(0)


def drawn_again(costs: Callable[[Tensor], Tensor], value: Tensor, times: int) -> Tensor:
    """Return the costs at a value so many times, what is below it drawn anew each time."""
    with torch.no_grad():
        return costs(value.detach().expand(times, *value.shape))


def expand_lead(value: Any, lead: Sequence[int | None]) -> Any:
    """Expand the leading dimensions given a size; None leaves one as it is."""
    shape = [-1 if size is None else size for size in lead]
    return pytree.tree_map_only(Tensor, lambda leaf: leaf.expand(*shape, *leaf.shape[len(shape) :]), value)


def indexed(value: Any, index: tuple[Any, ...]) -> Any:
    """Index every tensor of a value."""
    return pytree.tree_map_only(Tensor, lambda leaf: leaf[index], value)


def size_within(value: Any, dim: int) -> int:
    """Return the size of a dimension that every tensor of a value has."""
    return pytree.tensors(value)[0].shape[dim]


def beside(modules: Sequence[nn.Module], fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function that captures modules, and leave their buffers (running statistics) as they are."""
    with ExitStack() as stack:
        for module in modules:
            copies = {name: buffer.clone() for name, buffer in module.named_buffers()}
            stack.enter_context(holding(module, copies))
        return fn(*args, **kwargs)


def on_copied_buffers(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call a module, and leave its buffers (running statistics) as they are."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    return torch.func.functional_call(module, buffers, args, kwargs)


def output(value: Any, replicates: int | None = None) -> Any:
    """Detach every tensor of a value, and repeat those that do not depend on the replicate."""

    def leaf(tensor: Tensor) -> Tensor:
        detached = tensor.detach()
        return detached if replicates is None else detached.expand(replicates, *detached.shape)

    return pytree.tree_map_only(Tensor, leaf, value)


def named(name: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``fn`` under the name that it has in emitted code."""
    call: Any = partial(fn)
    call.__name__ = call.__qualname__ = "".join(c if c.isalnum() else "_" for c in name).strip("_")
    call.__module__ = "scg"
    return call  # type: ignore[no-any-return]


def unwrapped(names: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
    """Return what named functions wrap: once code is written, the name has done its work."""
    return {
        name: value.func
        for name, value in names.items()
        if isinstance(value, partial) and not value.args and not value.keywords
    }
