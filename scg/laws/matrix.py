"""The laws of matrices, and the circle: drawn as values, without a derivative."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributions as td

from scg.laws.elementary import Formulas
from scg.laws.law import Parameters


def _wishart_sample(p: Parameters) -> Tensor:
    """Bartlett's decomposition; torch's own warns of a singular draw at every regular one."""
    root = p["scale_tril"] if "scale_tril" in p else td.Wishart(**p, validate_args=False).scale_tril
    size = root.shape[-1]
    halves = (p["df"].unsqueeze(-1) - torch.arange(size, dtype=root.dtype, device=root.device)) / 2
    diagonal = (2 * torch._standard_gamma(halves)).sqrt()
    factor = root @ (torch.randn_like(root).tril(-1) + torch.diag_embed(diagonal))
    value: Tensor = factor @ factor.mT
    return value


VON_MISES = Formulas(td.VonMises)
WISHART = Formulas(
    td.Wishart,
    ranks=(("scale_tril", 2), ("covariance_matrix", 2), ("precision_matrix", 2)),
    value_rank=2,
    sample=_wishart_sample,
)
LKJ_CHOLESKY = Formulas(td.LKJCholesky, value_rank=2)
