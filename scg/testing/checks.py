"""Checks: what an estimator has to satisfy, each by name, on graphs that could break it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from scg.choosing.policy import PolicyEntry
from scg.errors import EstimatorError
from scg.estimators.protocol.border import check_kind
from scg.estimators.protocol.kinds import Estimator
from scg.program.program import Program
from scg.program.program import compile as compiled
from scg.testing.examples import EXAMPLES, Example
from scg.testing.unbiased import assert_unbiased
from scg.verification.trial import NoReferenceError

REPLICATED = "compile with samples="
"""What the refusal of an estimator says that compares replicates, where there are none."""


class RefusedError(Exception):
    """The estimator refuses the graph of a check, which it may, or nothing can judge it there."""


@dataclass(frozen=True)
class Check:
    """One thing that an estimator has to satisfy; ``run`` raises an AssertionError where it does not."""

    name: str
    run: Callable[[Estimator], None]

    def __str__(self) -> str:
        """The name."""
        return self.name


def program_of(estimator: Estimator, example: Example, samples: int | None = None) -> Program:
    """Compile an example with the estimator at its node, or say that it is refused there.

    What compares replicates has some.
    """
    policy: dict[str, PolicyEntry] = {**dict(example.others), example.node: estimator}
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)  # of what is learned
            return compiled(example.make(), policy, samples=samples, allow_biased=True)
    except EstimatorError as error:
        if samples is None and REPLICATED in str(error):
            return program_of(estimator, example, samples=2)
        raise RefusedError(str(error)) from None


def first_allowed(estimator: Estimator) -> Example:
    """Return the first example that the estimator does not refuse."""
    for example in EXAMPLES:
        try:
            program_of(estimator, example)
        except RefusedError:
            continue
        return example
    raise RefusedError("it refuses every graph there is")


def protocol(estimator: Estimator) -> None:
    """The class fits the protocol."""
    check_kind(type(estimator))


def accepts_something(estimator: Estimator) -> None:
    """Some graph is not refused."""
    try:
        first_allowed(estimator)
    except RefusedError as error:
        raise AssertionError(str(error)) from None


def claimed(estimator: Estimator) -> None:
    """Hold no bias against an estimator that says itself that it has one."""
    if not estimator.unbiased:
        raise RefusedError("it says itself that it is biased")


def gradient(example: Example, estimator: Estimator) -> None:
    """The mean of the gradient is the gradient."""
    claimed(estimator)
    try:
        assert_unbiased(program_of(estimator, example), resolution=example.resolution)
    except NoReferenceError as error:
        raise RefusedError(str(error)) from None


def replicates(estimator: Estimator) -> None:
    """The same with replicates."""
    claimed(estimator)
    example = first_allowed(estimator)
    assert_unbiased(program_of(estimator, example, samples=3), resolution=example.resolution)


def keeps_values(estimator: Estimator) -> None:
    """Values and loss are those of the score function under the same noise."""
    example = first_allowed(estimator)
    own = program_of(estimator, example)
    policy = {**dict(example.others), example.node: "score"}
    plain = compiled(example.make(), policy, samples=own._options.samples)
    given = own._ir.store.examples
    one, other = (program(seed=5, **given) for program in (own, plain))
    assert one.loss is not None
    assert other.loss is not None
    for name, value in other.samples.items():
        assert torch.allclose(one.samples[name].double(), value.double()), (
            f"the values of '{name}' differ from those under 'score' and the same noise"
        )
    assert torch.allclose(one.loss, other.loss), "the loss differs from that under 'score' and the same noise"


def repeats(estimator: Estimator) -> None:
    """Two runs under one seed leave the same gradient, and torch's generator is left alone."""
    example = first_allowed(estimator)
    several = []
    for _ in range(2):
        program = program_of(estimator, example)
        program(seed=0, **program._ir.store.examples)
        before = torch.get_rng_state()
        several.append(left_by(program))
        assert torch.equal(torch.get_rng_state(), before), "a seeded run draws from torch's global generator"
    differ = [name for name, value in several[0].items() if not torch.equal(value, several[1][name])]
    assert not differ, f"two runs under one seed leave other gradients in {differ}"


def copies(estimator: Estimator) -> None:
    """A copy of the program leaves the same gradient."""
    program = program_of(estimator, first_allowed(estimator))
    found, again = left_by(program), left_by(copy.deepcopy(program_of(estimator, first_allowed(estimator))))
    differ = [name for name, value in found.items() if not torch.allclose(value, again[name])]
    assert not differ, f"a copy leaves other gradients in {differ}"


def needs_no_gradient(estimator: Estimator) -> None:
    """Parameters that are frozen get no gradient, and nothing fails."""
    program = program_of(estimator, first_allowed(estimator))
    for parameter in program.model_parameters():
        parameter.requires_grad_(False)
    estimate = program(seed=0, **program._ir.store.examples)
    if estimate.loss is not None and estimate.loss.requires_grad:
        estimate.loss.backward()
    assert all(parameter.grad is None for parameter in program.model_parameters())


def traced(estimator: Estimator) -> None:
    """torch.compile takes it, and the gradient is the same."""
    example = first_allowed(estimator)
    plain, made = (program_of(estimator, example) for _ in range(2))
    made.compile(backend="eager")
    for _ in range(2):
        found, again = left_by(plain), left_by(made)
    differ = [name for name, value in found.items() if not torch.allclose(value, again[name])]
    assert not differ, f"compiled by torch, it leaves other gradients in {differ}"


def left_by(program: Program) -> dict[str, Tensor]:
    """Return what one backward leaves in the parameters."""
    program.zero_grad()
    loss = program(seed=0, **program._ir.store.examples).loss
    assert loss is not None
    loss.backward()
    return {name: p.grad.clone() for name, p in program.named_parameters() if p.grad is not None}


def checks() -> Mapping[str, Check]:
    """Return every check by name."""
    several = [
        Check("protocol", protocol),
        Check("accepts-something", accepts_something),
        Check("repeats", repeats),
        Check("copies", copies),
        Check("needs-no-gradient", needs_no_gradient),
        Check("keeps-values", keeps_values),
        Check("traced-by-torch", traced),
        Check("replicates", replicates),
        *(Check(f"gradient-{example.name}", partial(gradient, example)) for example in EXAMPLES),
    ]
    return {check.name: check for check in several}
