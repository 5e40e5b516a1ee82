"""Asks: what an estimator will find at a site besides value, credit and parameters, declared beforehand."""

from __future__ import annotations

from dataclasses import dataclass, fields
from fractions import Fraction

KINDS = ("base", "uniform", "normal")


@dataclass(frozen=True, repr=False)
class Asks:
    """A record of everything that a site will have; what was not asked for is not there.

    ``site`` tells whether there is a site at all: a score without a baseline reads none. ``fresh`` has a kind
    for each tensor of fresh noise: "base" like that of the node's law, "uniform" or "normal" in the shape of
    the value. ``standard`` asks for what is added to the location of a relaxable node. ``downstream`` and
    ``relaxed`` count the points at which the costs below are evaluated, hard and relaxed; ``branches`` the
    outcomes that everything below is evaluated at, and ``redraws`` how often all that is drawn below is drawn
    anew, at the value that the node has. ``points`` tells that its network reads values of the
    node, before the hard step if there is one, and ``context`` what else: None is nothing, () the node's
    parents. ``independent`` names the axis whose elements are compared; ``pairs`` tells that antithetic
    partners are then not compared with each other. ``terms`` asks for those of the one bound that the node
    reaches. Costs read its log-probability at ``detached`` parameters, if that is asked for. Where a value
    was drawn from another law, the credit of each element is weighed by the product of ratios, and so is the
    estimate, unless ``by_step`` asks for the credit as it is and the ratio of the element alone, which the
    estimator counts itself. Where it ``restarts``, a step of an ordered plate counts 1 and not its discount.
    What it learns is trained on the share ``train_on`` of the elements of a plate, the ``block``.
    """

    site: bool = True
    fresh: tuple[str, ...] = ()
    standard: bool = False
    downstream: int = 0
    relaxed: int = 0
    branches: int = 0
    redraws: int = 0
    points: bool = False
    context: tuple[str, ...] | None = None
    independent: str | None = None
    pairs: bool = False
    terms: bool = False
    detached: bool = False
    by_step: bool = False
    restarts: bool = False
    block: str | None = None
    train_on: Fraction = Fraction(1)

    def __repr__(self) -> str:
        """What is asked for.

        >>> Asks(fresh=("base",), relaxed=2)
        Asks(fresh=('base',), relaxed=2)
        """
        several = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        return f"Asks({', '.join(f'{name}={value!r}' for name, value, usual in several if value != usual)})"

    @property
    def evaluations(self) -> int:
        """How often the part of the graph below the node is evaluated, the sample included.

        >>> Asks(relaxed=2).evaluations
        3
        """
        return 1 + self.downstream + self.relaxed + self.branches + self.redraws
