"""The program: an ``nn.Module`` around the emitted graph, whose loss has an unbiased backward."""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import torch
from torch import Tensor, fx, nn

from scg import draw
from scg.analysis.captured import declared_part, with_captured
from scg.analysis.check import accept, unused
from scg.choosing.apart import apart
from scg.choosing.coupled import Scheme, schemes
from scg.choosing.expense import evaluations
from scg.choosing.parts import Parts
from scg.choosing.policy import Policy, match
from scg.errors import ExportError, GradientWarning, GraphError, ScgError
from scg.estimators.parts.memory import averages
from scg.estimators.protocol.kinds import Estimator
from scg.evaluation.elsewhere import healed
from scg.evaluation.sizes import plate_sizes
from scg.export.listing import listed
from scg.laws import can_look
from scg.nodes.handle import Node
from scg.nodes.ir import CAPTURED, IR, Store, hold
from scg.nodes.names import stack_level
from scg.program.assumptions import assumptions
from scg.program.checked import CheckedRun, Look, NaNs, anything, finite, named_error, node_of_error
from scg.program.code import code
from scg.program.compiling import check_traceable, compiled, refusal
from scg.program.estimate import Estimate
from scg.program.explain import explain
from scg.program.export import arguments, written
from scg.program.prepare import Emitted, Prepared, collector_paused, prepare
from scg.program.recording import Recording, controls_kept, record
from scg.program.rollouts import differs, recorded, records
from scg.program.signature import Signature, held, kind, signature
from scg.program.stages import Stages, stages
from scg.standing import Assumption
from scg.surrogate.lowering.plan import REPLICATES
from scg.surrogate.runtime.randomness import Noise


@dataclass(frozen=True, eq=False)
class Options:
    """What ``scg.compile`` was asked for."""

    policy: Policy = "auto"
    samples: int | None = None
    keep: tuple[str, ...] = ()
    allow_biased: bool = False
    order: int = 1
    noise: Scheme = None


@dataclass(eq=False)
class Accepted:
    """What runs on inputs of one signature, and whether runs with gradients, and without, were checked."""

    prepared: Prepared
    runs: set[bool] = field(default_factory=set)


