"""Control networks: how the network of an estimator is called at many points at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scg.errors import EstimatorError
from scg.evaluation.probing import undisturbed
from scg.evaluation.vectorise import Parent, Vectorised
from scg.laws import broadcast
from scg.nodes.arguments import Arguments, Ref
from scg.probes.held import holding, moved_parameters, parameters_of
from scg.probes.smoothness import Smoothness, probe
from scg.probes.twice import attached, differentiated_twice, is_attached

ADDED = "#added"
Net = Callable[..., Tensor]
CROSSING = (1.0, -1.0)
"""How far parameters are moved, of their size, to see whether a network joins elements of a plate."""


@dataclass(frozen=True)
class Caller:
    """How the network of one node takes dimensions besides the ``plates`` that it was written for.

    It sees values [*plates, *event] and gives one number for each plate element, a trailing 1 dropped.
    "broadcast" hands it added dimensions of size 1 where a value lacks one, "expand" in full; "fold",
    "vmap" and "loop" are those of ``Vectorised``. ``dtype`` is the type that the network computes in;
    ``is_opaque`` tells that it differentiates by itself, in an ``autograd.Function``.
    """

    mode: str
    plates: int
    dtype: torch.dtype | None = None
    is_opaque: bool = False

    def __call__(self, net: Net, lead: torch.Size, values: Sequence[Tensor]) -> Tensor:
        """Return [*lead] from values [*lead, *event], whose leading dimensions may be 1."""
        rank, added = len(lead), len(lead) - self.plates
        given = [_cast(value, self.dtype) for value in values]
        if self.mode == "broadcast":
            return self._checked(net(*self._shared(lead, given)), lead)
        full = [value.expand(lead + value.shape[rank:]) for value in given]
        if not added or self.mode == "expand":
            return self._checked(net(*full), lead)
        if added > 1:
            full = [value.flatten(0, added - 1) for value in full]
        found = _vectorised(self.mode, len(full), self.plates)(net, *full)
        return self._checked(found, torch.Size((lead[:added].numel(), *lead[added:]))).reshape(lead)

    def _shared(self, lead: torch.Size, given: list[Tensor]) -> list[Tensor]:
        """Expand the points in full, and context to the leading dimensions that some of it has."""
        rank, (points, *context) = len(lead), given
        plates = torch.Size((1,) * (rank - self.plates)) + lead[rank - self.plates :]
        common = broadcast(plates, *(value.shape[:rank] for value in context))
        return [points, *(value.expand(common + value.shape[rank:]) for value in context)]

    def _checked(self, found: Tensor, lead: torch.Size) -> Tensor:
        if not isinstance(found, Tensor):
            raise EstimatorError(f"a control network gives a tensor, this one gave a {type(found).__name__}")
        if found.shape == lead:
            return found
        if found.shape[: len(lead)] != lead or found.numel() != lead.numel():
            raise EstimatorError(
                f"a control network gives one value for each of {lead.numel()} plate elements, this one gave "
                f"shape {tuple(found.shape)}: let it end in one output, summed over the event"
            )
        return found.reshape(lead)


def walked(module: nn.Module) -> list[nn.Module]:
    """Return a module and all inside it, as ``modules()`` does in several times the time."""
    found: list[nn.Module] = []
    level = [module]
    while level:
        found += level
        level = [child for part in level for child in part._modules.values() if child is not None]
    return found


def _vectorised(mode: str, count: int, plates: int) -> Vectorised:
    names = [str(index) for index in range(count)]
    parents = {name: Parent((ADDED,), None, plates > 0, True) for name in names}
    return Vectorised(Arguments(tuple(map(Ref, names))), parents, (ADDED,), mode)


def _dtype(net: Net) -> torch.dtype | None:
    """Return the type of the numbers that a network computes with, if it has any of its own."""
    parameter = next(net.parameters(), None) if isinstance(net, nn.Module) else None
    return parameter.dtype if parameter is not None and parameter.is_floating_point() else None


def _cast(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None or value.dtype == dtype or not value.is_floating_point():
        return value
    return value.to(dtype)


def caller(
    node: str, net: Net, examples: Sequence[tuple[Tensor, ...]], plates: int, *, reads_points: bool
) -> Caller:
    """Find how a network takes an added dimension: the first way that agrees with a loop over examples.

    Each of ``examples`` has the values of one evaluation, [*plates, *event] with no size-1 dimensions,
    points first if it reads them.
    """
    values = [torch.stack(several) for several in zip(*examples, strict=True)]
    lead = values[0].shape[: 1 + plates]
    modules = {"net": net} if isinstance(net, nn.Module) else {}
    dtype = _dtype(net)

    def attempt(mode: str, values: Sequence[Tensor]) -> Tensor:
        with undisturbed(modules), torch.no_grad():
            return Caller(mode, plates, dtype)(net, lead, values)

    try:
        Caller("loop", plates, dtype)(net, lead[1:], examples[0])
        expected = attempt("loop", values)
    except EstimatorError as error:
        raise EstimatorError(f"the network of '{node}': {error}") from None
    except Exception as error:
        seen = ", ".join(str(tuple(value.shape[1:])) for value in values)
        raise EstimatorError(
            f"the network of '{node}' raised {type(error).__name__} on values of shape {seen}: {error}"
        ) from error
    if not bool(expected.isfinite().all()):
        raise EstimatorError(f"the network of '{node}' gives numbers that are not finite")
    is_opaque = reads_points and _is_opaque(
        node, net, lambda points: Caller("loop", plates, dtype)(net, lead[1:], points), examples[0]
    )
    _refuse_crossings(node, net, attempt, values, plates)
    modes = (*(("broadcast",) if reads_points else ()), "expand", *(("fold",) if plates else ()), "vmap")
    for mode in modes:
        given = [values[0], *(value[:1] for value in values[1:])] if mode == "broadcast" else values
        try:
            agree = torch.allclose(attempt(mode, given), attempt("loop", given), rtol=1e-4, atol=1e-5)
        except Exception:  # noqa: BLE001 - of an arbitrary network
            continue
        if agree:
            return Caller(mode, plates, dtype, is_opaque)
    return Caller("loop", plates, dtype, is_opaque)


def _is_opaque(
    node: str, net: Net, evaluate: Callable[[Sequence[Tensor]], Tensor], example: tuple[Tensor, ...]
) -> bool:
    """Refuse a network that is not smooth in the node's value; say whether it differentiates by itself."""
    point = {str(index): value for index, value in enumerate(example)}
    modules = [net] if isinstance(net, nn.Module) else []
    verdict = probe(lambda values: evaluate([values[name] for name in point]), point, "0", modules=modules)
    if verdict.smoothness is Smoothness.BROKEN:
        raise EstimatorError(
            f"the network of '{node}' is not smooth in the value of '{node}': {verdict.reason}. That biases "
            "the gradient; give one that is continuous, without detach or rounding"
        )
    with torch.enable_grad():
        point["0"] = attached(example[0])
        outputs = [evaluate(list(point.values()))]
        found = differentiated_twice(list(filter(is_attached, outputs)), [point["0"]])
    if found.fault is not None:
        raise EstimatorError(f"the network of '{node}': {found.fault}")
    return found.is_opaque


