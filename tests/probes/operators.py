"""torch's own list of its operators, as functions of one floating tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_utils import set_rng_seed
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Operator:
    """An operator with the arguments of its first sample, of which the first is free."""

    name: str
    call: Any
    point: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, at: dict[str, Tensor]) -> Any:
        x = at["x"]
        args, kwargs = pytree.tree_map_only(
            Tensor, lambda t: t.to(x.dtype) if t.is_floating_point() else t, (self.args, self.kwargs)
        )
        return self.call(x, *args, **kwargs)


def samples(op: Any) -> Iterator[Any]:
    """Yield torch's sample arguments, as ``op.sample_inputs`` would that looks for a test on the stack."""
    several = iter(op.sample_inputs_func(op, "cpu", torch.float64, requires_grad=False))
    done = object()
    set_rng_seed()
    while (sample := next(several, done)) is not done:
        yield sample
        set_rng_seed()


def operators() -> Iterator[Operator]:
    """Yield every operator that takes a floating tensor first and gives floating tensors."""
    for op in op_db:
        if torch.float64 not in op.dtypes or op.name in LEFT_OUT:
            continue
        name = op.formatted_name
        sample = next(samples(op), None)
        if sample is None or not isinstance(sample.input, Tensor) or sample.input.layout is not torch.strided:
            continue
        found = Operator(name, op, sample.input.detach(), tuple(sample.args), dict(sample.kwargs))
        if found.point.is_floating_point() and found.point.numel() and _gives_floats(found):
            yield found


def _gives_floats(operator: Operator) -> bool:
    try:
        leaves = pytree.tree_leaves(operator({"x": operator.point.clone()}))
    except Exception:  # noqa: BLE001 - one that this machine cannot run
        return False
    return any(isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in leaves)


LEFT_OUT = frozenset(
    {"resize_", "resize_as_", "empty_like", "new_empty", "new_empty_strided", "empty_strided"}
)
"""What has no value of its own, or changes its argument's size."""
