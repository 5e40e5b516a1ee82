"""A kit for those who test models and write estimators; it needs the extra ``scg[testing]``."""

from scg.testing.checks import Check, RefusedError, checks
from scg.testing.estimators import CheckFailedError, Outcome, check_estimator, parametrize_with_checks, run
from scg.testing.strategies import graphs, inputs, policies
from scg.testing.text.code import as_code
from scg.testing.unbiased import assert_unbiased

__all__ = [
    "Check",
    "CheckFailedError",
    "Outcome",
    "RefusedError",
    "as_code",
    "assert_unbiased",
    "check_estimator",
    "checks",
    "graphs",
    "inputs",
    "parametrize_with_checks",
    "policies",
    "run",
]
