"""scg compiles stochastic computation graphs into torch programs with unbiased gradients."""

from scg.errors import (
    BiasedEstimatorError,
    CompileError,
    EstimatorError,
    GradientWarning,
    GraphError,
    NonFiniteError,
    PlateError,
    PolicyError,
    ScgError,
)
from scg.graph import Graph
from scg.nodes.handle import Node
from scg.oracle import exact_gradient, exact_objective
from scg.surrogate.estimate import Estimate
from scg.surrogate.estimators.base import Action, Estimator, NodeFacts, Slice
from scg.surrogate.estimators.enumerate import Enumerate
from scg.surrogate.estimators.lax import LAX
from scg.surrogate.estimators.rebar import REBAR
from scg.surrogate.estimators.relax import RELAX
from scg.surrogate.estimators.reparam import Reparam
from scg.surrogate.estimators.score import Score
from scg.surrogate.estimators.site import Relaxed, Site
from scg.surrogate.program import Program, compile

__version__ = "0.1.0"

__all__ = [
    "LAX",
    "REBAR",
    "RELAX",
    "Action",
    "BiasedEstimatorError",
    "CompileError",
    "Enumerate",
    "Estimate",
    "Estimator",
    "EstimatorError",
    "GradientWarning",
    "Graph",
    "GraphError",
    "Node",
    "NodeFacts",
    "NonFiniteError",
    "PlateError",
    "PolicyError",
    "Program",
    "Relaxed",
    "Reparam",
    "ScgError",
    "Score",
    "Site",
    "Slice",
    "compile",
    "exact_gradient",
    "exact_objective",
]