class Program(nn.Module):
    """A compiled graph; made by ``scg.compile``, called with the graph's inputs.

    With ``check_values = True`` every run is checked line by line, so that a value that is not finite is an
    error which names its node; else only the first run of each kind is.
    """

    check_values: bool = False

    def __init__(
        self,
        ir: IR,
        options: Options,
        *,
        controls: nn.ModuleDict | None = None,
        inputs: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Hold what the graph ``ir`` holds, under its names, and prepare on ``inputs`` or on all examples.

        ``options`` are those of ``scg.compile``, and ``controls`` what estimators learned before.
        """
        super().__init__()
        self._ir = ir
        self._options = options
        self._prepared: dict[Signature, Prepared] = {}
        self._accepted: dict[Signature, Accepted] = {}
        self._compiling: dict[str, Any] | None = None
        self._has_warned = False
        self._is_simulated, self._is_partial = bool(ir.simulations), bool(ir.partial_inputs)
        self._rollouts = 0
        self._told_of: set[str] = set()
        self._bare = {name: p for name, p in ir.store.tensors.items() if name.startswith(f"{CAPTURED}.")}
        hold(self, ir.store)
        self.constants = nn.Module()
        self.controls = nn.ModuleDict() if controls is None else controls
        match(ir, options.policy)
        if inputs is not None:
            self._prepared_for(inputs)
        elif all(name in ir.store.examples for name in ir.inputs):
            self.prepare()

    if TYPE_CHECKING:  # nn.Module says of its calls only that they return something

        def __call__(
            self,
            *,
            noise: SupportsIndex | Mapping[str, Tensor] | None = None,
            seed: SupportsIndex | None = None,
            **inputs: Any,
        ) -> Estimate:
            """Run the graph once, as ``forward`` does."""

    def forward(
        self,
        *unnamed: Any,
        noise: SupportsIndex | Mapping[str, Tensor] | None = None,
        seed: SupportsIndex | None = None,
        **inputs: Any,
    ) -> Estimate:
        """Run the graph once on inputs by name and return the estimate.

        ``noise`` is an int, for which ``seed`` is another word, or what ``draw_noise`` gave: the same noise
        gives the same values, whatever the policy. Left out, torch's own generator decides. ``unnamed``
        inputs are refused.
        """
        if unnamed:
            raise GraphError(f"inputs are given by name: {', '.join(f'{n}=...' for n in self._ir.inputs)}")
        if noise is not None and seed is not None:
            raise GraphError("give noise= or seed=, not both: they are two names for one thing")
        is_traced = torch.compiler.is_compiling()
        if self._is_simulated:
            inputs, noise = recorded(self._ir, self._live_ir, inputs, noise, seed)
        inputs = self._declared(inputs)
        accepted = Accepted(self._prepared_before(inputs)) if is_traced else self._accepted_for(inputs)
        prepared, gradients = accepted.prepared, torch.is_grad_enabled()
        if prepared.watched and gradients:
            prepared.guard(inputs)
        given = self._noise(prepared, noise if seed is None else seed, inputs)
        emitted = prepared.surrogate(self) if gradients else prepared.values(self)
        arguments = [*(inputs[name] for name in self._ir.inputs), given]
        if is_traced:
            check_traceable(self._ir, prepared, given)
            return Estimate(**emitted.run(self, *arguments))
        if self.check_values or gradients not in accepted.runs:
            looks = finite if self.check_values or not prepared.has_run else anything
            estimate = self._checked(emitted, inputs, arguments, looks)
            accepted.runs.add(gradients)
            prepared.has_run = True
        else:
            try:
                call = emitted.run if self._compiling is None else self._compiled(prepared, emitted, given)
                estimate = Estimate(**call(self, *arguments))
            except Exception as error:
                named = self._told(emitted, inputs, arguments, error)
                if named is error:
                    raise
                raise named from error
        if self._is_simulated:
            self._compare_records(inputs)
        loss = estimate.loss
        if loss is not None and can_look(loss) and isnan(loss.item()):
            self._explain_nan(emitted, inputs, arguments)
        return estimate

    def _checked(
        self, emitted: Emitted, inputs: Mapping[str, Tensor], arguments: Sequence[Any], looks: Look
    ) -> Estimate:
        """Run line by line, and hold what every line gives against its declaration."""
        sizes = plate_sizes(self._ir, inputs)
        if self._options.samples is not None:
            sizes[REPLICATES] = self._options.samples
        outputs = CheckedRun(self, self._ir, emitted.lowered, sizes, looks).run(*arguments)
        plain: dict[str, Any] = {k: dict(v) if isinstance(v, dict) else v for k, v in outputs.items()}
        return Estimate(**plain)

    def _explain_nan(self, emitted: Emitted, inputs: Mapping[str, Tensor], arguments: Sequence[Any]) -> None:
        """Raise for a loss that is NaN, by the node in which that arose when the run is repeated."""
        seen = NaNs()
        self._checked(emitted, inputs, arguments, seen)
        error = seen.error(self._ir)
        if error is not None:
            raise error

    def compile(self, *, fallback: bool = False, **options: Any) -> Program:  # type: ignore[override]
        """Have torch.compile compile what later calls run, with its options, and return the program.

        The first call still runs, and checks, as it is. Noise is drawn outside what is compiled. Without
        ``fallback``, what torch cannot compile raises an error that names the node; with it, such a node
        runs as plain torch between compiled parts.
        """
        self._compiling = {"fullgraph": not fallback, **options}
        for prepared in self._prepared.values():
            for emitted in prepared.emitted.values():
                emitted.compiled = None
        return self

    def _compiled(self, prepared: Prepared, emitted: Emitted, given: Noise) -> Callable[..., dict[str, Any]]:
        check_traceable(self._ir, prepared, given)
        if emitted.compiled is None:
            assert self._compiling is not None
            emitted.compiled = compiled(emitted.run, self._compiling)
        return emitted.compiled

    def _told(
        self, emitted: Emitted, inputs: Mapping[str, Tensor], arguments: Sequence[Any], error: Exception
    ) -> Exception:
        """Return an error with the name and line of the node that raised it, if it is known.

        torch.compile tells little of what a guard raised: without it, the run says that itself.
        """
        if self._compiling is not None and not isinstance(error, ScgError):
            try:
                self._checked(emitted, inputs, arguments, anything)
            except ScgError as found:
                return found
        name = node_of_error(emitted.lowered.places, error, emitted.filename)
        refused = None if self._compiling is None else refusal(self._ir, name, error, self._compiling)
        if refused is not None:
            return refused
        return error if name is None else named_error(self._ir[name], error)

    def prepare(self, **inputs: Any) -> Program:
        """Probe, choose estimators and emit on these inputs, or on the examples; return the program."""
        self._prepared_for(self._declared({**self._ir.store.examples, **inputs}))
        return self

    def _declared(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Leave out keys that no input has, and warn of them once, unless they may be meant for another.

        What is not finite where nothing exists is 0.
        """
        if self._is_partial:
            inputs = healed(self._ir, inputs)
        if len(inputs) == len(self._ir.inputs) or not all(name in inputs for name in self._ir.inputs):
            return inputs
        if not self._has_warned and not torch.compiler.is_compiling():
            self._has_warned = True
            shown = ", ".join(f"'{name}'" for name in unused(self._ir, inputs))
            there = ", ".join(self._ir.inputs) or "none"
            text = f"{shown}: no input of the graph, and not used; the inputs are {there}"
            warnings.warn(text, stacklevel=stack_level())
        return {name: inputs[name] for name in self._ir.inputs}

    def draw_noise(self, seed: int, **inputs: Any) -> dict[str, Tensor]:
        """Return the noise that a run has with ``seed``, by node: base noise, or the value.

        Nodes without base noise have their value there. It may be changed, and given to a run as ``noise``.
        """
        played = records(self._ir, self._live_ir, inputs, seed)
        inputs, _ = recorded(self._ir, self._live_ir, inputs, played, None)
        inputs = self._declared(inputs)
        prepared = self._prepared_for(inputs)
        noise = self._noise(prepared, seed, inputs)
        values = [name for name in self._ir.samples if name not in noise and name not in self._ir.given]
        if values:
            compiling, self._compiling = self._compiling, None
            try:
                with torch.no_grad():
                    drawn = self(noise=seed, **inputs).samples
            finally:
                self._compiling = compiling
            noise.update({name: drawn[name] for name in values})
        drawn = {name: noise[name] for name in sorted(noise, key=self._place)}
        everything: dict[str, Any] = {**played, **drawn}
        return Noise(everything, seed)

    def _place(self, name: str) -> tuple[int, str]:
        """Return what sorts entries of the noise: by node, its own first."""
        return self._ir.samples.index(name.partition(".")[0]), name

    def _noise(
        self,
        prepared: Prepared,
        noise: SupportsIndex | Mapping[str, Tensor] | None,
        inputs: Mapping[str, Tensor],
    ) -> Noise:
        if isinstance(noise, Mapping):
            return prepared.randomness.complete(noise, inputs)
        seed = None if noise is None else _seed(noise)
        return prepared.randomness.draw(inputs, seed, gradients=torch.is_grad_enabled())

    def _prepared_for(self, inputs: Mapping[str, Tensor]) -> Prepared:
        return self._accepted_for(inputs).prepared

    def _accepted_for(self, inputs: Mapping[str, Tensor]) -> Accepted:
        if self._bare:
            self._check_captured()
        key = signature(self, self._ir, inputs)
        if key not in self._accepted:
            accept(self._ir, inputs)
            prepared = self._prepared_by(inputs)
            prepared.fit(self._live_ir(), inputs)
            key = signature(self, self._ir, inputs)  # to which networks made by now belong
            self._accepted[key] = Accepted(prepared)
        return self._accepted[key]

    def _check_captured(self) -> None:
        """Refuse to run with other tensors than those that functions captured, which they would not read."""
        for name, tensor in self._bare.items():
            if held(self, name) is not tensor:
                raise GraphError(
                    f"'{name}' was replaced, as by functional_call or load_state_dict(assign=True), but the "
                    "function that captured it reads the old one: give it to the node as a parent"
                )

    def _prepared_by(self, inputs: Mapping[str, Tensor]) -> Prepared:
        """Return what inputs of one kind determine, whatever the sizes of plates."""
        found = kind(self._ir, signature(self, self._ir, inputs))
        if found not in self._prepared:
            ir = self._live_ir()
            options = self._options
            with collector_paused():
                prepared = prepare(
                    ir,
                    inputs,
                    options.policy,
                    samples=options.samples,
                    keep=options.keep,
                    allow_biased=options.allow_biased,
                    controls=self.controls,
                    order=options.order,
                    noise=options.noise,
                    warned={w for p in self._prepared.values() for w in p.warnings},
                )
                if prepared.policy is not options.policy:
                    self._take(prepared)
                prepared.surrogate(self)
            found = kind(self._ir, signature(self, self._ir, inputs))
            self._prepared[found] = prepared
            self._ddp_params_and_buffers_to_ignore = [f"controls.{name}" for name in averages(self.controls)]
        return self._prepared[found]

    def _take(self, prepared: Prepared) -> None:
        """Take over the graph in which nodes were divided, with the parts that they have."""
        self._ir = replace(prepared.ir, store=self._ir.store)
        self._options = replace(self._options, policy=prepared.policy)
        match(self._ir, prepared.policy)  # torch.compile cannot trace what finds the names of nodes

    def _prepared_before(self, inputs: Mapping[str, Tensor]) -> Prepared:
        """Return what inputs of one kind determine where nothing new can be found out: in torch.compile."""
        if self._bare:
            self._check_captured()
        found = kind(self._ir, signature(self, self._ir, inputs))
        if found not in self._prepared:
            raise GraphError(
                "torch.compile meets inputs, types or modes that the program was not prepared for: call "
                "program.prepare(**inputs), or run the program once, before it is compiled"
            )
        return self._prepared[found]

    def _compare_records(self, inputs: Mapping[str, Any]) -> None:
        """Warn, once, of actions that another policy drew; runs are looked at ever more seldom."""
        self._rollouts += 1
        if self._rollouts & (self._rollouts - 1):
            return
        for name in self._ir.simulations:
            found = None if name in self._told_of else differs(self._live_ir(), inputs, name)
            if found is not None:
                self._told_of.add(name)
                warnings.warn(found, GradientWarning, stacklevel=stack_level())

    def _live_ir(self) -> IR:
        """The graph with what the program holds now."""
        return replace(self._ir, store=self._live_store())

    def _live_store(self) -> Store:
        store = self._ir.store
        return Store(
            {name: held(self, name) for name in store.tensors},
            {name: held(self, name) for name in store.modules},
            store.examples,
            store.reached,
        )

    @property
    def is_pending(self) -> bool:
        """Whether nothing was emitted yet, for want of example inputs."""
        return not self._prepared

    def _latest(self) -> Prepared:
        if self.is_pending:
            raise GraphError(
                "the program is pending: give g.input(..., example=tensor), or call program.prepare(**inputs)"
            )
        held = signature(self, self._ir, {}).held
        alike = [prepared for found, prepared in self._prepared.items() if found.held == held]
        return alike[-1] if alike else next(reversed(self._prepared.values()))

    @property
    def fx(self) -> fx.GraphModule:
        """The emitted ``torch.fx.GraphModule``."""
        return self._latest().surrogate(self).module

    @property
    def code(self) -> str:
        """The emitted program as Python text, in the graph's own names, with all that it computes.

        Below ``forward`` are the functions of its slices and estimators. Reading it leaves nothing behind.
        """
        prepared = self._latest()
        emitted = prepared.surrogate(self)
        if emitted.code is None:
            emitted.code = code(self, self._ir, prepared)
        return emitted.code

    @property
    def policy(self) -> dict[str, Estimator | Parts]:
        """The estimator of every stochastic node."""
        return {name: choice.estimator for name, choice in self._latest().choices.items()}

    @property
    def evaluations(self) -> int:
        """How often a run evaluates what is below its nodes: once, and what estimators add, by replicates."""
        return evaluations(self._latest().choices) * (self._options.samples or 1)

    def explain(self) -> str:
        """Say, for each node: its estimator and why, the costs charged, what it costs and what is assumed."""
        return explain(self._ir, self._latest() if self._prepared else None, self._options.samples)

    def assumptions(self) -> tuple[Assumption, ...]:
        """Return what the program relies on, each fact with its standing.

        It was "declared", is "structural", read off the operations of a function whatever the values, was
        "probed" at several points, or is "assumed".
        """
        return assumptions(self._latest())

    def export(self, path: str | Path) -> dict[str, Any]:
        """Write a Python module to ``path`` that needs torch alone, and return what its ``loss`` takes.

        ``loss(noise, **inputs, **returned)`` has the value and the gradients of the program under the noise
        that ``draw_noise`` gives. Raises ``ExportError`` for what cannot be written.
        """
        with torch.inference_mode(False), torch.enable_grad():
            found = self._recorded()
            text = written(self, self._ir, self._latest(), found, self)
        Path(path).write_text(text, encoding="utf-8")
        return arguments(self, found, text)

    def _recorded(self) -> Recording:
        if not self._ir.costs:
            raise ExportError("a graph without costs has no loss to export: declare g.cost(...)")
        prepared = self._latest()
        with controls_kept(self):
            return record(self, self._ir, prepared, lambda seed, inputs: self.draw_noise(seed, **inputs))

    def stages(self) -> Stages:
        """Return the program at every stage of the compiler, each of which can be printed."""
        prepared = self._latest()
        try:
            with torch.inference_mode(False), torch.enable_grad():
                traced = listed(self._recorded().tape)
        except ExportError as error:
            traced = f"not traced: {error}"
        return stages(self._ir, prepared, self.code, traced)

    def draw(self, path: str | Path) -> None:
        """Draw the graph with each node's estimator: SVG, PNG, Mermaid or DOT by the suffix of ``path``."""
        draw.write(self._ir, path, labels=self._labels())

    def _repr_svg_(self) -> str:
        return draw.svg(self._ir, labels=self._labels())

    def _labels(self) -> dict[str, str]:
        if self.is_pending:
            return {}
        choices = self._latest().choices
        biased = {name for name, c in choices.items() if not all(e.unbiased for e in c.estimators)}
        return {name: e.name + " (biased)" * (name in biased) for name, e in self.policy.items()}

    def __repr__(self) -> str:
        state = (
            "pending"
            if self.is_pending
            else ", ".join(f"{name}: {label}" for name, label in list(self._labels().items())[:8])
        )
        return f"<scg.Program of {len(self._ir)} nodes ({state})>"

    def control_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that estimators train for themselves, as on the variance of their estimates.

        ``loss.backward()`` gives them gradients as well: give them to an optimizer of their own.
        """
        return self.controls.parameters()

    def model_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the graph, to which ``loss.backward()`` gives unbiased gradients."""
        controls = set(self.controls.parameters())
        return (parameter for parameter in self.parameters() if parameter not in controls)

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        """Copy the program; what functions read by closure or global name is theirs, and shared."""
        build, arguments = self.__reduce__()
        copied: Program = build(*copy.deepcopy(arguments, memo))
        memo[id(self)] = copied
        kept = {id(parameter) for parameter in self.get_submodule(CAPTURED).parameters()}
        several = copied.get_submodule(CAPTURED).named_parameters(CAPTURED)
        shared = [name for name, parameter in several if id(parameter) in kept]
        if shared:
            warnings.warn(
                f"the copy shares what functions capture with the original: {', '.join(shared[:4])}. Give "
                "modules to g.det as functions, and parameters as parents, to have them copied",
                stacklevel=stack_level(),
            )
        return copied

    def __reduce__(self) -> Any:
        inputs = self._latest().inputs if self._prepared else None
        ir = replace(self._ir, store=declared_part(self._live_store()))
        return _restore, (
            ir,
            self._options,
            self.controls,
            inputs,
            self.training,
            self.check_values,
            self._compiling,
        )


def _seed(noise: SupportsIndex) -> int | Tensor:
    if torch.compiler.is_compiling():  # where ``index`` would have torch.compile compile anew for each seed
        return noise if isinstance(noise, int) else torch.as_tensor(noise)
    try:
        return operator.index(noise)
    except TypeError:
        raise GraphError(
            f"noise is an int, or what program.draw_noise(seed, **inputs) returns, "
            f"not a {type(noise).__name__}"
        ) from None


def _restore(
    ir: IR,
    options: Options,
    controls: nn.ModuleDict,
    inputs: Mapping[str, Tensor] | None,
    training: bool,
    check_values: bool,
    compiling: dict[str, Any] | None,
) -> Program:
    """Build a program again, with the controls it had learned."""
    ir = replace(ir, store=with_captured(ir.store, ir.records()))
    program = Program(ir, options, controls=controls, inputs=inputs)
    program.training = training
    program.check_values = check_values
    program._compiling = compiling
    return program


def _replicates(samples: Any) -> int | None:
    """Return the number of replicates, an int, or raise for what is none."""
    if samples is None:
        return None
    is_flag = isinstance(samples, bool) or str(getattr(samples, "dtype", "")).endswith("bool")
    try:
        count = None if is_flag else operator.index(samples)
    except TypeError:
        count = None
    if count is None or count < 1:
        raise GraphError(
            f"samples={samples!r}: the number of replicates is an int, at least 1, or None for none"
        )
    return count


def compile(  # noqa: A001 - scg.compile is the public name
    graph: Any,
    policy: Policy = "auto",
    *,
    samples: int | None = None,
    keep: str | Node | Sequence[str | Node] = (),
    allow_biased: bool = False,
    order: int = 1,
    noise: str | Mapping[str, str] | None = None,
) -> Program:
    """Compile a graph into a torch program whose ``loss.backward()`` leaves unbiased gradients.

    Schulman, Heess, Weber and Abbeel (2015), "Gradient Estimation Using Stochastic Computation Graphs".

    ``policy`` is the estimator of all stochastic nodes, by name or as an instance, or a dict by the names of
    nodes, also with wildcards as in "layer_*"; what it leaves out, and "auto", is chosen by the compiler:
    exact where that is affordable, else of low variance. ``samples=K`` draws K replicates of every stochastic
    node in each run and averages over them; ``samples`` and ``costs`` of an estimate then have a first
    dimension K. ``keep`` names nodes whose values estimates bring along, in ``kept``. Biased estimators are
    refused without ``allow_biased=True``. ``order`` is how often the loss can be differentiated, with
    ``create_graph=True`` all times but the last: Hessians, their products, gradients through gradients.

    ``noise`` tells how replicates draw the base noise of nodes, by one word for all or a dict by names: each
    on its own, "independent", which is the default; in "antithetic" pairs, of u and 1 - u, or z and -z; or as
    the points of a scrambled "sobol" sequence, whose dimensions are the numbers that nodes draw.

    >>> import torch, scg
    >>> g = scg.Graph()
    >>> b = g.sample("b", torch.distributions.Bernoulli, logits=g.param("theta", torch.zeros(())))
    >>> cost = g.cost("loss", (b - 0.499) ** 2)
    >>> scg.compile(g, policy="enumerate")(seed=0).loss.backward()
    >>> round(float(g["theta"].value.grad), 6)
    0.0005
    """
    if isinstance(order, bool) or not isinstance(order, int) or order < 1:
        raise GraphError(f"order={order!r}: give a whole number, how often the loss is differentiated")
    samples = _replicates(samples)
    if isinstance(graph, Node) or not hasattr(graph, "freeze"):
        raise GraphError(f"scg.compile takes a scg.Graph, not {type(graph).__name__}")
    ir: IR = graph.freeze()
    several = (keep,) if isinstance(keep, (str, Node)) else tuple(keep)
    foreign = [item.name for item in several if isinstance(item, Node) and item.graph is not graph]
    if foreign:
        raise GraphError(f"keep names nodes of another graph: {foreign}")
    names = tuple(item if isinstance(item, str) else item.name for item in several)
    unknown = [name for name in names if name not in ir]
    if unknown:
        raise GraphError(f"keep names nodes that are not there: {unknown}; the nodes are {', '.join(ir)}")
    for fault in ir.store.lost:
        warnings.warn(fault, stacklevel=2)
    schemes(ir, noise, samples)
    options = Options(policy, samples, names, allow_biased, order, noise)
    return Program(apart(ir, match(ir, policy)), options)
