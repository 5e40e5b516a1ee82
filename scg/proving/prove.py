"""Prove: that the mean of the gradient that a program leaves is the gradient of its objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from scg.algebra.arrays import flat, symbols
from scg.algebra.families import MASSES
from scg.algebra.graphs import model
from scg.algebra.measure import Case
from scg.algebra.model import Model
from scg.algebra.paths import Path, in_cases
from scg.errors import GraphError, ScgError, UnreadableError
from scg.evaluation.trace import evaluate
from scg.program.program import Program
from scg.progress import Progress
from scg.proving.arithmetic import expected, settle, ways
from scg.proving.composition import composed
from scg.proving.control import follows_scheme, is_controlled
from scg.proving.culprit import culprit
from scg.proving.emitted import Emitted, Reading, emitted, reading
from scg.proving.laws import shown
from scg.proving.proof import Counterexample, Proof, Standing, Step
from scg.proving.quadrature import integrated
from scg.proving.truth import Truth, placed, truth
from scg.verification.draws import controls_still

NEAR = 1e-9
"""A relative difference below which two numbers differ by rounding."""


@dataclass
class Attempt:
    """What is at hand of a proof: a program, what was read of it, and why stronger means failed."""

    program: Program
    inputs: Mapping[str, Any]
    what: Emitted
    points: int
    seed: int
    tell: Callable[[str], None]
    model: Model | None = None
    reading: Reading | None = None
    truth: Truth = field(init=False)
    reasons: list[str] = field(default_factory=list)
    domain: set[sp.Expr] = field(default_factory=set)

    def tried(self, claim: str, fn: Callable[[], Any]) -> Any:
        """Return what a function gives, or None, with the reason kept, where it is not within reach."""
        self.tell(f"prove: {claim}")
        try:
            return fn()
        except (UnreadableError, RecursionError) as error:
            reason = f"{claim}: {error}"
            if reason not in self.reasons:
                self.reasons.append(reason)
            return None


def prove(
    program: Program, *, points: int = 2, seed: int = 0, progress: bool = False, **inputs: Any
) -> Proof:
    """Prove that the mean gradient of a program is the gradient of its objective, for all parameters.

    The emitted arithmetic, with its backward pass, is read as mathematics, averaged over all noise in closed
    form and compared with the gradient of the objective, which is derived from the graph. What cannot be read
    or averaged is shown in parts where that goes, and measured by quadrature at the parameters as they are
    and at ``points`` more, of a ``seed``. Every step says whether it is proved, certified or assumed, and the
    proof is as strong as the weakest; where one breaks there is a counterexample. ``inputs`` are those of the
    program, taken from the examples where they are left out; ``progress`` tells what is done. The program is
    left as it was.

    >>> import torch, scg
    >>> g = scg.Graph()
    >>> b = g.sample("b", torch.distributions.Bernoulli, logits=g.param("theta", 0.3))
    >>> cost = g.cost("loss", (b - 0.45) ** 2)
    >>> scg.prove(scg.compile(g, "score")).standing
    'proved'
    """
    if not isinstance(program, Program):
        raise GraphError(f"scg.prove takes a program, as scg.compile returns it, not {program!r}")
    if not program._ir.costs:
        raise GraphError("a graph without costs has no gradient to prove anything of: declare g.cost(...)")
    if not any(p.requires_grad for n, p in program.named_parameters() if not n.startswith("controls.")):
        raise GraphError("no parameter of the graph requires a gradient, so there is nothing to prove")
    if isinstance(points, bool) or not isinstance(points, int) or points < 0:
        raise GraphError(f"points={points!r}: give how many more parameters to look at, 0 or more")
    given = {**program._ir.store.examples, **inputs}
    program.prepare(**given)
    shown_progress = Progress() if progress else None
    tell = shown_progress.tell if shown_progress is not None else lambda line: None
    with controls_still(program), torch.enable_grad():
        try:
            what = emitted(program, given)
        except UnreadableError as error:
            return Proof((Step("the mean gradient is that of the objective", "assumed", str(error)),))
        return _proof(Attempt(program, what.inputs, what, points, seed, tell))


def _proof(attempt: Attempt) -> Proof:
    ir = attempt.program._ir
    attempt.model = attempt.tried("reading the graph", lambda: model(ir, attempt.inputs))
    attempt.reading = attempt.tried("reading the program", lambda: reading(attempt.what))
    attempt.truth = truth(attempt.program, attempt.model, attempt.inputs)
    steps = attempt.tried("the emitted arithmetic", lambda: _arithmetic(attempt))
    if steps is not None and all(step.standing == "proved" for step in steps):
        return _ended(attempt, steps)
    measured = attempt.tried("quadrature", lambda: _measured(attempt))
    if measured is not None and measured[1] is not None:
        return _ended(attempt, [measured[0]], measured[1])
    parts = [*composed(ir, attempt.program._prepared_for(attempt.inputs)), *_schemes(attempt)]
    if measured is not None:
        return _ended(attempt, [measured[0], *(part for part in parts if part.standing != "assumed")])
    claim = "the emitted arithmetic does what the schemes of its estimators say"
    return _ended(attempt, [*parts, Step(claim, "assumed", "neither read nor integrated: see scg.verify")])


def _ended(attempt: Attempt, steps: list[Step], found: Counterexample | None = None) -> Proof:
    steps = [*steps, *_masses(attempt)]
    names = {s for arrays in _symbols(attempt) for s in arrays}
    domain = sorted({_shown(bound) for bound in attempt.domain if bound.free_symbols <= names})
    reasons = () if all(step.standing == "proved" for step in steps) else tuple(attempt.reasons)
    return Proof(tuple(steps), tuple(domain), found, reasons)


def _shown(bound: sp.Expr) -> str:
    """Write that something is positive."""
    constant, rest = bound.as_coeff_Add()
    if constant == 0:
        return f"{bound} > 0"
    return f"{rest} > {-constant}" if not rest.could_extract_minus_sign() else f"{-rest} < {constant}"


def _symbols(attempt: Attempt) -> list[list[sp.Symbol]]:
    if attempt.reading is None:
        return []
    return [flat(a) for arrays in (attempt.reading.live, attempt.reading.state) for a in arrays.values()]


def _arithmetic(attempt: Attempt) -> list[Step] | None:
    """Show by algebra that the mean of the emitted gradient is that of the objective, in all cases."""
    found, program = attempt.reading, attempt.model
    if found is None or program is None:
        return None
    entries = [(name, s) for name, a in program.parameters.items() for s in flat(a)]
    valid: set[sp.Expr] = set()

    def run(case: Case) -> tuple[int, bool, bool]:
        assumed = dict.fromkeys(program.valid(case), True)
        valid.update(assumed)
        case = {**case, **assumed}
        several = ways(found, case)
        rates = _rates(program, found, case)
        bounds = {bound for way in several for bound in way.path.domain}
        if any(bound.free_symbols & set(found.kinds) for bound in bounds):
            raise UnreadableError("a guard against overflow acts on noise")
        attempt.domain.update(bounds)
        try:
            totals = expected(several, found.kinds, rates)
        except UnreadableError:
            if not is_controlled(attempt.program, program):
                raise
            if not follows_scheme(program, found, several, case):
                raise
            return len(several), True, True
        objective = program.objective(case)
        return (
            len(several),
            all(settle(total - sp.diff(objective, s)) for total, (_, s) in zip(totals, entries, strict=True)),
            False,
        )

    several = list(in_cases(run))
    attempt.domain.update(valid)
    if not all(holds for _, (_, holds, _) in several):
        raise UnreadableError("its mean does not reduce to the gradient of the objective")
    count = sum(number for _, (number, _, _) in several)
    how = f"the emitted program averaged over all noise: {count} ways through it in {len(several)} cases"
    if not any(by_scheme for _, (_, _, by_scheme) in several):
        return [
            Step(
                "the mean gradient is that of the objective",
                "proved",
                how,
                identity=_identity(program, several),
            )
        ]
    (variable,) = program.variables
    claim = "the gradient of a run is that of REBAR with c(z) = eta cost(sigmoid(z / temperature))"
    return [
        Step(claim, "proved", f"algebra, on {count} ways through the program", variable.name),
        *_schemes(attempt),
    ]


def _rates(program: Model, found: Reading, case: Case) -> dict[sp.Symbol, sp.Expr]:
    """Return the rate of every value of a Poisson variable, which depends on nothing that is random."""
    poisson = [variable for variable in program.variables if variable.family == "Poisson"]
    if not poisson:
        return {}
    values = {v.name: symbols(v.name, (*v.shape, *v.event), real=True) for v in program.variables}
    _, parameters = program.at(values, Path(case=case))
    rates = {}
    for variable in poisson:
        own = parameters[variable.name]["rate"]
        for symbol, rate in zip(flat(found.noise[variable.name]), flat(own), strict=True):
            if rate.free_symbols & {s for array in values.values() for s in flat(array)}:
                raise UnreadableError(f"the rate of the Poisson variable '{variable.name}' is random")
            rates[symbol] = rate
    return rates


def _identity(program: Model, several: list[tuple[Case, Any]]) -> sp.Expr | None:
    """Return the gradient that was shown, where it is short."""
    case, symbol = several[0][0], flat(next(iter(program.parameters.values())))[0]
    slope = sp.diff(program.objective(case), symbol)
    if sp.count_ops(slope) > 80:
        return None
    return sp.Eq(sp.Function("E")(sp.Symbol("g")), slope, evaluate=False)


def _masses(attempt: Attempt) -> list[Step]:
    """Say of probabilities that are taken from the code of laws what they were held against."""
    found = attempt.model
    foreign = [v.name for v in found.variables if v.outcomes and v.family not in MASSES] if found else []
    steps = []
    for name, density in _densities(attempt).items() if foreign else ():
        law, parameters = density.law, {k: v.detach() for k, v in density.parameters.items()}
        if name not in foreign:
            continue
        claim, support = f"{law.family} has the probabilities that its law says", law.support(parameters)
        try:
            spread = support.reshape(
                len(support), *(1,) * len(law.batch_shape(parameters)), *support.shape[1:]
            )
            wanted = law.distribution(parameters).log_prob(spread).exp()
            close = torch.allclose(wanted.double(), law.mass(parameters).double(), atol=1e-6)
            standing: Standing = "certified" if close else "failed"
        except Exception:  # noqa: BLE001 - a class of the user's may refuse in any way
            standing = "assumed"
        steps.append(
            Step(claim, standing, "against torch.distributions, at the parameters as they are", name)
        )
    return steps


def _densities(attempt: Attempt) -> dict[str, Any]:
    """Return the law of every random variable, and its parameters, in one run."""
    found: dict[str, Any] = {}

    def draw(record: Any, density: Any, batch: Any) -> Tensor:
        found[record.name] = density
        value: Tensor = density.law.distribution(density.law.expand(dict(density.parameters), batch)).sample()
        return value

    with torch.random.fork_rng(), torch.no_grad():
        evaluate(attempt.program._ir, attempt.inputs, draw)
    return found


def _schemes(attempt: Attempt) -> list[Step]:
    """Show, for every random variable, what its estimator rests on."""
    steps: list[Step] = []
    choices = attempt.program._prepared_for(attempt.inputs).choices
    for name, density in _densities(attempt).items():
        estimator = attempt.program.policy[name]
        steps += [
            Step(step.claim, step.standing, step.how, name)
            for step in shown(density.law, density.parameters, estimator.name in ("rebar", "relax"))
        ]
        steps += [
            Step(f"'{found.name}' is unbiased", "failed", "it says itself that it is not", name)
            for found in choices[name].estimators
            if not found.unbiased
        ]
    return steps


def _measured(attempt: Attempt) -> tuple[Step, Counterexample | None] | None:
    """Integrate the emitted program at several parameters, by two orders, and compare."""
    found = attempt.reading
    if found is None:
        return None
    generator = torch.Generator().manual_seed(attempt.seed)
    places = set()
    worst, single = 0.0, any(v.dtype != torch.float64 for v in attempt.what.live.values())
    for number in range(attempt.points + 1):
        live, state = _somewhere(attempt, generator if number else None)
        places.add(tuple(v for value in live.values() for v in value.reshape(-1).tolist()))
        coarse, fine = integrated(attempt.what, found, live, state, attempt.seed + number)
        exact = attempt.truth.at(live)
        if not all(bool(value.isfinite().all()) for value in (coarse, fine, exact)):
            raise UnreadableError("the mean gradient, or that of the objective, is not finite")
        size = float(exact.abs().max().maximum(fine.abs().max())) + 1e-12
        apart, error = (float((fine - other).abs().max()) / size for other in (coarse, exact))
        tolerance = max(10 * apart, 1e-4 if single else NEAR)
        if error > tolerance:
            return _broken(attempt, live, fine, exact)
        if tolerance > 1e-3:
            raise UnreadableError(f"two orders of quadrature differ by {apart:.1g} of the gradient")
        worst = max(worst, error, apart)
    how = f"quadrature of two orders, {len(places)} parameters, within {max(worst, 1e-15):.0e}"
    return Step("the mean gradient is that of the objective", "certified", how), None


def _somewhere(
    attempt: Attempt, generator: torch.Generator | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the parameters as they are, or others at which the objective is finite."""
    live, state = dict(attempt.what.live), dict(attempt.what.state)
    if generator is None:
        return live, state
    scale = 0.7
    trained = dict(attempt.program.named_parameters())
    for _ in range(8):
        found = {k: v + scale * torch.randn(v.shape, generator=generator).to(v) for k, v in live.items()}
        held = {
            k: v + 0.3 * torch.randn(v.shape, generator=generator).to(v) if k in trained else v
            for k, v in state.items()
        }
        scale /= 2
        try:
            with placed(attempt.program, found), torch.no_grad():
                attempt.program(noise=0, **attempt.inputs)
        except ScgError:
            continue
        return found, held
    return live, state


def _broken(
    attempt: Attempt, live: Mapping[str, Tensor], found: Tensor, exact: Tensor
) -> tuple[Step, Counterexample]:
    """Return the step that breaks, and where."""
    place, start, name, value = int((found - exact).abs().argmax()), 0, "", exact
    for name, value in live.items():  # noqa: B007 - the one where it stops
        if place < start + value.numel():
            break
        start += value.numel()
    index = (
        tuple(int(i) for i in torch.unravel_index(torch.tensor(place - start), value.shape))
        if value.dim()
        else ()
    )
    node = culprit(attempt.program, attempt.inputs, attempt.truth, live)
    counter = Counterexample(node, name, index, dict(live), float(found[place]), float(exact[place]))
    step = Step(
        "the mean gradient is that of the objective",
        "failed",
        "quadrature of the emitted program",
        node or "the program",
    )
    return step, counter
