"""The errors that scg raises: each names the node, what was found, and what to write instead."""


class ScgError(Exception):
    """The root of every error that scg raises on purpose."""


class GraphError(ScgError):
    """A graph, or a value that a node of it produced, is not what was declared."""


class PlateError(GraphError):
    """Plates contradict each other, or a value does not have the plates of its node."""


class PolicyError(ScgError):
    """A policy names what is not there, or asks for what cannot be."""


class EstimatorError(PolicyError):
    """An estimator would give a wrong gradient, or none, at the node it was given to."""


class BiasedEstimatorError(EstimatorError):
    """A biased estimator was asked for without ``allow_biased=True``."""


class NonFiniteError(ScgError):
    """A parameter, a sample or a cost is NaN or infinite."""


class CompileError(ScgError):
    """torch.compile cannot take a node."""


class GradientWarning(UserWarning):
    """A gradient is lost on the way from what is learned to a cost, and nothing says that this is meant."""


class EvaluationWarning(UserWarning):
    """An estimator evaluates costs so often that every run takes long."""


class UnreadableError(ScgError):
    """A computation cannot be read as mathematics; the text says which, and why."""


class ExportError(ScgError):
    """A program cannot be written as a Python module."""


class RunError(ScgError):
    """A long run cannot begin, go on or be saved, or was told what it does not understand."""
