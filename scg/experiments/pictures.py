"""Bands: the mean of several runs within two standard errors, in panels of pictures."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from scg.experiments.means import standard_error


def band(
    axes: Any,
    x: Tensor,
    values: Tensor,
    label: str,
    colour: str,
    *,
    width: float = 1.3,
    layer: int = 0,
    style: str = "-",
) -> None:
    """Draw the mean of values [points, seeds] over seeds within two standard errors."""
    mean = values.mean(1)
    mean = mean.where(mean.isfinite(), math.nan)
    error = 2 * standard_error(values)
    low, high = (mean - error).numpy(), (mean + error).numpy()
    axes.fill_between(x.numpy(), low, high, color=colour, alpha=0.2, lw=0, zorder=1)
    axes.plot(x.numpy(), mean.numpy(), color=colour, lw=width, ls=style, label=label, zorder=2 + layer / 100)
