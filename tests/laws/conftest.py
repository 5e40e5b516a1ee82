"""One example of the arguments of every torch class that has a law, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as td

from scg.laws import law_for


@dataclass(frozen=True)
class Example:
    """A class, its arguments, and the tolerance of torch's own formulas, which clamp probs."""

    cls: type[td.Distribution]
    arguments: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.cls.__name__}-{'-'.join(self.arguments)}"


def _of(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


LOC, SCALE = _of(-0.5, 0.2, 1.5), _of(0.5, 1.0, 2.0)
LOGITS, ROWS = _of(-1.0, 0.3, 2.0), _of(-0.7, 0.1, 0.9, 0.4, 0.0, -2.0).reshape(2, 3)
ROOT = torch.tensor([[1.0, 0.0, 0.0], [0.3, 0.8, 0.0], [-0.2, 0.5, 1.2]], dtype=torch.float64)
LAW_ARGUMENTS: list[tuple[type[td.Distribution], dict[str, Any]]] = [
    *((cls, {"logits": LOGITS}) for cls in (td.Bernoulli, td.ContinuousBernoulli, td.Geometric)),
    *((cls, {"probs": LOGITS.sigmoid()}) for cls in (td.Bernoulli, td.ContinuousBernoulli, td.Geometric)),
    *(
        (cls, arguments)
        for cls in (td.Categorical, td.OneHotCategorical, td.OneHotCategoricalStraightThrough)
        for arguments in ({"logits": ROWS}, {"probs": ROWS.exp()})
    ),
    (td.ContinuousBernoulli, {"logits": _of(1e-3, -5e-3, 8.0)}),
    (td.Binomial, {"total_count": 5, "logits": LOGITS}),
    (td.Binomial, {"total_count": 5, "probs": LOGITS.sigmoid()}),
    (td.Binomial, {"total_count": _of(2, 3, 9), "probs": LOGITS.sigmoid()}),
    (td.Poisson, {"rate": SCALE}),
    (td.NegativeBinomial, {"total_count": _of(2, 3, 4), "logits": LOGITS}),
    (td.NegativeBinomial, {"total_count": _of(2, 3, 4), "probs": LOGITS.sigmoid()}),
    (td.Multinomial, {"total_count": 4, "logits": ROWS}),
    (td.Multinomial, {"total_count": 4, "probs": ROWS.exp()}),
    *(
        (cls, {"loc": LOC, "scale": SCALE})
        for cls in (td.Normal, td.LogNormal, td.Laplace, td.Cauchy, td.Gumbel, td.LogisticNormal)
    ),
    (td.HalfNormal, {"scale": SCALE}),
    (td.HalfCauchy, {"scale": SCALE}),
    (td.MultivariateNormal, {"loc": LOC, "scale_tril": ROOT}),
    (td.MultivariateNormal, {"loc": LOC, "covariance_matrix": ROOT @ ROOT.T}),
    (td.MultivariateNormal, {"loc": LOC, "precision_matrix": ROOT @ ROOT.T}),
    (td.LowRankMultivariateNormal, {"loc": LOC, "cov_factor": ROOT[:, :2], "cov_diag": SCALE}),
    (td.Uniform, {"low": LOC, "high": LOC + SCALE}),
    (td.Exponential, {"rate": SCALE}),
    (td.Weibull, {"scale": SCALE, "concentration": _of(0.8, 1.5, 3.0)}),
    (td.Pareto, {"scale": SCALE, "alpha": _of(1.5, 2.5, 3.0)}),
    (td.Kumaraswamy, {"concentration1": _of(0.7, 1.5, 3.0), "concentration0": _of(1.2, 0.8, 2.0)}),
    (td.GeneralizedPareto, {"loc": LOC, "scale": SCALE, "concentration": _of(-0.3, 0.0, 0.4)}),
    (td.RelaxedBernoulli, {"temperature": _of(0.7), "logits": LOGITS}),
    (td.RelaxedBernoulli, {"temperature": _of(0.7), "probs": LOGITS.sigmoid()}),
    (td.relaxed_bernoulli.LogitRelaxedBernoulli, {"temperature": _of(0.7), "logits": LOGITS}),
    (td.RelaxedOneHotCategorical, {"temperature": _of(0.7), "logits": ROWS}),
    (td.RelaxedOneHotCategorical, {"temperature": _of(0.7), "probs": ROWS.exp()}),
    (td.Gamma, {"concentration": _of(0.6, 2.0, 9.0), "rate": SCALE}),
    (td.InverseGamma, {"concentration": _of(0.9, 2.0, 9.0), "rate": SCALE}),
    (td.Chi2, {"df": _of(1.0, 3.0, 8.0)}),
    (td.Beta, {"concentration1": _of(0.7, 2.0, 5.0), "concentration0": _of(1.5, 3.0, 0.8)}),
    (td.Dirichlet, {"concentration": _of(0.7, 2.0, 5.0)}),
    (td.StudentT, {"df": _of(2.5, 5.0, 30.0), "loc": LOC, "scale": SCALE}),
    (td.FisherSnedecor, {"df1": _of(3.0, 5.0, 8.0), "df2": _of(5.0, 6.0, 12.0)}),
    (td.VonMises, {"loc": LOC, "concentration": SCALE}),
    (td.Wishart, {"df": torch.tensor(4.0, dtype=torch.float64), "scale_tril": ROOT}),
    (td.LKJCholesky, {"dim": 3, "concentration": SCALE}),
]
EXAMPLES = [Example(cls, arguments) for cls, arguments in LAW_ARGUMENTS]
ADMITTED: dict[str, Callable[[Example], bool]] = {
    "example": lambda example: True,
    "explicit": lambda example: law_for(example.cls, example.arguments)[0].pathwise == "explicit",
    "pathwise": lambda example: law_for(example.cls, example.arguments)[0].pathwise is not None,
    "finite": lambda example: law_for(example.cls, example.arguments)[0].finite,
    # torch's own log_prob of the generalized Pareto compares float64 with float32; scipy is its reference.
    "referenced": lambda example: example.cls is not td.GeneralizedPareto,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes ``example`` once for each, or once for each that its fixture's name admits."""
    for name, admits in ADMITTED.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, [example for example in EXAMPLES if admits(example)], ids=str)


@pytest.fixture
def examples() -> list[Example]:
    """All of them."""
    return EXAMPLES
