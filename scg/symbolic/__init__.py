"""Graphs and programs in sympy: the objective, its gradient, the variance of an estimate, and LaTeX."""

from scg.algebra.twins import register
from scg.symbolic.closed import gradient, objective
from scg.symbolic.latex import latex
from scg.symbolic.variance import variance

__all__ = ["gradient", "latex", "objective", "register", "variance"]
