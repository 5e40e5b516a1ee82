"""What a run returns: the loss to call backward on, and what was sampled on the way."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree


@dataclass(frozen=True, eq=False)
class Estimate:
    """One estimate of the objective and, through ``loss.backward()``, of its gradient.

    ``loss`` is a scalar whose value is the sampled objective. ``costs``, ``samples`` and ``kept`` are
    detached and unreduced, [*plates, ...] by node name, after a leading [K] where replicates were asked for.
    Where the graph has no cost, there is no loss.
    """

    loss: Tensor
    costs: dict[str, Tensor]
    samples: dict[str, Tensor]
    kept: dict[str, Any]


NAMES = tuple(field.name for field in fields(Estimate))


def _flatten(estimate: Estimate) -> tuple[list[Any], None]:
    return [getattr(estimate, name) for name in NAMES], None


def _unflatten(values: Any, context: None) -> Estimate:
    return Estimate(*values)


pytree.register_pytree_node(
    Estimate, _flatten, _unflatten, serialized_type_name="scg.program.estimate.Estimate"
)
