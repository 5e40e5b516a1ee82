"""Devices and types of numbers by their names, refused by name where they are not there."""

from __future__ import annotations

import torch

from scg.errors import RunError

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def device(name: str) -> torch.device:
    """Return the device called ``name``, as "cpu" or "cuda:1", on which a number was put first.

    >>> device("cpu")
    device(type='cpu')
    """
    try:
        found = torch.device(name)
        torch.zeros(1, device=found).add_(1).item()
    except (AssertionError, ImportError, NotImplementedError, RuntimeError) as error:
        told = f"there is no device '{name}'; there are {', '.join(devices())}"
        raise RunError(told) from error
    return found


def devices() -> list[str]:
    """Return the names of the devices that are there."""
    if not torch.accelerator.is_available():
        return ["cpu"]
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    return ["cpu", *(f"{kind.type}:{index}" for index in range(torch.accelerator.device_count()))]


def dtype(name: str) -> torch.dtype:
    """Return the type of numbers called ``name``.

    >>> dtype("float64")
    torch.float64
    """
    if name not in DTYPES:
        raise RunError(f"there is no dtype '{name}'; there are {', '.join(DTYPES)}")
    return DTYPES[name]
