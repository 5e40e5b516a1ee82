"""Functions whose smoothness is known, so that it need not be probed."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
import torch.nn.functional as F


def _both(names: Iterable[str]) -> frozenset[Callable[..., Any]]:
    """The torch functions and the Tensor methods of these names, whichever exist."""
    found = [getattr(owner, name, None) for name in names for owner in (torch, torch.Tensor)]
    return frozenset(function for function in found if function is not None)


_ARITHMETIC = frozenset(
    {operator.add, operator.sub, operator.mul, operator.truediv, operator.neg, operator.pos}
)
_POINTWISE = _both(
    """add sub subtract mul multiply neg negative positive abs absolute square exp exp2 expm1 log log1p
    log2 log10 sqrt rsqrt reciprocal sigmoid logit tanh sin cos tan asin acos atan sinh cosh asinh acosh
    erf erfc erfinv lgamma digamma relu clamp clip clamp_min clamp_max maximum minimum fmax fmin
    lerp addcmul logaddexp logaddexp2 hypot""".split()
)
_ACTIVATIONS = frozenset(
    {
        *(
            F.relu,
            F.relu6,
            F.leaky_relu,
            F.elu,
            F.selu,
            F.celu,
            F.gelu,
            F.silu,
            F.mish,
            F.softplus,
            F.softsign,
        ),
        *(
            F.logsigmoid,
            F.tanhshrink,
            F.softshrink,
            F.hardtanh,
            F.hardsigmoid,
            F.hardswish,
            F.sigmoid,
            F.tanh,
        ),
    }
)
_REDUCTIONS = _both("""mean logsumexp amax amin matmul mm bmm mv dot outer""".split())

# Of one value at each place, and not smooth in it everywhere.
_PIECEWISE = _both("""pow atan2 sign round floor ceil trunc frac where isnan isfinite""".split()) | {
    *(operator.pow, operator.mod, operator.floordiv),
    *(operator.gt, operator.ge, operator.lt, operator.le, operator.eq, operator.ne),
    *(operator.and_, operator.or_, operator.xor, operator.invert, operator.abs),
    *(torch.Tensor.float, torch.Tensor.double, torch.Tensor.long, torch.Tensor.int, torch.Tensor.bool),
    *(torch.Tensor.detach,),
}
_SMOOTH_POINTWISE = _ARITHMETIC | _POINTWISE | _ACTIVATIONS

# Every output element depends on the elements at its own place only, up to broadcasting.
ELEMENTWISE: Final = _SMOOTH_POINTWISE | _PIECEWISE

# Continuous in every floating tensor argument, wherever they are defined, with autograd's gradient.
KNOWN_SMOOTH: Final = _SMOOTH_POINTWISE | {operator.abs} | _REDUCTIONS | {operator.matmul}

# With every derivative, wherever they are defined.
KNOWN_ANALYTIC: Final = (
    _ARITHMETIC
    | {F.gelu, F.silu, F.mish, F.softplus, F.logsigmoid, F.tanhshrink, F.sigmoid, F.tanh, operator.matmul}
    | _both(
        """add sub subtract mul multiply neg negative positive square exp exp2 expm1 log log1p log2 log10
        sqrt rsqrt reciprocal sigmoid logit tanh sin cos tan asin acos atan sinh cosh asinh acosh erf erfc
        erfinv lgamma digamma lerp addcmul logaddexp logaddexp2 mean sum logsumexp matmul mm bmm mv dot
        outer""".split()
    )
)

# Of no use to a derivative: piecewise constant, discrete, jumping, or cut off from autograd.
KNOWN_BROKEN: Final = frozenset(
    {
        *(operator.gt, operator.ge, operator.lt, operator.le, operator.eq, operator.ne),
        *(
            operator.floordiv,
            operator.mod,
            F.one_hot,
            torch.Tensor.detach,
            torch.Tensor.item,
            torch.Tensor.tolist,
        ),
        *(torch.Tensor.numpy, torch.Tensor.bool, torch.Tensor.int, torch.Tensor.long, torch.Tensor.short),
    }
) | _both(
    """sign sgn round floor ceil trunc fix frac remainder fmod floor_divide argmax argmin argsort gt ge lt
    le eq ne greater greater_equal less less_equal not_equal signbit count_nonzero nonzero bucketize
    searchsorted bernoulli multinomial poisson histc logical_not logical_and logical_or logical_xor""".split()
)
