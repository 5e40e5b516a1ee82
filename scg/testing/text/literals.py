"""Literals: values as Python expressions that make them again, to the last bit."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Write = Callable[[Any], ast.expr]
PLAIN = (bool, int, str, bytes, type(None), type(Ellipsis))
DIGITS = 17
"""The decimal digits that tell any two floats apart."""


class NoTextError(Exception):
    """Something has no text that would make it again; the message says what it is and why."""


def literal(value: Any, write: Write) -> ast.expr | None:
    """Return numbers, strings and containers of what ``write`` writes as an expression, or None.

    >>> def write(item): return literal(item, write)
    >>> ast.unparse(write([1, (-0.5, slice(None, 2))]))
    '[1, (-0.5, slice(None, 2, None))]'
    """
    kind = type(value)
    if kind in PLAIN:
        return ast.Constant(value)
    if kind in (float, complex):
        return _number(value)
    if kind is tuple:
        return ast.Tuple([write(item) for item in value], ast.Load())
    if kind is list:
        return ast.List([write(item) for item in value], ast.Load())
    if kind is dict:
        return ast.Dict([write(key) for key in value], [write(item) for item in value.values()])
    if kind is slice:
        return called("slice", write(value.start), write(value.stop), write(value.step))
    if kind is torch.Size:
        return called("torch.Size", write(list(value)))
    if kind is torch.dtype:
        return parsed(str(value))
    if kind is torch.device:
        return called("torch.device", ast.Constant(str(value)))
    return None


def parsed(text: str) -> ast.expr:
    """Return an expression that is written already."""
    return ast.parse(text, mode="eval").body


def called(name: str, *args: ast.expr, **kwargs: ast.expr) -> ast.Call:
    """Return the call of what has a name."""
    return ast.Call(parsed(name), list(args), [ast.keyword(key, value) for key, value in kwargs.items()])


def _number(value: complex) -> ast.expr:
    if isinstance(value, complex):
        return called("complex", _number(value.real), _number(value.imag))
    if not math.isfinite(value):
        return called("float", ast.Constant(str(value)))
    sign = math.copysign(1.0, value)
    return ast.Constant(value) if sign > 0 else ast.UnaryOp(ast.USub(), ast.Constant(-value))


def of_tensor(tensor: Tensor) -> ast.expr:
    """Return a tensor as an expression, with the fewest digits that give it again in its type.

    >>> ast.unparse(of_tensor(torch.tensor([0.1, 2.0])))
    'torch.tensor([0.1, 2.0])'
    """
    if tensor.layout is not torch.strided or type(tensor) not in (Tensor, nn.Parameter):
        raise NoTextError(f"a {type(tensor).__name__} of layout {tensor.layout}, which has no literal")
    options: dict[str, ast.expr] = {}
    natural = {torch.int64, torch.bool, *({torch.float32} & {torch.get_default_dtype()})}
    if tensor.dtype not in natural or not tensor.numel():
        options["dtype"] = parsed(str(tensor.dtype))
    if tensor.device != torch.get_default_device():
        options["device"] = ast.Constant(str(tensor.device))
    if not tensor.numel():
        made = called("torch.empty", parsed(repr(tuple(tensor.shape))), **options)
    else:
        made = called("torch.tensor", _nested(tensor.detach().cpu()), **options)
    if not isinstance(tensor, nn.Parameter):
        return made
    return called("torch.nn.Parameter", made, **({} if tensor.requires_grad else {"requires_grad": FALSE}))


FALSE = ast.Constant(False)


def _nested(tensor: Tensor) -> ast.expr:
    """Return the numbers of a tensor in nested lists."""
    if tensor.dim():
        return ast.List([_nested(part) for part in tensor], ast.Load())
    value = tensor.item()
    if not isinstance(value, float) or not math.isfinite(value):
        return _number(value) if isinstance(value, (float, complex)) else ast.Constant(value)
    for digits in range(1, DIGITS + 1):
        short = float(f"{value:.{digits}g}")
        if torch.equal(torch.tensor(short, dtype=tensor.dtype), tensor):
            return _number(short)
    return _number(value)
