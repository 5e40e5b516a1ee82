"""Policies as they are written in commands: estimators by name, for all layers or for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

import scg
from scg.experiments.vae.controls import Input, Reading
from scg.experiments.vae.model import Spec
from scg.runs import named_nearest

BASELINES = ("moving-average", "leave-one-out", "self-critical")
TAKE_BASELINES = {"score": scg.Score, "rebar": scg.REBAR, "muprop": scg.MuProp}


@dataclass(frozen=True)
class Written:
    """A policy as it is written: the estimator and the baseline of each layer, and replicates."""

    text: str
    choices: tuple[tuple[str, str | None], ...]
    replicates: int | None


def written(text: str, spec: Spec) -> Written:
    """Read a policy: ``relax``, ``score leave-one-out 4``, ``b1=relax,b2=rebar 2``."""
    words = text.split()
    replicates = int(words.pop()) if words and words[-1].isdigit() else None
    if replicates == 0 or not words:
        raise scg.PolicyError(f"'{text}' is no policy: write as relax, or score leave-one-out 4")
    parts = dict(part.partition("=")[::2] for part in words[0].split(",")) if "=" in words[0] else {}
    strange = [node for node in parts if node not in spec.names]
    if strange:
        raise scg.PolicyError(f"'{text}': {named_nearest('layer', strange[0], spec.names)}")
    missing = [node for node in spec.names if parts and node not in parts]
    if missing:
        raise scg.PolicyError(f"'{text}' has no estimator for {missing[0]}: write {missing[0]}=... as well")
    baseline = _baseline(text, words[1:])
    if baseline == "leave-one-out" and (replicates or 1) < 2:
        told = f"leave-one-out compares replicates: say how many, as in '{' '.join(words)} 4'"
        raise scg.PolicyError(f"'{text}': {told}")
    choices = tuple((_known(text, parts.get(node, words[0])), baseline) for node in spec.names)
    return Written(text, choices, replicates)


def _known(text: str, name: str) -> str:
    names = scg.estimator_names()
    if name not in names:
        raise scg.PolicyError(f"'{text}': {named_nearest('estimator', name, names)}")
    return name


def _baseline(text: str, words: Sequence[str]) -> str | None:
    if not words:
        return None
    if len(words) > 1:
        raise scg.PolicyError(f"'{text}' is more than an estimator, a baseline and a number of replicates")
    if words[0] not in BASELINES:
        raise scg.PolicyError(f"'{text}': {named_nearest('baseline', words[0], BASELINES)}")
    return words[0]


def policy_of(found: Written, spec: Spec, mean: Tensor, seeds: Sequence[int]) -> dict[str, Any]:
    """Return the estimators of all nodes, those that learn networks with one for each run."""
    policy: dict[str, Any] = {}
    for layer, (node, (name, baseline)) in enumerate(zip(spec.names, found.choices, strict=True)):
        read = [Input("image", tuple(mean.shape)), *([Input("latents", spec.event)] if layer else [])]
        context = ("x", spec.names[layer - 1]) if layer else ("x",)
        if name == "relax":
            net = Reading([Input("logits", spec.event), *read], mean, seeds, nn.ReLU).to(mean)
            policy[node] = scg.RELAX(net=net, context=context, baseline=baseline)
        elif name == "nvil" and baseline is None:
            net = Reading(read, mean, seeds, nn.Tanh).to(mean)
            policy[node] = scg.NVIL(net=net, context=context, each="run")
        elif name in TAKE_BASELINES:
            own = scg.MovingAverage(each="run") if baseline == "moving-average" else baseline
            policy[node] = TAKE_BASELINES[name](baseline=own)
        elif baseline is None:
            policy[node] = name
        else:
            takes = ", ".join([*TAKE_BASELINES, "relax"])
            raise scg.PolicyError(f"'{found.text}': {name} takes no baseline; {takes} do")
    return policy


def compiled(graph: scg.Graph, found: Written, policy: dict[str, Any]) -> tuple[scg.Program, bool]:
    """Return a program, and whether its gradients are unbiased, as its estimators say themselves."""
    try:
        return scg.compile(graph, policy, samples=found.replicates), True
    except scg.BiasedEstimatorError:
        return scg.compile(graph, policy, samples=found.replicates, allow_biased=True), False
