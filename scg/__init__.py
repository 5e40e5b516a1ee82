"""scg compiles stochastic computation graphs into torch programs with unbiased gradients."""

from scg import rl, runs, symbolic
from scg.choosing.parts import Parts
from scg.comparison.compare import compare
from scg.comparison.comparison import Comparison
from scg.errors import (
    BiasedEstimatorError,
    CompileError,
    EstimatorError,
    EvaluationWarning,
    ExportError,
    GradientWarning,
    GraphError,
    NonFiniteError,
    PlateError,
    PolicyError,
    RunError,
    ScgError,
    UnreadableError,
)
from scg.estimators.arm import ARM
from scg.estimators.concrete import Concrete
from scg.estimators.coupled import Coupled
from scg.estimators.critic import Critic
from scg.estimators.double_cv import DoubleCV
from scg.estimators.dreg import DReG
from scg.estimators.enumerate import Enumerate
from scg.estimators.finite_difference import FiniteDifference
from scg.estimators.gumbel_rao import GumbelRao
from scg.estimators.lax import LAX
from scg.estimators.local import Local
from scg.estimators.measure_valued import MeasureValued
from scg.estimators.muprop import MuProp
from scg.estimators.nvil import NVIL
from scg.estimators.parts.baselines import Baseline, LeaveOneOut, MovingAverage, Net, SelfCritical
from scg.estimators.parts.critics import GAE, NStep
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import Axis, NodeFacts, Refusal, Slice
from scg.estimators.protocol.kinds import Branched, Branches, Cut, Estimator, Scored, Through
from scg.estimators.protocol.site import Relaxed, Site
from scg.estimators.quadratic import Quadratic
from scg.estimators.rebar import REBAR
from scg.estimators.registry import names as estimator_names
from scg.estimators.reinmax import ReinMax
from scg.estimators.relax import RELAX
from scg.estimators.reparam import Reparam
from scg.estimators.score import Score
from scg.estimators.straight_through import StraightThrough
from scg.estimators.sum_and_sample import SumAndSample
from scg.estimators.unordered_set import UnorderedSet
from scg.estimators.vimco import VIMCO
from scg.graph import Graph
from scg.nodes.handle import Node
from scg.oracle import exact_gradient, exact_objective
from scg.program.estimate import Estimate
from scg.program.program import Program, compile
from scg.proving.proof import Counterexample, Proof, Step
from scg.proving.prove import prove
from scg.verification.verdict import Verification
from scg.verification.verify import verify

__version__ = "0.1.0"

__all__ = [
    "ARM",
    "GAE",
    "LAX",
    "NVIL",
    "REBAR",
    "RELAX",
    "VIMCO",
    "Asks",
    "Axis",
    "Baseline",
    "BiasedEstimatorError",
    "Branched",
    "Branches",
    "Comparison",
    "CompileError",
    "Concrete",
    "Counterexample",
    "Coupled",
    "Critic",
    "Cut",
    "DReG",
    "DoubleCV",
    "Enumerate",
    "Estimate",
    "Estimator",
    "EstimatorError",
    "EvaluationWarning",
    "ExportError",
    "FiniteDifference",
    "GradientWarning",
    "Graph",
    "GraphError",
    "GumbelRao",
    "LeaveOneOut",
    "Local",
    "MeasureValued",
    "MovingAverage",
    "MuProp",
    "NStep",
    "Net",
    "Node",
    "NodeFacts",
    "NonFiniteError",
    "Parts",
    "PlateError",
    "PolicyError",
    "Program",
    "Proof",
    "Quadratic",
    "Refusal",
    "ReinMax",
    "Relaxed",
    "Reparam",
    "RunError",
    "ScgError",
    "Score",
    "Scored",
    "SelfCritical",
    "Site",
    "Slice",
    "Step",
    "StraightThrough",
    "SumAndSample",
    "Through",
    "UnorderedSet",
    "UnreadableError",
    "Verification",
    "compare",
    "compile",
    "estimator_names",
    "exact_gradient",
    "exact_objective",
    "prove",
    "rl",
    "runs",
    "symbolic",
    "verify",
]
