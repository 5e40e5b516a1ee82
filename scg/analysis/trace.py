"""Evaluate a graph node by node on example values: the reference semantics of a declaration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.utils import _pytree as pytree

from scg.errors import GraphError, PlateError, ScgError
from scg.laws import LAWS, Law, bind, law_for, law_of
from scg.nodes.ir import IR
from scg.nodes.plates import insertion
from scg.nodes.records import Constant, Det, Function, Input, LogProb, Param, Record, Sample


@dataclass(frozen=True)
class Density:
    """The law of a sample or log-probability node, and how its parameters are laid out.

    ``parameters`` have the leading plates of the node if ``plated`` (none otherwise), then ``inner``
    batch dimensions that belong to the node's event, of which ``missing`` were inserted, then the
    dimensions of one atomic event.
    """

    law: Law
    parameters: Mapping[str, Tensor]
    inner: int
    plated: Mapping[str, bool]
    missing: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Trace:
    """One evaluation of a graph: the value of every node, the laws met, and the sizes of the plates."""

    values: dict[str, Any] = field(default_factory=dict)
    densities: dict[str, Density] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def event_shape(self, ir: IR, name: str) -> torch.Size:
        """Return the shape of a value without the plates of its node."""
        shape: torch.Size = self.values[name].shape
        return shape[len(ir.layout[name]) :]


Draw = Callable[[Record, Density, torch.Size], Tensor]


def evaluate(
    ir: IR, inputs: Mapping[str, Tensor], draw: Draw, fixed: Mapping[str, Any] | None = None
) -> Trace:
    """Evaluate every node in order; nodes named in ``fixed`` take the given value instead."""
    trace = Trace(sizes=plate_sizes(ir, inputs))
    for record in ir.records():
        if fixed is not None and record.name in fixed and not isinstance(record, Sample):
            trace.values[record.name] = fixed[record.name]
            continue
        trace.values[record.name] = _value(ir, trace, record, inputs, draw)
        if fixed is not None and record.name in fixed:
            trace.values[record.name] = fixed[record.name]
    return trace


def _value(ir: IR, trace: Trace, record: Record, inputs: Mapping[str, Tensor], draw: Draw) -> Any:
    if isinstance(record, Input):
        return inputs[record.name]
    if isinstance(record, (Param, Constant)):
        return ir.store.tensors[record.name]
    if isinstance(record, Det):
        return _deterministic(ir, trace, record)
    if isinstance(record, Sample):
        density = trace.densities[record.name] = _density(ir, trace, record, record.dist)
        lead = torch.Size(trace.sizes[plate] for plate in ir.layout[record.name])
        batch = density.law.batch_shape(density.parameters)
        return draw(record, density, lead + batch[len(batch) - density.inner :])
    assert isinstance(record, LogProb)
    return _log_prob(ir, trace, record)


def seen(ir: IR, record: Record, parent: str, value: Any) -> Any:
    """Give a parent's value the size-1 dimensions for the plates of the node that it lacks."""
    have, want = ir.layout[parent], ir.layout[record.name]
    if not have or set(want) <= set(have):
        return value
    every = tuple(plate for plate in ir.plates if plate in have or plate in want)
    index = insertion(have, every)
    if index is None:
        return value
    return pytree.tree_map_only(Tensor, lambda tensor: tensor[index], value)