def _refuse_crossings(
    node: str, net: Net, attempt: Callable[[str, list[Tensor]], Tensor], values: list[Tensor], plates: int
) -> None:
    """Refuse a network that joins plate elements, at its parameters or off them, at this size or another.

    A scale or a last layer of 0 would hide what comes before it.
    """
    held = parameters_of([net]) if isinstance(net, nn.Module) else []
    for scale in (0.0, *CROSSING):
        with holding(moved_parameters(held, 0, scale) if scale else ()):
            _refuse_crossing(node, lambda given: attempt("loop", given), values, plates)
            for dim in range(1, plates + 1):
                larger = [torch.cat([value, value.flip(dim)], dim) for value in values]
                if _runs(lambda given: attempt("loop", given), larger):  # it may be made for one size
                    _refuse_crossing(node, lambda given: attempt("loop", given), larger, plates)


def _runs(evaluate: Callable[[list[Tensor]], Tensor], values: list[Tensor]) -> bool:
    try:
        evaluate(values)
    except Exception:  # noqa: BLE001 - of an arbitrary network
        return False
    return True


def _refuse_crossing(
    node: str, evaluate: Callable[[list[Tensor]], Tensor], values: list[Tensor], plates: int
) -> None:
    """Refuse a network whose result for one plate element depends on another, which credit relies on."""
    expected = evaluate(values)
    for dim in range(1, plates + 1):
        size = expected.shape[dim]
        moved = torch.arange(size, device=expected.device) % 2 == 0
        for change in (0.7, -20.0):
            other = [
                torch.where(moved.view(-1, *(1,) * (value.dim() - dim - 1)), value + change, value)
                if value.is_floating_point()
                else value
                for value in values
            ]
            found = evaluate(other)
            kept = found.index_select(dim, (~moved).nonzero().squeeze(-1))
            wanted = expected.index_select(dim, (~moved).nonzero().squeeze(-1))
            if not torch.allclose(kept, wanted, rtol=1e-4, atol=1e-5, equal_nan=True):
                raise EstimatorError(
                    f"the network of '{node}' lets plate elements influence each other, as batch "
                    "normalisation does: that biases the gradient. Give one that treats each element alone"
                )
