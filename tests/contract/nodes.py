"""One way to declare every distribution that an estimator may claim, from scalar pressures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution
from torch.nn.functional import softplus

import scg
from tests.contract.quadrature import (
    Cost,
    Domain,
    above,
    between,
    circle,
    counts,
    expectation,
    reals,
    wide_reals,
)

Arguments = Mapping[str, Tensor]
Marginal = Callable[[Arguments], tuple[Distribution, Domain]]


@dataclass(frozen=True)
class Maker:
    """How to declare a stochastic node whose parameters are functions of one pressure each.

    ``parameters`` maps an argument of ``dist`` to a function of a pressure [*plates] and the value that
    the pressure starts from. ``summary`` turns a value into one float for each event. ``marginal`` gives,
    for live arguments, the law and the domain of ``x`` where the summary is ``image(x)``; it is None
    where the oracle knows the answer.
    """

    name: str
    dist: Callable[..., Distribution]
    parameters: Mapping[str, tuple[Callable[[Tensor], Tensor], float]]
    constants: Mapping[str, Any] = field(default_factory=dict)
    summary: Callable[[Tensor], Tensor] = lambda value: value
    marginal: Marginal | None = None
    image: Cost = lambda x: x

    @property
    def is_exact(self) -> bool:
        """Whether gradients can be integrated through the base noise, cell by cell."""
        return self.marginal is None

    def declare(self, g: scg.Graph, name: str, *pressures: scg.Node, **options: Any) -> scg.Node:
        """Declare the node; one pressure drives every parameter, or each has its own."""
        several = pressures * len(self.parameters) if len(pressures) == 1 else pressures
        arguments = {
            key: g.det(f"{name}_{key}", fn, pressure)
            for (key, (fn, _)), pressure in zip(self.parameters.items(), several, strict=True)
        }
        return g.sample(name, self.dist, **arguments, **self.constants, **options)

    def expect(self, pressures: list[Tensor], cost: Cost) -> Tensor:
        """Return E cost(summary), attached to the pressures."""
        assert self.marginal is not None
        arguments = {k: fn(h) for (k, (fn, _)), h in zip(self.parameters.items(), pressures, strict=True)}
        law, domain = self.marginal(arguments)
        return expectation(law, domain, lambda x: cost(self.image(x)))


def same(h: Tensor) -> Tensor:
    return h


def positive(h: Tensor) -> Tensor:
    return 0.2 + softplus(h)


def above_one(h: Tensor) -> Tensor:
    return 1.2 + softplus(h)


def rows(h: Tensor) -> Tensor:
    return h[..., None] * h.new_tensor([1.0, -0.5, 0.2]) + h.new_tensor([0.0, 0.3, -0.4])


def pair(h: Tensor) -> Tensor:
    return h[..., None] * h.new_tensor([1.0, -0.5])


def single(h: Tensor) -> Tensor:
    return h[..., None]


def positive_single(h: Tensor) -> Tensor:
    return positive(h)[..., None]


def simplex(h: Tensor) -> Tensor:
    return torch.softmax(rows(h), -1)


def pair_probs(h: Tensor) -> Tensor:
    return torch.softmax(pair(h), -1)


def triple(h: Tensor) -> Tensor:
    return 1.2 + softplus(h[..., None] * h.new_tensor([5.0, -4.0, -3.0]))


def root(h: Tensor) -> Tensor:
    """A lower triangular matrix with a positive diagonal."""
    entries = torch.stack((0.5 + softplus(h), 0 * h, 0.4 * h, 0.7 + 0 * h), -1)
    return entries.unflatten(-1, (2, 2))


def gram(h: Tensor) -> Tensor:
    return root(h) @ root(h).mT


def column(h: Tensor) -> Tensor:
    return pair(h)[..., None]


def positive_pair(h: Tensor) -> Tensor:
    return positive(pair(h))


def entry(index: int) -> Callable[[Tensor], Tensor]:
    return lambda value: value[..., index]


def looked_up(value: Tensor) -> Tensor:
    numbers = torch.tensor([0.9, -0.7, 0.2], dtype=torch.get_default_dtype(), device=value.device)
    return torch.take(numbers, value.long())


def weighed(value: Tensor) -> Tensor:
    return (value * value.new_tensor([0.9, -0.7, 0.2])).sum(-1)


MIX = (0.8, -0.5)


def mixed(value: Tensor) -> Tensor:
    return (value * value.new_tensor(MIX)).sum(-1)


def independent_normal(loc: Tensor, scale: Tensor) -> Distribution:
    return td.Independent(td.Normal(pair(loc), scale[..., None]), 1)


def independent_bernoulli(logits: Tensor) -> Distribution:
    return td.Independent(td.Bernoulli(logits=pair(logits)), 1)


def squashed(loc: Tensor, scale: Tensor) -> Distribution:
    return td.TransformedDistribution(
        td.Normal(loc, scale), [td.AffineTransform(0.3, 2.0), td.SigmoidTransform()]
    )


def normal_mixture(logit: Tensor, loc: Tensor) -> Distribution:
    return td.MixtureSameFamily(td.Categorical(logits=pair(logit)), td.Normal(pair(loc), 0.6))


def bernoulli_mixture(logit: Tensor, odds: Tensor) -> Distribution:
    return td.MixtureSameFamily(td.Categorical(logits=pair(logit)), td.Bernoulli(logits=pair(odds)))


def direct(dist: Callable[..., Distribution], domain: Domain, **constants: Any) -> Marginal:
    """The summary is the value, and its law the distribution itself."""
    return lambda arguments: (dist(**arguments, **constants), domain)


def correlated(
    arguments: Arguments, covariance: Callable[[Arguments], Tensor]
) -> tuple[Distribution, Domain]:
    """The law of a weighted sum of the entries of a multivariate normal."""
    loc, weights = arguments["loc"], arguments["loc"].new_tensor(MIX)
    return td.Normal(loc @ weights, (weights @ covariance(arguments) @ weights).sqrt()), reals


def positive_law(name: str, dist: type[Distribution], **parameters: Any) -> Maker:
    return Maker(name, dist, parameters, marginal=direct(dist, above()))


def real_law(name: str, dist: type[Distribution], **parameters: Any) -> Maker:
    domain = wide_reals if dist in (td.Cauchy, td.StudentT) else reals
    return Maker(name, dist, parameters, marginal=direct(dist, domain))


LOC, SCALE = (same, 0.4), (positive, 0.3)
ODDS, CHANCE = (same, 0.4), (torch.sigmoid, 0.4)

FINITE = [
    Maker("bernoulli-logits", td.Bernoulli, {"logits": ODDS}),
    Maker("bernoulli-probs", td.Bernoulli, {"probs": CHANCE}),
    Maker("binomial-logits", td.Binomial, {"logits": ODDS}, {"total_count": 2}),
    Maker("binomial-probs", td.Binomial, {"probs": CHANCE}, {"total_count": 2}),
    Maker("categorical-logits", td.Categorical, {"logits": (rows, 0.4)}, summary=looked_up),
    Maker("categorical-probs", td.Categorical, {"probs": (simplex, 0.4)}, summary=looked_up),
    Maker("onehot-logits", td.OneHotCategorical, {"logits": (rows, 0.4)}, summary=weighed),
    Maker("onehot-probs", td.OneHotCategorical, {"probs": (simplex, 0.4)}, summary=weighed),
    Maker("onehot-st-logits", td.OneHotCategoricalStraightThrough, {"logits": (rows, 0.4)}, summary=weighed),
    Maker("independent-bernoulli", independent_bernoulli, {"logits": ODDS}, summary=mixed),
]

COUNTS = [
    Maker("geometric-logits", td.Geometric, {"logits": ODDS}, marginal=direct(td.Geometric, counts())),
    Maker("geometric-probs", td.Geometric, {"probs": CHANCE}, marginal=direct(td.Geometric, counts())),
    Maker("poisson", td.Poisson, {"rate": SCALE}, marginal=direct(td.Poisson, counts(100))),
    Maker(
        "binomial-counted",
        td.Binomial,
        {"logits": ODDS},
        {"total_count": torch.tensor(3.0, dtype=torch.float64)},
        marginal=direct(td.Binomial, counts(3), total_count=3),
    ),
    Maker(
        "negative-binomial-logits",
        td.NegativeBinomial,
        {"total_count": (above_one, 0.3), "logits": (same, -0.6)},
        marginal=direct(td.NegativeBinomial, counts(300)),
    ),
    Maker(
        "negative-binomial-probs",
        td.NegativeBinomial,
        {"total_count": (above_one, 0.3), "probs": (torch.sigmoid, -0.6)},
        marginal=direct(td.NegativeBinomial, counts(300)),
    ),
    Maker(
        "multinomial-logits",
        td.Multinomial,
        {"logits": (rows, 0.4)},
        {"total_count": 2},
        summary=entry(0),
        marginal=lambda a: (td.Binomial(2, torch.softmax(a["logits"], -1)[0]), counts(2)),
    ),
    Maker(
        "multinomial-probs",
        td.Multinomial,
        {"probs": (simplex, 0.4)},
        {"total_count": 2},
        summary=entry(0),
        marginal=lambda a: (td.Binomial(2, a["probs"][0]), counts(2)),
    ),
    Maker(
        "mixture-bernoulli",
        bernoulli_mixture,
        {"logit": (same, 0.4), "odds": (same, 0.9)},
        marginal=direct(bernoulli_mixture, counts(1)),
    ),
]

REALS = [
    Maker("normal", td.Normal, {"loc": LOC, "scale": SCALE}),
    real_law("laplace", td.Laplace, loc=LOC, scale=SCALE),
    real_law("cauchy", td.Cauchy, loc=LOC, scale=SCALE),
    real_law("gumbel", td.Gumbel, loc=LOC, scale=SCALE),
    real_law("student-t", td.StudentT, df=(above_one, 1.0), loc=LOC, scale=SCALE),
    real_law("mixture-normal", normal_mixture, logit=(same, 0.4), loc=(same, 0.9)),  # type: ignore[arg-type]
    Maker(
        "von-mises",
        td.VonMises,
        {"loc": (same, 0.4), "concentration": (positive, 0.8)},
        summary=torch.sin,
        marginal=direct(td.VonMises, circle),
        image=torch.sin,
    ),
    Maker(
        "logit-relaxed-bernoulli",
        td.relaxed_bernoulli.LogitRelaxedBernoulli,
        {"temperature": SCALE, "logits": ODDS},
        marginal=direct(td.relaxed_bernoulli.LogitRelaxedBernoulli, reals),
    ),
]

POSITIVE = [
    positive_law("log-normal", td.LogNormal, loc=LOC, scale=SCALE),
    positive_law("half-normal", td.HalfNormal, scale=SCALE),
    positive_law("half-cauchy", td.HalfCauchy, scale=SCALE),
    positive_law("exponential", td.Exponential, rate=SCALE),
    positive_law("weibull", td.Weibull, scale=SCALE, concentration=(above_one, 0.2)),
    positive_law("gamma", td.Gamma, concentration=(above_one, 0.2), rate=SCALE),
    positive_law("gamma-small", td.Gamma, concentration=(positive, -0.5), rate=SCALE),
    positive_law("inverse-gamma", td.InverseGamma, concentration=(above_one, 0.2), rate=SCALE),
    positive_law("chi2", td.Chi2, df=(above_one, 0.9)),
    positive_law("fisher-snedecor", td.FisherSnedecor, df1=(above_one, 1.5), df2=(above_one, 2.0)),
    Maker(
        "pareto",
        td.Pareto,
        {"scale": SCALE, "alpha": (above_one, 0.2)},
        marginal=lambda a: (td.Pareto(**a), above(a["scale"])),
    ),
    Maker(
        "generalized-pareto",
        td.GeneralizedPareto,
        {"loc": LOC, "scale": SCALE, "concentration": (positive, -1.0)},
        marginal=lambda a: (td.GeneralizedPareto(**a), above(a["loc"])),
    ),
]

UNIT = between(0.0, 1.0)


def logit_law(arguments: Arguments) -> tuple[Distribution, Domain]:
    """The law of the logit of a relaxed Bernoulli."""
    return td.relaxed_bernoulli.LogitRelaxedBernoulli(**arguments), reals


def difference_law(arguments: Arguments) -> tuple[Distribution, Domain]:
    """The law of the logit of the first of two relaxed one-hot entries."""
    logits = arguments["logits"] if "logits" in arguments else arguments["probs"].log()
    odds, temperature = logits[0] - logits[1], arguments["temperature"]
    return td.relaxed_bernoulli.LogitRelaxedBernoulli(temperature, logits=odds), reals


BOUNDED = [
    Maker(
        "uniform-fixed",
        td.Uniform,
        {},
        {"low": 0.0, "high": 1.0},
        marginal=direct(td.Uniform, UNIT, low=0.0, high=1.0),
    ),
    Maker(
        "uniform-moving",
        td.Uniform,
        {"low": (lambda h: h - 1.0, 0.2), "high": (lambda h: h + 1.0, 0.5)},
        marginal=lambda a: (td.Uniform(**a, validate_args=False), between(a["low"], a["high"])),
    ),
    Maker(
        "continuous-bernoulli-logits",
        td.ContinuousBernoulli,
        {"logits": (same, 0.9)},
        marginal=direct(td.ContinuousBernoulli, UNIT),
    ),
    Maker(
        "continuous-bernoulli-probs",
        td.ContinuousBernoulli,
        {"probs": (torch.sigmoid, 0.9)},
        marginal=direct(td.ContinuousBernoulli, UNIT),
    ),
    Maker(
        "kumaraswamy",
        td.Kumaraswamy,
        {"concentration1": (above_one, 0.2), "concentration0": (above_one, 0.4)},
        marginal=direct(td.Kumaraswamy, UNIT),
    ),
    Maker(
        "beta",
        td.Beta,
        {"concentration1": (above_one, 0.2), "concentration0": (above_one, 0.4)},
        marginal=direct(td.Beta, UNIT),
    ),
    Maker(
        "relaxed-bernoulli-logits",
        td.RelaxedBernoulli,
        {"temperature": SCALE, "logits": ODDS},
        marginal=logit_law,
        image=torch.sigmoid,
    ),
    Maker(
        "relaxed-bernoulli-probs",
        td.RelaxedBernoulli,
        {"temperature": SCALE, "probs": CHANCE},
        marginal=logit_law,
        image=torch.sigmoid,
    ),
    Maker(
        "squashed-normal",
        squashed,
        {"loc": LOC, "scale": SCALE},
        marginal=direct(td.Normal, reals),
        image=lambda x: torch.sigmoid(0.3 + 2.0 * x),
    ),
]

VECTORS = [
    Maker(
        "logistic-normal",
        td.LogisticNormal,
        {"loc": (single, 0.4), "scale": (positive_single, 0.3)},
        summary=entry(0),
        marginal=lambda a: (td.Normal(a["loc"][0], a["scale"][0]), reals),
        image=torch.sigmoid,
    ),
    *(
        Maker(
            f"multivariate-normal-{key.split('_')[0]}",
            td.MultivariateNormal,
            {"loc": (pair, 0.4), key: (fn, 0.3)},
            summary=mixed,
            marginal=lambda a, covariance=covariance: correlated(a, covariance),  # type: ignore[misc]
        )
        for key, fn, covariance in (
            ("scale_tril", root, lambda a: a["scale_tril"] @ a["scale_tril"].mT),
            ("covariance_matrix", gram, lambda a: a["covariance_matrix"]),
            ("precision_matrix", gram, lambda a: torch.linalg.inv(a["precision_matrix"])),
        )
    ),
    Maker(
        "low-rank-normal",
        td.LowRankMultivariateNormal,
        {"loc": (pair, 0.4), "cov_factor": (column, 0.6), "cov_diag": (positive_pair, 0.3)},
        summary=mixed,
        marginal=lambda a: correlated(
            a, lambda a: a["cov_factor"] @ a["cov_factor"].mT + a["cov_diag"].diag()
        ),
    ),
    Maker(
        "independent-normal",
        independent_normal,
        {"loc": LOC, "scale": SCALE},
        summary=mixed,
        marginal=lambda a: (
            td.Normal(pair(a["loc"]) @ a["loc"].new_tensor(MIX), a["scale"] * sum(w * w for w in MIX) ** 0.5),
            reals,
        ),
    ),
    Maker(
        "dirichlet",
        td.Dirichlet,
        {"concentration": (triple, 0.4)},
        summary=entry(0),
        marginal=lambda a: (td.Beta(a["concentration"][0], a["concentration"][1:].sum()), UNIT),
    ),
    Maker(
        "relaxed-onehot-logits",
        td.RelaxedOneHotCategorical,
        {"temperature": (positive_single, 0.3), "logits": (pair, 0.4)},
        summary=entry(0),
        marginal=difference_law,
        image=torch.sigmoid,
    ),
    Maker(
        "relaxed-onehot-probs",
        td.RelaxedOneHotCategorical,
        {"temperature": (positive_single, 0.3), "probs": (pair_probs, 0.4)},
        summary=entry(0),
        marginal=difference_law,
        image=torch.sigmoid,
    ),
    Maker(
        "wishart",
        td.Wishart,
        {"df": (lambda h: 2.0 + softplus(h), 0.3), "scale_tril": (root, 0.3)},
        summary=lambda value: 0.2 * value[..., 0, 0],
        marginal=lambda a: (td.Gamma(a["df"] / 2, 0.5 / a["scale_tril"][0, 0] ** 2), above()),
        image=lambda x: 0.2 * x,
    ),
    Maker(
        "lkj-cholesky",
        td.LKJCholesky,
        {"concentration": (above_one, 0.2)},
        {"dim": 2},
        summary=lambda value: value[..., 1, 0] ** 2,
        marginal=lambda a: (td.Beta(a["concentration"], a["concentration"]), UNIT),
        image=lambda x: (2 * x - 1) ** 2,
    ),
]

MAKERS = {maker.name: maker for maker in (*FINITE, *COUNTS, *REALS, *POSITIVE, *BOUNDED, *VECTORS)}
