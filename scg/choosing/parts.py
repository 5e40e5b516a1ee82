"""Parts: several estimators at one node, each for some of the costs that the node reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from scg.errors import PolicyError
from scg.estimators.protocol.kinds import Estimator
from scg.estimators.registry import asked_for, by_name

Costs = str | tuple[str, ...]


class Parts:
    """One estimator for each of several groups of costs at a node, as by linearity of the gradient.

    J is a sum over costs, and each estimator sees the graph with its own costs alone:
    ``Parts({"elbo": "rebar", "reward": scg.Score(baseline="moving-average")})``. The keys of ``by_cost`` are
    names of costs, patterns as in "reward_*", or tuples of them; together they name every cost that the node
    reaches; a name wins over patterns, and "*" is the rest.
    """

    name = "parts"

    def __init__(self, by_cost: Mapping[Costs, str | Estimator], *, reason: str = "asked for") -> None:
        """Take an estimator for each key, as an instance, or by a name that makes one at every node.

        ``reason`` says why it was chosen.
        """
        if not isinstance(by_cost, Mapping) or not by_cost:
            raise PolicyError(
                f'scg.Parts takes a dict from costs to estimators, as {{"cost": "score"}}, not {by_cost!r}'
            )
        self.reason = reason
        self.by_cost = {_several(key): _estimator(entry) for key, entry in by_cost.items()}

    def __repr__(self) -> str:
        shown = {key if len(key) > 1 else key[0]: entry for key, entry in self.by_cost.items()}
        return f"Parts({shown!r})"

    def shared_out(self, node: str, costs: Sequence[str], others: Sequence[str]) -> list[Part]:
        """Return a part for each estimator, with its share of the ``costs`` that a node reaches.

        ``others`` are the costs that it does not reach.
        """
        for pattern in (pattern for patterns in self.by_cost for pattern in patterns):
            if not any(fnmatchcase(cost, pattern) for cost in (*costs, *others)):
                raise PolicyError(
                    f"the parts of '{node}' name '{pattern}', which is no cost; '{node}' reaches "
                    f"{', '.join(costs) or 'none'}"
                )
        owners = {cost: self._owner(node, cost) for cost in costs}
        left = [cost for cost, owner in owners.items() if owner is None]
        if left:
            raise PolicyError(
                f"the parts of '{node}' leave out {', '.join(left)}, which '{node}' reaches: name every "
                'cost, or give the rest as "*"'
            )
        found: dict[str, Part] = {}
        for patterns, entry in self.by_cost.items():
            own = tuple(cost for cost in costs if owners[cost] == patterns)
            if own:
                key = "_".join(own)
                while key in found:  # as that of costs "a" and "b" beside "a_b"
                    key += "_"
                found[key] = Part(key, own, by_name(entry) if isinstance(entry, str) else entry)
        return list(found.values())

    def _owner(self, node: str, cost: str) -> tuple[str, ...] | None:
        """Return the key that a cost belongs to: that which names it, else the last that matches."""
        naming = [patterns for patterns in self.by_cost if cost in patterns]
        if len(naming) > 1:
            raise PolicyError(f"the parts of '{node}' name cost '{cost}' twice: each cost has one estimator")
        matching = [ps for ps in self.by_cost if any(fnmatchcase(cost, pattern) for pattern in ps)]
        several = naming or matching
        return several[-1] if several else None


@dataclass(frozen=True, eq=False)
class Part:
    """What one estimator is for: some costs, under a key that names them in controls and emitted code."""

    key: str
    costs: tuple[str, ...]
    estimator: Estimator


def _several(key: Costs) -> tuple[str, ...]:
    several = key if isinstance(key, tuple) else (key,)
    if not several or not all(isinstance(name, str) for name in several):
        raise PolicyError(f"the keys of scg.Parts are names of costs, or tuples of them, not {key!r}")
    return several


def _estimator(entry: str | Estimator) -> str | Estimator:
    """Return an entry that is right; a name stays one, as the nodes of one instance share its network."""
    found = asked_for(entry, "scg.Parts")
    return entry if isinstance(entry, str) else found
