"""Uniformity: whether a function treats all elements of a plate alike, however many there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

SIZED = frozenset(
    {"view", "_unsafe_view", "reshape", "expand", "zeros", "ones", "full", "new_zeros", "new_ones"}
)
"""Operations that may be told the size of a plate, as what they give is the same for all of its elements."""

PLAIN = SIZED | frozenset(
    """_log_softmax _native_batch_norm_legit_no_training _softmax _to_copy _unsafe_index addmm addmv alias
    amax amin avg_pool2d baddbmm binary_cross_entropy binary_cross_entropy_with_logits bmm cat clone
    constant_pad_nd convolution detach dot embedding empty_like full_like gather index index_select
    lift_fresh linalg_vector_norm logsumexp max max_pool2d_with_indices mean min mkldnn_convolution mm mv
    native_group_norm native_layer_norm ones_like permute prod scalar_tensor select slice split
    split_with_sizes squeeze stack std sum t transpose unbind unsqueeze var zeros_like""".split()
)
"""Operations besides pointwise ones that cannot tell apart elements that are alike, nor count them unseen."""

OTHER = 7


def is_uniform(fn: Callable[..., Any], given: Callable[[int], Sequence[Any]], size: int) -> bool:
    """Say whether ``fn(*given(n))`` is the same list of operations for every number n of elements.

    It is read off at n = 1, at the ``size`` of an example and at another. What a function does with a number
    of elements, as to slice a tensor by it or to count up to it, differs between them even where no value
    does; operations that are not listed are not trusted.
    """
    once, *others = (_operations(fn, given(count)) for count in (1, size, OTHER))
    return once is not None and all(found == once for found in others)


def _operations(fn: Callable[..., Any], values: Sequence[Any]) -> list[Any] | None:
    """Return the operations of a call, or None where it fails or has one that is not trusted."""
    recorder = Recorder()
    try:
        with torch.random.fork_rng(), torch.no_grad(), recorder:
            fn(*values)
    except Exception:  # noqa: BLE001 - of an arbitrary function
        return None
    return recorder.found if recorder.is_trusted else None


class Recorder(TorchDispatchMode):
    """Records what operations are called and with what, tensors by their rank."""

    def __init__(self) -> None:
        """Start with nothing."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Any] = []
        self.is_trusted = True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Note one operation, and run it."""
        name = func._schema.name.removeprefix("aten::").rstrip("_")
        is_random = torch.Tag.nondeterministic_seeded in func.tags
        self.is_trusted &= name in PLAIN or (torch.Tag.pointwise in func.tags and not is_random)
        told = tuple(len(a) if name in SIZED and isinstance(a, (list, tuple)) else a for a in args)
        self.found.append((func, pytree.tree_map_only(Tensor, Tensor.dim, (told, kwargs or {}))))
        return func(*args, **(kwargs or {}))
