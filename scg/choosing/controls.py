"""Controls: what estimators learn or remember at their nodes, made once and checked against the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from scg.analysis.facts import Facts
from scg.analysis.influence import below
from scg.analysis.soft import perturbed_value
from scg.choosing.choice import Choice, View, views
from scg.choosing.describe import node_facts
from scg.choosing.networks import Caller, caller
from scg.errors import EstimatorError, PolicyError
from scg.estimators.protocol.kinds import Estimator
from scg.evaluation.probing import undisturbed
from scg.laws import Relaxable
from scg.nodes.ir import IR
from scg.nodes.plates import positions
from scg.nodes.records import Sample


@dataclass(frozen=True)
class Controlled:
    """What is known of the controls of one node.

    ``context`` names the nodes that its network reads, and ``caller`` tells how that is called, if there is
    one. ``is_learned`` tells whether there are parameters.
    """

    context: tuple[str, ...]
    caller: Caller | None
    is_learned: bool

    @property
    def is_opaque(self) -> bool:
        """Whether there is a network that differentiates by itself."""
        return self.caller is not None and self.caller.is_opaque


def controlled(
    facts: Facts, choices: Mapping[str, Choice], samples: int | None, controls: nn.ModuleDict
) -> dict[str, Controlled]:
    """Fill ``controls`` for the nodes whose estimators have some, and return what is known of each."""
    found: dict[str, Controlled] = {}
    networks: dict[int, tuple[str, Any]] = {}
    for name, choice in choices.items():
        for view in views(facts, name, choice):
            held = controls
            if choice.parts:
                held = cast(nn.ModuleDict, controls[name]) if name in controls else nn.ModuleDict()
            if _learned(name, view, samples, held, networks):
                found[view.key] = _controlled(name, view, held)
                if held is not controls:
                    controls[name] = held
    _check_groups(facts.ir, controls)
    return found


def _learned(
    name: str, view: View, samples: int | None, held: nn.ModuleDict, networks: dict[int, tuple[str, Any]]
) -> bool:
    """Make the controls of an estimator where there are none; say whether it has any."""
    estimator, last = view.choice.estimator, view.last
    assert isinstance(estimator, Estimator)
    _context(view.facts, name, view.choice)  # refused before a network is made for it
    if last in held:
        return True
    made = estimator.learns(node_facts(view.facts, name, samples, view.choice.coupled))
    if made is None:
        return False
    if hasattr(held, last):
        raise PolicyError(
            f"'{last}' is a name that torch's dictionaries of modules use for themselves, so that "
            f"{estimator.name} can learn nothing there: rename it, as to '{last}_node'"
        )
    _share(networks, name, estimator, made)
    _place(made, view.facts.trace.values[name].device)
    held[last] = made
    return True


def _place(made: nn.Module, device: torch.device) -> None:
    """Put what an estimator learns where its node is; a network that the user gave stays where it is."""
    net, given = getattr(made, "net", None), set[Tensor]()
    if isinstance(net, nn.Module) and not type(net).__module__.startswith("scg."):
        given = {*net.parameters(), *net.buffers()}
    for tensor in (*made.parameters(), *made.buffers()):
        if tensor not in given:
            tensor.data = tensor.data.to(device)


def _controlled(name: str, view: View, held: nn.ModuleDict) -> Controlled:
    """Find what is known of the controls of an estimator."""
    context, module = _context(view.facts, name, view.choice), held[view.last]
    net = getattr(module, "net", None)
    how = None if net is None else _probed(view.facts, name, view.choice, net, context)
    return Controlled(context, how, any(True for _ in module.parameters()))


def _share(networks: dict[int, tuple[str, Any]], name: str, estimator: Estimator, made: nn.Module) -> None:
    """Give the nodes of one instance the same network."""
    net = getattr(made, "net", None)
    if net is None:
        return
    owner, shared = networks.setdefault(id(estimator), (name, net))
    if shared is not net:
        own = [(key, value.shape) for key, value in net.state_dict().items()]
        if own != [(key, value.shape) for key, value in shared.state_dict().items()]:
            raise EstimatorError(
                f"one instance of {estimator.name} was given to '{owner}' and '{name}', which would "
                f"share its network, but differ in shape: give each an instance, or the name "
                f'"{estimator.name}"'
            )
        made.net = shared


def _context(facts: Facts, name: str, choice: Choice) -> tuple[str, ...]:
    """Return the nodes that a network reads, and refuse those that the node influences."""
    ir, names = facts.ir, choice.asks.context
    if names is None:
        return ()
    if not names:
        return tuple(other for other in ir[name].arguments.names if is_readable(facts, other))
    unknown = [other for other in names if other not in ir]
    if unknown:
        there = [other for other in ir if other != name and is_readable(facts, other)]
        raise PolicyError(
            f"context of '{name}' names nodes that are not there: {unknown}; there are {there[:8]}"
        )
    wrong = [other for other in names if other in _influenced(ir, name)]
    if wrong:
        raise PolicyError(
            f"the network of '{name}' reads {wrong}, which '{name}' influences: that biases the gradient. "
            f"Give context= nodes that '{name}' does not reach"
        )
    own = ir.layout[name]
    apart = [other for other in names if not set(ir.layout[other]) <= set(own) and own]
    if apart:
        raise PolicyError(
            f"the network of '{name}' reads {apart}, which have plates that '{name}' lacks: "
            "give an aggregate over those plates"
        )
    return names


def is_readable(facts: Facts, name: str) -> bool:
    """Say whether a network can read a node: a tensor of numbers."""
    value = facts.trace.values[name]
    return isinstance(value, Tensor) and value.is_floating_point()


def _probed(facts: Facts, name: str, choice: Choice, net: Any, context: tuple[str, ...]) -> Caller:
    """Find how a network is called, on values of several evaluations."""
    ir, plates = facts.ir, facts.ir.layout[name]
    if not context and not choice.asks.points:
        raise EstimatorError(
            f"the network of '{name}' has nothing to read, as no parent is floating point: give context="
        )
    examples: list[tuple[Tensor, ...]] = []
    for world in facts.worlds:
        values = [world.values[other][positions(ir.layout[other], plates)] for other in context]
        if choice.asks.points:
            density = world.densities[name]
            value = world.values[name]
            if isinstance(density.law, Relaxable):
                with undisturbed({}, len(examples)):
                    value = perturbed_value(density, world.event_batch(name))
            values.insert(0, value)
        lead = torch.Size(world.sizes[plate] for plate in plates)
        examples.append(tuple(value.expand(lead + value.shape[len(plates) :]) for value in values))
    return caller(name, net, examples, len(plates), reads_points=choice.asks.points)


def _check_groups(ir: IR, controls: nn.ModuleDict) -> None:
    """Refuse a parameter that is both the model's and a control."""
    model = {id(tensor): name for name, tensor in ir.store.tensors.items()}
    for name, module in ir.store.modules.items():
        model.update({id(value): f"{name}.{key}" for key, value in module.named_parameters()})
    for key, parameter in controls.named_parameters():
        if id(parameter) in model:
            raise PolicyError(
                f"control parameter '{key}' is a parameter of the graph as well: "
                f"give the estimator a network of its own (the graph holds it as '{model[id(parameter)]}')"
            )


def _influenced(ir: IR, name: str) -> set[str]:
    """Return the nodes that a sample influences, also where values were drawn elsewhere."""
    found = {*below(ir, name), name}
    for record in (ir[other] for other in ir.given if other in found):
        assert isinstance(record, Sample)
        for drawn in record.drawn:
            found.update((drawn, *below(ir, drawn)))
    return found
