"""Spelling: how calls of torch are written in Python."""

from __future__ import annotations

from types import MappingProxyType, ModuleType
from typing import Any

import torch
from torch.overrides import resolve_name

OPERATORS = MappingProxyType(
    {
        "add": "+", "__add__": "+", "__radd__": "+", "sub": "-", "__sub__": "-", "__rsub__": "-",
        "mul": "*", "__mul__": "*", "__rmul__": "*", "div": "/", "true_divide": "/", "__truediv__": "/",
        "__rtruediv__": "/", "__rdiv__": "/", "floor_divide": "//", "__floordiv__": "//",
        "__rfloordiv__": "//", "remainder": "%", "__mod__": "%", "__rmod__": "%", "pow": "**",
        "__pow__": "**", "__rpow__": "**", "matmul": "@", "__matmul__": "@", "__rmatmul__": "@",
        "gt": ">", "__gt__": ">", "lt": "<", "__lt__": "<", "ge": ">=", "__ge__": ">=", "le": "<=",
        "__le__": "<=", "eq": "==", "__eq__": "==", "ne": "!=", "__ne__": "!=", "__and__": "&",
        "__rand__": "&", "__or__": "|", "__ror__": "|", "__xor__": "^", "__rxor__": "^",
    }
)  # fmt: skip
SIGNS = MappingProxyType({"neg": "-", "negative": "-", "__neg__": "-", "__invert__": "~"})
METADATA = frozenset(
    "shape dtype device layout requires_grad is_leaf grad_fn grad ndim size dim numel nelement stride "
    "is_floating_point is_complex is_contiguous __len__ get_device is_sparse is_cuda is_cpu is_nested "
    "is_quantized is_meta names itemsize element_size ndimension type __hash__ _version is_inference "
    "_set_grad_enabled _is_view retains_grad output_nr data_ptr storage_offset is_signed is_conj is_neg "
    "result_type can_cast promote_types broadcast_shapes __repr__ __format__ is_tensor".split()
)
RANDOM = frozenset(
    "rand randn randint randperm rand_like randn_like randint_like bernoulli multinomial poisson normal "
    "binomial dropout feature_dropout alpha_dropout gumbel_softmax _standard_gamma _sample_dirichlet".split()
)
ROOMS: tuple[tuple[str, ModuleType], ...] = (
    ("torch", torch),
    ("F", torch.nn.functional),
    ("torch.linalg", torch.linalg),
    ("torch.special", torch.special),
    ("torch.fft", torch.fft),
    ("torch.autograd", torch.autograd),
    ("torch.func", torch.func),
)


def is_typed(func: Any) -> bool:
    """Say whether type checkers know what a function of torch gives."""
    name = "" if is_method(func) else public_name(func) or ""
    return not name.startswith(("torch.linalg.", "torch.special.", "torch.fft."))


def spelled(func: Any) -> str:
    """Return the last name of a function, method or property of torch."""
    name = getattr(func, "__name__", "")
    if name in ("__get__", "__set__"):
        owner = getattr(getattr(func, "__self__", None), "__name__", "")
        return f"{owner}.{name}" if name == "__set__" else owner
    return {"_threshold": "threshold"}.get(name, str(name))


def is_metadata(name: str) -> bool:
    """Say whether a call reads of a tensor what does not depend on its numbers."""
    return name in METADATA


def is_random(name: str) -> bool:
    """Say whether a call draws random numbers."""
    return name.rstrip("_") in RANDOM


def is_property(func: Any) -> bool:
    """Say whether a call reads a property of a tensor."""
    return getattr(func, "__name__", "") == "__get__"


def is_method(func: Any) -> bool:
    """Say whether a call is that of a method of a tensor."""
    return (resolve_name(func) or "").startswith("torch.Tensor.")


def public_name(func: Any) -> str | None:
    """Return the expression for a function of torch, or None where it has no public name.

    >>> from torch.nn.functional import softplus
    >>> public_name(torch.sigmoid), public_name(softplus), public_name(torch._sample_dirichlet)
    ('torch.sigmoid', 'F.softplus', None)
    """
    name = spelled(func)
    if name.startswith("_"):
        return "torch._assert_async" if func is torch._assert_async else None
    for room, module in ROOMS:
        held = getattr(module, name, None)
        if held is func:
            return f"{room}.{name}"
        bare = name.removeprefix(f"{room.rpartition('.')[2]}_")
        if bare != name and getattr(module, bare, None) is func:
            return f"{room}.{bare}"
    place, _, last = (resolve_name(func) or "").rpartition(".")
    return f"F.{last}" if place == "torch.nn.functional" and last[:1] != "_" else None
