"""Coupled noise: which nodes draw theirs together across replicates, and what cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from scg.analysis.facts import Facts
from scg.coupling import ANTITHETIC, DIMENSIONS, INDEPENDENT, SCHEMES, SOBOL, dimensions
from scg.errors import EstimatorError, PolicyError
from scg.nodes.ir import IR

Scheme = str | Mapping[str, str] | None
"""How noise is drawn across replicates: by one word, or by the names of nodes, also with wildcards."""


def schemes(ir: IR, noise: Scheme, samples: int | None) -> dict[str, str]:
    """Return the scheme of every node whose noise is coupled; exact names win over wildcards."""
    if noise is None:
        return {}
    wanted = _matched(ir, noise)
    found = {name: scheme for name, scheme in wanted.items() if scheme != INDEPENDENT}
    if found and (samples or 1) < 2:
        raise PolicyError(f"noise={noise!r} couples replicates: compile with samples=2 or more")
    pairs = [name for name, scheme in found.items() if scheme == ANTITHETIC]
    if pairs and samples is not None and samples % 2:
        raise PolicyError(f"'{pairs[0]}': antithetic replicates come in pairs, and samples={samples} is odd")
    return found


def _matched(ir: IR, noise: str | Mapping[str, str]) -> dict[str, str]:
    """Return the word for every node, the later of several matching keys unless there is an exact one."""
    if isinstance(noise, str):
        return dict.fromkeys(ir.samples, _known(noise))
    if not isinstance(noise, Mapping):
        raise PolicyError(f"noise= takes a word or a dict by names of nodes, not a {type(noise).__name__}")
    found: dict[str, str] = {}
    for key in sorted(noise, key=lambda key: key in ir):
        matching = [name for name in ir.samples if fnmatchcase(name, key)]
        if not matching:
            there = ", ".join(ir.samples) or "none"
            raise PolicyError(f"noise key '{key}' is no stochastic node; the stochastic nodes are {there}")
        found.update(dict.fromkeys(matching, _known(noise[key])))
    return found


def _known(scheme: str) -> str:
    if scheme not in SCHEMES:
        raise PolicyError(f"noise= takes {', '.join(map(repr, SCHEMES))}, not {scheme!r}")
    return scheme


def check_coupled(facts: Facts, found: Mapping[str, str]) -> None:
    """Refuse nodes without base noise, and sequences of more dimensions than there are."""
    for name, scheme in found.items():
        if name not in facts.noise:
            raise EstimatorError(
                f"'{name}' ({facts.ir[name].where}): a {facts.trace.densities[name].law.family} is drawn "
                f'without base noise, which noise="{scheme}" would couple: give noise= by names, and '
                f'"{name}" as "{INDEPENDENT}"'
            )
    sobol = [name for name, scheme in found.items() if scheme == SOBOL]
    for plates in {facts.ir.layout[name] for name in sobol}:
        several = [name for name in sobol if facts.ir.layout[name] == plates]
        _check_size(several, dimensions([facts.noise[name] for name in several]))


def _check_size(names: Sequence[str], size: int) -> None:
    if size > DIMENSIONS:
        raise EstimatorError(
            f'noise="{SOBOL}": {", ".join(names)} draw {size} numbers together, and the sequence has at '
            f'most {DIMENSIONS} dimensions: give "{ANTITHETIC}" or "{INDEPENDENT}" for some of them'
        )
