"""The torch classes that have laws of their own, with the names of their arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import distributions as td
from torch.distributions import Distribution

from scg.laws import count, implicit, matrix, normal, relaxed, uniform
from scg.laws.bernoulli import Bernoulli
from scg.laws.categorical import Categorical
from scg.laws.count import Binomial
from scg.laws.elementary import Elementary, Formulas
from scg.laws.law import Law

PROBS = ("probs", "logits")
MATRICES = ("scale_tril", "covariance_matrix", "precision_matrix")


@dataclass(frozen=True)
class Entry:
    """Arguments of one class: ``common`` ones, exactly one of ``either``, and ``static`` ones.

    ``counted`` is the law where the number of trials, else static, is a tensor.
    """

    law: Formulas | Callable[..., Law]
    common: tuple[str, ...] = ()
    either: tuple[str, ...] = ()
    static: tuple[str, ...] = ()

    counted: Formulas | None = None

    def make(self, names: tuple[str, ...], static: Mapping[str, Any]) -> Law:
        """The law whose tensor parameters are ``names``; the number of trials may be one of them."""
        if self.counted is not None and "total_count" in names:
            return Elementary(self.counted, names)
        if isinstance(self.law, Formulas):
            return Elementary(self.law, names, tuple(sorted(static.items())))
        return self.law(names[0], **static)


LOC_SCALE = ("loc", "scale")

LAWS: Mapping[type[Distribution], Entry] = {
    td.Bernoulli: Entry(Bernoulli, either=PROBS),
    td.Categorical: Entry(Categorical, either=PROBS),
    td.OneHotCategorical: Entry(partial(Categorical, one_hot=True), either=PROBS),
    td.OneHotCategoricalStraightThrough: Entry(partial(Categorical, one_hot=True), either=PROBS),
    td.Binomial: Entry(Binomial, either=PROBS, static=("total_count",), counted=count.COUNTED_BINOMIAL),
    td.Geometric: Entry(count.GEOMETRIC, either=PROBS),
    td.Poisson: Entry(count.POISSON, ("rate",)),
    td.NegativeBinomial: Entry(count.NEGATIVE_BINOMIAL, ("total_count",), PROBS),
    td.Multinomial: Entry(
        count.MULTINOMIAL, either=PROBS, static=("total_count",), counted=count.COUNTED_MULTINOMIAL
    ),
    td.Normal: Entry(normal.NORMAL, LOC_SCALE),
    td.LogNormal: Entry(normal.LOG_NORMAL, LOC_SCALE),
    td.HalfNormal: Entry(normal.HALF_NORMAL, ("scale",)),
    td.LogisticNormal: Entry(normal.LOGISTIC_NORMAL, LOC_SCALE),
    td.MultivariateNormal: Entry(normal.MULTIVARIATE_NORMAL, ("loc",), MATRICES),
    td.LowRankMultivariateNormal: Entry(
        normal.LOW_RANK_MULTIVARIATE_NORMAL, ("loc", "cov_factor", "cov_diag")
    ),
    td.Uniform: Entry(uniform.UNIFORM, ("low", "high")),
    td.Exponential: Entry(uniform.EXPONENTIAL, ("rate",)),
    td.Laplace: Entry(uniform.LAPLACE, LOC_SCALE),
    td.Cauchy: Entry(uniform.CAUCHY, LOC_SCALE),
    td.HalfCauchy: Entry(uniform.HALF_CAUCHY, ("scale",)),
    td.Gumbel: Entry(uniform.GUMBEL, LOC_SCALE),
    td.Weibull: Entry(uniform.WEIBULL, ("scale", "concentration")),
    td.Pareto: Entry(uniform.PARETO, ("scale", "alpha")),
    td.Kumaraswamy: Entry(uniform.KUMARASWAMY, ("concentration1", "concentration0")),
    td.GeneralizedPareto: Entry(uniform.GENERALIZED_PARETO, ("loc", "scale", "concentration")),
    td.ContinuousBernoulli: Entry(relaxed.CONTINUOUS_BERNOULLI, either=PROBS, static=("lims",)),
    td.RelaxedBernoulli: Entry(relaxed.RELAXED_BERNOULLI, ("temperature",), PROBS),
    td.relaxed_bernoulli.LogitRelaxedBernoulli: Entry(
        relaxed.LOGIT_RELAXED_BERNOULLI, ("temperature",), PROBS
    ),
    td.RelaxedOneHotCategorical: Entry(relaxed.RELAXED_ONE_HOT_CATEGORICAL, ("temperature",), PROBS),
    td.Gamma: Entry(implicit.GAMMA, ("concentration", "rate")),
    td.InverseGamma: Entry(implicit.INVERSE_GAMMA, ("concentration", "rate")),
    td.Chi2: Entry(implicit.CHI2, ("df",)),
    td.Beta: Entry(implicit.BETA, ("concentration1", "concentration0")),
    td.Dirichlet: Entry(implicit.DIRICHLET, ("concentration",)),
    td.StudentT: Entry(implicit.STUDENT_T, ("df", "loc", "scale")),
    td.FisherSnedecor: Entry(implicit.FISHER_SNEDECOR, ("df1", "df2")),
    td.VonMises: Entry(matrix.VON_MISES, ("loc", "concentration")),
    td.Wishart: Entry(matrix.WISHART, ("df",), MATRICES),
    td.LKJCholesky: Entry(matrix.LKJ_CHOLESKY, ("concentration",), static=("dim",)),
}
