"""Operations of torch: which are continuous with autograd's gradient, which step, and which only look."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

aten = torch.ops.aten

SHAPE_ONLY: Final = frozenset(
    {
        *(aten.empty_like, aten.zeros_like, aten.ones_like, aten.full_like),
        *(aten.rand_like, aten.randn_like, aten.randint_like),
        *(aten.new_empty, aten.new_zeros, aten.new_ones, aten.new_full, aten.new_empty_strided),
    }
)
# Whether a value is finite, or a factorisation succeeded, says where a function is defined: that it never
# changes is no fault, and what the function gives where it does is to be looked at.
DOMAIN_CHECKS: Final = frozenset(
    {aten.isnan, aten.isinf, aten.isposinf, aten.isneginf, aten._linalg_check_errors}
)
# The same, of operations that give a number in the place of one that is not defined.
DOMAIN_STEPS: Final[Mapping[Any, Callable[..., Tensor]]] = {
    **dict.fromkeys((aten.nan_to_num, aten.nan_to_num_), lambda a, *_: ~a.isfinite()),
    **dict.fromkeys((aten.nansum, aten.nanmedian), lambda a, *_: a.isnan()),
    **dict.fromkeys((aten.fmax, aten.fmin), lambda a, b: a.isnan() | b.isnan()),
}
STEPPED: Final = frozenset(
    """round floor ceil trunc fix sign sgn heaviside floor_divide bernoulli poisson binomial histc""".split()
)
# The discrete part of operations that jump without returning anything discrete.
HIDDEN_STEPS: Final[Mapping[Any, Callable[..., Tensor]]] = {
    aten.remainder: lambda a, b: torch.div(a, b, rounding_mode="floor"),
    aten.fmod: lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    aten.frac: lambda a: a.trunc(),
    aten.hardshrink: lambda a, limit=0.5: a.abs() > limit,
    aten.threshold: lambda a, limit, value: a > limit,
    aten.copysign: lambda a, b: torch.as_tensor(b).signbit(),
    aten.atan2: lambda a, b: (b < 0) & (a < 0),
    aten.angle: lambda a: (a.real < 0) & (a.imag < 0) if a.is_complex() else a < 0,
}

_MOVES = """alias as_strided cat chunk clone constant_pad_nd contiguous copy detach diag diag_embed diagonal
diagonal_scatter expand expand_as flip gather im2col col2im index index_add index_copy index_put index_select
lift_fresh masked_fill masked_scatter masked_select movedim narrow permute pixel_shuffle pixel_unshuffle
reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d
repeat reshape roll rot90 scatter scatter_add select select_scatter slice slice_scatter split
split_with_sizes squeeze stack t take to transpose tril triu unbind unfold _unsafe_view unsafe_split
unsafe_split_with_sizes unsqueeze view view_as_complex view_as_real where _to
_unsafe_index _unsafe_masked_index _reshape_alias as_strided_scatter channel_shuffle put block_diag embedding
_embedding_bag fill zero conj _conj _conj_physical _neg_view real imag complex new_empty_strided"""
_POINTWISE = """abs add addcdiv addcmul atan2 copysign clamp
clamp_max clamp_min cos cosh deg2rad div elu celu erf erfc exp
exp2 expm1 gelu glu hardsigmoid hardswish hardtanh huber_loss hypot i0 leaky_relu lerp log_sigmoid_forward
logaddexp logaddexp2 maximum minimum mish mse_loss mul neg positive prelu _prelu_kernel rad2deg relu relu6
rsub sigmoid silu sin sinc sinh smooth_l1_loss soft_margin_loss softplus softshrink square sub tan tanh fmax
fmin polar selu special_entr special_erfcx special_i0e special_i1
special_i1e special_log_ndtr special_ndtri special_xlog1py xlogy binary_cross_entropy
binary_cross_entropy_with_logits native_dropout digamma lgamma mvlgamma polygamma erfinv logit reciprocal"""
# Continuous for real arguments; complex ones meet a cut.
_CUT_IN_COMPLEX = """acos acosh asin asinh atan atanh log log10 log1p log2 pow rsqrt sqrt"""
_JOINING = """_adaptive_avg_pool2d _adaptive_avg_pool3d addbmm addmm addmv addr amax amin aminmax avg_pool1d
avg_pool2d avg_pool3d baddbmm bmm cholesky_inverse cholesky_solve convolution cudnn_convolution
mkldnn_convolution cummax cummin cumprod cumsum dot _fft_c2c _fft_c2r _fft_r2c kthvalue linalg_cholesky_ex
linalg_cross linalg_inv_ex linalg_matrix_exp linalg_solve_triangular _linalg_solve_ex _linalg_det
_log_softmax logcumsumexp logsumexp _safe_softmax _softmax max max_pool2d_with_indices adaptive_max_pool2d
max_pool3d_with_indices mean median min mm mv native_batch_norm _native_batch_norm_legit
_native_batch_norm_legit_no_training _batch_norm_with_update cudnn_batch_norm native_group_norm
native_layer_norm nll_loss_forward nll_loss2d_forward prod _fused_rms_norm _scaled_dot_product_attention_math
_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention
_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention scatter_reduce segment_reduce sort
std std_mean sum _thnn_fused_gru_cell _thnn_fused_lstm_cell _cudnn_rnn mkldnn_rnn_layer topk trace
_trilinear upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
upsample_nearest3d upsample_trilinear3d var var_mean vdot linalg_vector_norm norm _cdist_forward
_pdist_forward dist index_reduce linear mkldnn_linear"""
_REAL: Final = frozenset(_CUT_IN_COMPLEX.split())
_ANY: Final = frozenset(f"{_MOVES} {_POINTWISE} {_JOINING}".split())
_ORDERS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("linalg_vector_norm", "norm"), 1),
    **dict.fromkeys(("_cdist_forward", "dist"), 2),
    "_pdist_forward": 1,
}


def base_name(function: Any) -> str:
    """Return the name of an operation without the marks of its in-place and copying forms."""
    name: str = function.overloadpacket.__name__
    return name.rstrip("_").removesuffix("_copy") or name


def is_stepped(function: Any, kwargs: Mapping[str, Any]) -> bool:
    """Say whether an operation gives floating values that are constant but for jumps."""
    return base_name(function) in STEPPED or kwargs.get("rounding_mode") is not None


def is_smooth(function: Any, args: Sequence[Any]) -> bool:
    """Say whether an operation is continuous in every floating argument, wherever it is defined.

    What it selects by, integers and booleans, is looked at where that was computed.
    """
    name = base_name(function)
    if function.namespace != "aten":
        return False
    if name in _REAL:
        return not any(isinstance(a, Tensor) and a.is_complex() for a in args)
    order = _ORDERS.get(name)
    if order is not None and len(args) > order and args[order] == 0:
        return False  # the number of elements that are not 0
    return name in _ANY


def is_domain_check(function: Any, args: Sequence[Any]) -> bool:
    """Say whether an operation tells only where a function is defined."""
    packet = function.overloadpacket
    if packet in DOMAIN_CHECKS:
        return True
    if packet not in (aten.eq, aten.ne):
        return False
    return args[0] is args[1] or (isinstance(args[1], float) and math.isinf(args[1]))


def is_discrete(tensor: Tensor) -> bool:
    """Whether a tensor holds booleans or integers."""
    return not (tensor.is_floating_point() or tensor.is_complex())
