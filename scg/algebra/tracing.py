"""Tracing: a function of tensors as the operations that torch makes of it, derivatives among them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from torch import fx
from torch._decomp import core_aten_decompositions
from torch.distributions import Distribution
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from scg.errors import ScgError, UnreadableError

Traced: TypeAlias = fx.GraphModule
"""The operations of a function."""
WHOLE = ("softplus", "softplus_backward", "log_sigmoid_forward", "native_layer_norm", "elu", "gelu", "silu")
"""Operations that stay as they are, and are read at once."""
TABLE = {
    op: written
    for op, written in core_aten_decompositions().items()
    if str(op).removeprefix("aten.").partition(".")[0] not in WHOLE
}


@contextmanager
def unchecked() -> Iterator[None]:
    """Have distributions that functions make take their parameters unchecked, which looks at values."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


def traced(fn: Callable[..., Any], *arguments: Any, what: str) -> Traced:
    """Return the operations of a function of trees of tensors; errors name it by ``what``."""
    with unchecked(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = make_fx(functionalize(lambda *given: fn(*given)), decomposition_table=TABLE)(*arguments)
        except ScgError as error:
            raise UnreadableError(f"{what} cannot be traced: {_first(error)}") from error
        except Exception as error:
            raise UnreadableError(
                f"{what} cannot be traced: {type(error).__name__}: {_first(error)} It has to be made of "
                "torch's operations, without NumPy or a look at values; or scg.symbolic.register a twin of it"
            ) from error
    made.graph.eliminate_dead_code()
    made.recompile()
    return made


def _first(error: BaseException) -> str:
    """Return what an error says first; of a look at a value, what that is."""
    text = (str(error).strip().splitlines() or [""])[0]
    for sign in (
        "It appears that you're trying to get value",
        "vmap: It looks like you're",
        "Cannot access data",
    ):
        before, found, _ = text.partition(sign)
        if found:
            return f"{before}a look at a value, as of x.item(), `if x:`, an index by a tensor, or NumPy."
    return text[:200]
