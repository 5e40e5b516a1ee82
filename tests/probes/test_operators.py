"""Of all operators that torch lists, the probe finds smooth what is, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from scg.probes.smoothness import Smoothness, probe
from tests.selection import EVERYTHING

JUMPS = frozenset(
    """atan2 ceil div_trunc_rounding div_floor_rounding fmod remainder frac floor floor_divide frexp heaviside
    nn_functional_threshold max_pool2d_with_indices_backward round
    round_decimals_0 round_decimals_3 sign sgn __rmod__ trunc angle bernoulli histc
    nn_functional_rrelu""".split()
)
"""Of which values jump; those of ``rrelu`` since it draws numbers for negative elements alone."""

FACTORS = frozenset(
    """geqrf lu qr linalg_qr linalg_eigh linalg_lu linalg_lu_factor linalg_lu_factor_ex linalg_ldl_factor
    linalg_ldl_factor_ex svd_lowrank pca_lowrank""".split()
)
"""Whose results are unique but for signs or an order of rows, which jump."""

WITHOUT_DERIVATIVE = frozenset(
    """normal unique unique_consecutive histogram histogramdd linalg_ldl_solve special_airy_ai
    special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1 special_modified_bessel_i0
    special_modified_bessel_i1 special_modified_bessel_k0 special_modified_bessel_k1
    special_scaled_modified_bessel_k0 special_scaled_modified_bessel_k1 special_spherical_bessel_j0
    native_layer_norm native_batch_norm _native_batch_norm_legit _batch_norm_with_update""".split()
)
"""For some result torch has none, or silently 0, as for the statistics of normalisations."""

ASSUMES = frozenset(
    """nn_functional_ctc_loss linalg_eigvalsh linalg_pinv_hermitian as_strided_scatter
    nn_functional_max_unpool3d""".split()
)
"""Whose derivative holds for some arguments only: probabilities that add up to 1, symmetric matrices, places
that do not meet."""

UNSEEN = frozenset(
    """cauchy exponential geometric log_normal normal_in_place uniform cdist linspace_tensor_overload
    nn_functional_multi_margin_loss nn_functional_multilabel_margin_loss torch_ops_aten__safe_softmax_default
    igamma igammac nn_functional_hardshrink round_decimals_neg_3 __rpow__ index_fill to_sparse
    native_dropout_backward grid_sampler_3d nn_functional_pdist special_zeta
    masked_argmax masked_argmin""".split()
)
"""Of which the sample overwrites the tensor, or counts, or lies where nothing is defined, or where no point
that is tried is on the other side of a step."""

POLYNOMIALS = (
    "special_chebyshev",
    "special_hermite",
    "special_laguerre",
    "special_legendre",
    "special_shifted",
)


def expected(name: str) -> Smoothness:
    """What the tables above say."""
    if name in UNSEEN or name.startswith(POLYNOMIALS):
        return Smoothness.UNKNOWN
    broken = name in JUMPS | FACTORS | WITHOUT_DERIVATIVE | ASSUMES
    return Smoothness.BROKEN if broken else Smoothness.SMOOTH


def floats(value: Any) -> list[Tensor]:
    """The results that a gradient could flow from."""
    leaves = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
    return [leaf for leaf in leaves if leaf.is_floating_point() or leaf.is_complex()]


@pytest.mark.filterwarnings("ignore")
def test_operators_are_judged_as_the_tables_say(operators: Any) -> None:
    """All of them under HYPOTHESIS_PROFILE=fuzz; else every third, and those that the tables name."""
    wrong, seen, structural = [], set[str](), 0
    for index, operator in enumerate(operators.operators()):
        seen.add(operator.name)
        if not EVERYTHING and index % 3 and expected(operator.name) is Smoothness.SMOOTH:
            continue
        torch.manual_seed(0)
        verdict = probe(lambda at, call=operator: floats(call(at)), {"x": operator.point}, "x")
        structural += verdict.standing == "structural"
        if verdict.smoothness is not expected(operator.name):
            wrong.append((operator.name, verdict.smoothness.value, verdict.reason))
    assert wrong == []
    assert len(seen) > 500 and structural > (350 if EVERYTHING else 100)
    assert seen >= JUMPS | FACTORS | WITHOUT_DERIVATIVE | ASSUMES | UNSEEN  # the tables name what there is
