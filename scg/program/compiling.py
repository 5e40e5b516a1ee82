"""Compiling: what torch.compile is given of a program, what it must not be, and how its refusals are told."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from scg.errors import CompileError
from scg.laws import Law
from scg.nodes.ir import IR
from scg.program.prepare import Prepared
from scg.surrogate.runtime.estimation import Estimation
from scg.surrogate.runtime.randomness import Noise
from scg.surrogate.runtime.sites import Blueprint

Run = Callable[..., dict[str, Any]]

ROOT = re.compile(r"G\['(\w+)'\]")
CODE = re.compile(r"__import_(scg|torch)(_dot_\w+)?|__builtins_dict\w*")


def compiled(run: Run, options: Mapping[str, Any]) -> Run:
    """Return what torch.compile makes of emitted code, with few guards unless the options name a mode."""
    given = dict(options)
    if given.get("mode") is None:
        lean = {"guard_filter_fn": lambda guards: [not is_fixed(guard, run) for guard in guards]}
        given["options"] = {**lean, **(given.get("options") or {})}
    return torch.compile(run, **given)


def is_fixed(guard: Any, run: Run) -> bool:
    """Say whether a guard of torch.compile watches what cannot change while a program lives.

    That is the code of scg and of torch, and the laws, sites and estimators of scg that emitted code holds.
    A control variate has hundreds of such guards, and all are looked at in every call.
    """
    found = ROOT.search(guard.name)
    if found is None:
        return False
    if CODE.fullmatch(found[1]):
        return "backends" not in guard.name  # where torch keeps flags that a user sets
    owner = getattr(run.__globals__.get(found[1]), "__self__", None)
    if isinstance(owner, Estimation):
        return type(owner.estimator).__module__.startswith("scg.")
    return isinstance(owner, (Law, Blueprint))


def check_traceable(ir: IR, prepared: Prepared, given: Noise) -> None:
    """Refuse what torch.compile would drop without a word, or cannot draw from a seed."""
    faults = [
        f"'{name}' ({ir[name].where}): {what} calls an autograd.Function, whose second derivative "
        "torch.compile drops: write it in torch operations, or run the program as it is"
        for name, what in prepared.opaque.items()
    ]
    faults += [
        f"'{name}' has no base noise, so a compiled program cannot draw it from a seed: give "
        "noise=program.draw_noise(seed, **inputs)"
        for name in (ir.samples if given.has_seed else ())
        if name not in given and name not in ir.given
    ]
    if faults:
        raise CompileError("\n".join(faults))


def refusal(ir: IR, name: str | None, error: Exception, options: Mapping[str, Any]) -> CompileError | None:
    """Return an error of torch.compile in words of the graph; None for any other error."""
    if not type(error).__module__.startswith("torch._"):
        return None
    what = "the program" if name is None else f"node '{name}' ({ir[name].where})"
    reason = str(getattr(error, "inner_exception", error)).partition("\n")[0]
    remedy = "run the program without compile()"
    if options["fullgraph"]:
        remedy = "with program.compile(fallback=True) it runs as plain torch between compiled parts"
    return CompileError(f"torch.compile cannot take {what}: {reason}; {remedy}")
