"""The oracle: exact objectives and gradients of small graphs, by enumeration and quadrature."""

from scg.oracle.exact import exact_gradient, exact_objective

__all__ = ["exact_gradient", "exact_objective"]
