"""What policies came to: bounds at equal steps, evaluations and seconds, with paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scg.experiments.means import shown
from scg.markdown import table


@dataclass(frozen=True, eq=False)
class Curve:
    """What was measured under one policy.

    ``steps`` and ``seconds`` [point], ``bound`` [point, run], ``validation`` [run] and ``log_variance``
    [layer, run] at the parameters of the first policy, both None before the end. Runs are all seeds at the
    first rate, then at the next.
    """

    policy: str
    rates: tuple[float, ...]
    steps: Tensor
    seconds: Tensor
    bound: Tensor
    evaluations: int
    replicates: int
    unbiased: bool = True
    validation: Tensor | None = None
    log_variance: Tensor | None = None

    @property
    def label(self) -> str:
        """The policy, with a mark if it is biased."""
        return self.policy if self.unbiased else f"{self.policy}*"

    def of_rate(self, values: Tensor, rate: int) -> Tensor:
        """Return the values [..., run] of all seeds at one rate, [..., seed]."""
        found: Tensor = values.unflatten(-1, (len(self.rates), -1))[..., rate, :]
        return found

    @property
    def best(self) -> int:
        """Which rate has the highest bound at the end."""
        return int(self.bound[-1].unflatten(0, (len(self.rates), -1)).mean(1).argmax())

    def at(self, budget: float, by: Tensor, rate: int) -> Tensor:
        """Return the bound [seed] when so much was spent, between points where it was measured."""
        bound = self.of_rate(self.bound, rate)
        place = int(torch.searchsorted(by, budget).clamp(1, len(by) - 1)) if len(by) > 1 else 0
        if not place:
            return bound[-1]
        low, high = float(by[place - 1]), float(by[place])
        share = min(max((budget - low) / max(high - low, 1e-12), 0.0), 1.0)
        return bound[place - 1].lerp(bound[place], share)

    def spent(self) -> Tensor:
        """Return how often what is below nodes was evaluated until each point."""
        return self.steps.double() * self.evaluations


def results(curves: Sequence[Curve]) -> str:
    """Return the tables: of the best rate of each policy, and of all rates if there are several."""
    parts = [_steps(curves), _budgets(curves)]
    if len(curves[0].rates) > 1:
        parts.append(_rates(curves))
    if not all(curve.unbiased for curve in curves):
        parts.append("\\* biased")
    return "\n\n".join(parts)


def _steps(curves: Sequence[Curve]) -> str:
    """Return the table at equal steps, each policy at its best rate."""
    first, rows = curves[0], []
    layers = max(0 if c.log_variance is None else len(c.log_variance) for c in curves)
    for curve in curves:
        found = curve.of_rate(curve.bound, curve.best)[-1]
        valid, variance = curve.validation, curve.log_variance
        numbers = [] if variance is None else curve.of_rate(variance, curve.best).mean(1).tolist()
        rows.append(
            (
                curve.label,
                f"{curve.rates[curve.best]:g}",
                _mean(found),
                _difference(curve, first, found, first.of_rate(first.bound, first.best)[-1]),
                "" if valid is None else _mean(curve.of_rate(valid, curve.best)),
                *([f"{number:.2f}" for number in numbers] or [""] * layers),
                str(curve.evaluations),
                str(curve.replicates),
                f"{1e3 * float(curve.seconds[-1]) / max(int(curve.steps[-1]), 1):.1f}",
            )
        )
    named = [f"log-variance b{layer + 1}" for layer in range(layers)]
    bounds = (f"bound after {int(first.steps[-1])} steps", f"less {first.policy}", "validation")
    titles = ("policy", "rate", *bounds, *named, "evaluations", "replicates", "ms a step")
    return table(titles, "<" + ">" * (len(titles) - 1), rows)


def _budgets(curves: Sequence[Curve]) -> str:
    """Return the table at equal evaluations and seconds: as many as the policy with the fewest had."""
    most = min(float(curve.spent()[-1]) for curve in curves)
    longest = min(float(curve.seconds[-1]) for curve in curves)
    rows = []
    for curve in curves:
        cells = [curve.label]
        for budget, of in ((most, Curve.spent), (longest, _seconds)):
            found, other = (one.at(budget, of(one), one.best) for one in (curve, curves[0]))
            cells += [_mean(found), _difference(curve, curves[0], found, other)]
        rows.append(tuple(cells))
    less = f"less {curves[0].policy}"
    titles = ("policy", f"bound after {most:.0f} evaluations", less, f"after {longest:.1f} s", less)
    return table(titles, "<>>>>", rows)


def _rates(curves: Sequence[Curve]) -> str:
    """Return the bounds at the end at every rate."""
    rows = [(c.label, *(_mean(c.of_rate(c.bound, rate)[-1]) for rate in range(len(c.rates)))) for c in curves]
    rates = curves[0].rates
    return table(("bound at a rate of", *(f"{rate:g}" for rate in rates)), "<" + ">" * len(rates), rows)


def _seconds(curve: Curve) -> Tensor:
    return curve.seconds.double()


def _difference(curve: Curve, first: Curve, found: Tensor, other: Tensor) -> str:
    return "" if curve is first else _mean(found - other, "+")


def _mean(values: Tensor, sign: str = "") -> str:
    mean, error = shown(values, 3, sign=sign)
    return f"{mean} ± {error}" if error else mean