def call(record: Record, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Call a user's function; what it raises is told with the name and the line of its node."""
    given = [leaf for leaf in pytree.tree_leaves((args, dict(kwargs))) if isinstance(leaf, Tensor)]
    versions = [leaf._version for leaf in given]
    try:
        value = fn(*args, **kwargs)
    except ScgError as error:
        raise type(error)(f"node '{record.name}' ({record.where}): {error}") from error
    except Exception as error:
        raise wrapped(record, error) from error
    if any(leaf._version != version for leaf, version in zip(given, versions, strict=True)):
        raise GraphError(
            f"node '{record.name}' ({record.where}) writes into a value of its parents, which others read "
            "too: use out-of-place operations, such as relu(x) for relu_(x) and inplace=False for modules"
        )
    return value


def wrapped(record: Record, error: BaseException) -> GraphError:
    """Say which node an exception came from, and where it was declared."""
    return GraphError(f"node '{record.name}' ({record.where}) raised {type(error).__name__}: {error}")


def callable_of(ir: IR, function: Function) -> Callable[..., Any]:
    """Return what a node calls."""
    return ir.store.modules[function.owner] if function.owner is not None else function.call  # type: ignore[return-value]


def black_box(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Call ``fn`` on detached tensors and turn what it returns into tensors of its arguments' kind."""
    args, kwargs = pytree.tree_map_only(Tensor, Tensor.detach, (args, dict(kwargs)))
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    floats = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
    dtype = floats[0] if floats else torch.get_default_dtype()
    device = tensors[0].device if tensors else None

    def back(leaf: Any) -> Any:
        tensor = torch.as_tensor(leaf, device=device).detach()
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    with torch.no_grad():
        return pytree.tree_map(back, fn(*args, **kwargs))


def _deterministic(ir: IR, trace: Trace, record: Det) -> Any:
    args, kwargs = record.arguments.substitute(lambda name: seen(ir, record, name, trace.values[name]))
    fn = callable_of(ir, record.fn)
    if record.differentiable is False:
        value = call(record, black_box, (fn, args, kwargs), {})
    else:
        value = call(record, fn, args, kwargs)
    inherited = frozenset().union(*(ir.layout[parent] for parent in record.parents))

    def place(tensor: Tensor) -> Tensor:
        return placed(ir, trace.sizes, record, inherited, tensor)

    return place(value) if isinstance(value, Tensor) else pytree.tree_map_only(Tensor, place, value)


def placed(
    ir: IR, sizes: Mapping[str, int], record: Record, inherited: frozenset[str], value: Tensor
) -> Tensor:
    """Check that a value has the plates of its node, and expand it along those no parent has."""
    plates = ir.layout[record.name]
    for index, plate in enumerate(plates):
        size = value.shape[index] if index < value.dim() else None
        if size != sizes[plate] and not (size == 1 and plate not in inherited):
            raise PlateError(
                f"node '{record.name}' ({record.where}) lies in plates {plates} of sizes "
                f"{tuple(sizes[p] for p in plates)}, but its function returned shape {tuple(value.shape)}: "
                f"keep the plates as leading dimensions, or write plates=(...) for those that it keeps"
            )
    lead = [sizes[plate] for plate in plates]
    return (
        value
        if list(value.shape[: len(plates)]) == lead
        else value.expand(*lead, *value.shape[len(plates) :])
    )


def _density(ir: IR, trace: Trace, record: Record, function: Function) -> Density:
    dist = callable_of(ir, function)
    plates = len(ir.layout[record.name])
    args, kwargs = record.arguments.substitute(lambda name: seen(ir, record, name, trace.values[name]))
    if isinstance(dist, type) and issubclass(dist, Distribution) and dist in LAWS:
        law, given = call(record, _law_of_class, (dist, args, kwargs), {})
        lead = _lead_of_arguments(ir, record, dist)
    else:
        law, given = call(record, taken_apart, (call(record, dist, args, kwargs),), {})
        lead = dict.fromkeys(given, any(ir.layout[parent] for parent in record.arguments.names))
    own = {
        name: value.dim() - law.event_rank(name) - (plates if lead.get(name) else 0)
        for name, value in given.items()
    }
    inner = max(own.values(), default=0)
    if min(own.values(), default=0) < 0:
        raise PlateError(
            f"node '{record.name}' ({record.where}) lies in plates {ir.layout[record.name]}, but its "
            f"distribution has batch shape {tuple(law.batch_shape(given))}: "
            "keep the plates as leading dimensions"
        )
    plated = {name: bool(lead.get(name)) for name in given}
    missing = {name: inner - own[name] for name in given}
    parameters = {name: pad(value, plates * plated[name], missing[name]) for name, value in given.items()}
    return Density(law, parameters, inner, plated, missing)


def _law_of_class(
    dist: type[Distribution], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Law, dict[str, Tensor]]:
    return law_for(dist, bind(dist, args, kwargs))


def taken_apart(dist: Distribution) -> tuple[Law, dict[str, Tensor]]:
    """Return the law and the parameters of a live distribution, all of them with its batch dimensions."""
    law, parameters = law_of(dist)
    return law, law.expand(parameters, law.batch_shape(parameters))


def pad(value: Tensor, lead: int, missing: int) -> Tensor:
    """Insert ``missing`` size-1 dimensions after the ``lead`` leading ones, if there are any."""
    if not lead or not missing:
        return value
    return value[(slice(None),) * lead + (None,) * missing]


def _lead_of_arguments(ir: IR, record: Record, dist: type) -> dict[str, bool]:
    """Say which constructor arguments of a distribution class carry the plates of a parent."""
    marks = record.arguments.substitute(lambda name: bool(ir.layout[name]))
    return {key: mark is True for key, mark in bind(dist, *marks).items()}


def density_of(ir: IR, trace: Trace, record: LogProb) -> Density:
    """Return the density that a log-probability node evaluates."""
    if record.of is not None:
        return trace.densities[record.of]
    assert record.dist is not None
    return _density(ir, trace, record, record.dist)


def _log_prob(ir: IR, trace: Trace, record: LogProb) -> Tensor:
    density = trace.densities[record.name] = density_of(ir, trace, record)
    plates = len(ir.layout[record.name])
    value = seen(ir, record, record.value, trace.values[record.value])
    lead = plates if ir.layout[record.value] else 0
    value = pad(value, lead, density.inner - (value.dim() - density.law.value_rank - lead))
    result: Tensor = call(record, density.law.log_prob, (dict(density.parameters), value), {})
    return result.flatten(plates).sum(-1) if result.dim() > plates else result


def plate_sizes(ir: IR, inputs: Mapping[str, Tensor]) -> dict[str, int]:
    """Read the size of every plate from declarations, parameters and inputs, which must agree."""
    sizes = {name: plate.size for name, plate in ir.plates.items() if plate.size is not None}
    source = dict.fromkeys(sizes, "its declaration")
    held = {name: ir.store.tensors[name] for name in ir.params}
    for name, value in (*held.items(), *inputs.items()):
        plates = ir.layout[name]
        if value.dim() < len(plates):
            raise PlateError(f"'{name}' lies in plates {plates} but has shape {tuple(value.shape)}")
        for plate, size in zip(plates, value.shape, strict=False):
            if sizes.setdefault(plate, size) != size:
                raise PlateError(
                    f"plate '{plate}' has size {sizes[plate]} by {source[plate]}, but '{name}' has shape "
                    f"{tuple(value.shape)} with {size} elements there"
                )
            source.setdefault(plate, f"'{name}'")
    for plate in ir.plates:
        if sizes.get(plate) == 0:
            raise PlateError(f"plate '{plate}' has no elements in {source[plate]}: give at least one")
        if plate not in sizes:
            raise PlateError(
                f"the size of plate '{plate}' is not known: write g.plate(\"{plate}\", size=...)"
            )
    return sizes


def spread(record: Record, density: Density, batch: torch.Size) -> Tensor:
    """Draw an example value: over the whole support where it is finite, so that probes see every case."""
    law, parameters = density.law, dict(density.parameters)
    if law.finite:
        support = law.support(parameters)
        return support[torch.randint(len(support), batch)]
    return sampled(law, parameters, batch)


def other_than(law: Law, parameters: dict[str, Tensor], value: Tensor) -> Tensor:
    """Return another outcome of a finite law for every element of a value."""
    support = law.support(parameters)
    rank = law.value_rank
    batch = value.shape[: value.dim() - rank]
    same = support.view(len(support), *(1,) * len(batch), *support.shape[1:]) == value
    same = same.flatten(len(batch) + 1).all(-1) if rank else same
    step = torch.randint(1, max(len(support), 2), batch, device=value.device)
    other: Tensor = support[(same.int().argmax(0) + step) % len(support)]
    return other


def sampled(law: Law, parameters: dict[str, Tensor], batch: torch.Size) -> Tensor:
    """Draw a value of the given batch shape from torch's global generator."""
    if law.noise == "value":
        return law.sample(parameters, batch)
    shape = law.noise_shape(parameters, batch)
    like = next(iter(parameters.values()))
    dtype = torch.promote_types(like.dtype, torch.float32) if like.is_floating_point() else torch.float32
    if law.noise == "normal":
        return law.draw(parameters, torch.randn(shape, dtype=dtype, device=like.device))
    eps = torch.finfo(dtype).eps
    return law.draw(parameters, torch.rand(shape, dtype=dtype, device=like.device).clamp(eps, 1 - eps))


@contextmanager
def undisturbed(modules: Mapping[str, nn.Module], seed: int = 0) -> Iterator[None]:
    """Run probes under a fixed seed, and leave generators and buffers of modules as they were."""
    buffers = [buffer for module in modules.values() for buffer in module.buffers()]
    saved = [buffer.detach().clone() for buffer in buffers]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        try:
            yield
        finally:
            for buffer, old in zip(buffers, saved, strict=True):
                buffer.copy_(old)
