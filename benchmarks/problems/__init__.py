"""The problems, by name: each module gives contests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.contest import Contest, Settings
from benchmarks.problems import (
    chain,
    compiling,
    episode,
    layers,
    replicates,
    siblings,
    states,
    toy,
    vae,
    variance,
)

PROBLEMS: dict[str, Callable[[Settings], Iterator[Contest]]] = {
    "toy": toy.contests,
    "vae": vae.contests,
    "chain": chain.contests,
    "states": states.contests,
    "siblings": siblings.contests,
    "replicates": replicates.contests,
    "layers": layers.contests,
    "variance": variance.contests,
    "episode": episode.contests,
    "compile": compiling.contests,
}
