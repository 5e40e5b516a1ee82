"""Expressions: calls of a tape as Python text, with the parentheses that they need and no others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scg.errors import ExportError
from scg.export.sizes import Size
from scg.export.spelling import OPERATORS, SIGNS, is_method, is_property, public_name, spelled
from scg.export.tape import Call, Kept, Outside, Ref, Suffix

ATOM, POSTFIX, POWER, UNARY = 20, 18, 16, 15
PRECEDENCE = {"**": POWER, "*": 13, "/": 13, "//": 13, "%": 13, "@": 13, "+": 12, "-": 12}
PRECEDENCE.update({"&": 10, "^": 9, "|": 8, **dict.fromkeys(("<", ">", "<=", ">=", "==", "!="), 6)})
REFLECTED = ("__rsub__", "__rtruediv__", "__rdiv__", "__rpow__", "__rfloordiv__", "__rmod__", "__rmatmul__")


class Text(NamedTuple):
    """Python text, and how strongly it binds."""

    text: str
    binds: int = ATOM

    def within(self, strength: int) -> str:
        """Return the text as an operand of something that binds as strongly as ``strength``."""
        return self.text if self.binds >= strength else f"({self.text})"


Operand = Callable[[Ref], Text]


def written(call: Call, operand: Operand, numbers: Mapping[Ref, Any]) -> Text:
    """Return a call as text; ``numbers`` has the values that can be plain numbers beside a tensor."""
    target, args, kwargs = call.target, call.args, dict(call.kwargs)
    if isinstance(target, Suffix):
        return Text(operand(args[0]).within(POSTFIX) + target.text, POSTFIX)
    if isinstance(target, Outside):
        return _outside(target, args, kwargs, operand)
    name = spelled(target)
    if kwargs.get("device") is not None and getattr(kwargs["device"], "type", "") == "cpu":
        del kwargs["device"]
    if kwargs.get("inplace") is False:
        del kwargs["inplace"]
    if target is torch.autograd.grad:
        args, kwargs = _of_grad(args, kwargs)
    if name in OPERATORS and len(args) == 2 and not kwargs:
        return _infix(name, args, operand, numbers)
    if name in SIGNS and len(args) == 1:
        return Text(SIGNS[name] + value(args[0], operand).within(UNARY), UNARY)
    if name == "__getitem__":
        return Text(f"{value(args[0], operand).within(POSTFIX)}[{_index(args[1], operand)}]", POSTFIX)
    if is_property(target):
        return Text(f"{value(args[0], operand).within(POSTFIX)}.{name}", POSTFIX)
    if name == "register_hook":
        surrogate = operand(args[0])
        hook = f"{surrogate.within(POSTFIX)}.register_hook(refuse_second_order)"
        return Text(f"if {surrogate.within(POSTFIX)}.requires_grad:\n    {hook}", POSTFIX)
    shown = public_name(target)
    if is_method(target) and isinstance(args[0], Ref) and not name.startswith("_"):
        inside = _arguments(args[1:], kwargs, operand)
        return Text(f"{operand(args[0]).within(POSTFIX)}.{name}({inside})", POSTFIX)
    if shown is None:
        raise ExportError(f"{name or target!r} has no public name in torch")
    return Text(f"{shown}({_arguments(args, kwargs, operand)})", POSTFIX)


def _of_grad(args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the arguments of ``torch.autograd.grad`` without those that say what is so anyway."""
    if kwargs.get("materialize_grads"):
        kwargs = {key: item for key, item in kwargs.items() if key != "allow_unused"}
    said = {
        key: item
        for key, item in kwargs.items()
        if item is not None and item is not False and key != "only_inputs"
    }
    alone = [item[0] if isinstance(item, (tuple, list)) and len(item) == 1 else item for item in args]
    outputs = said.pop("grad_outputs", None)
    if outputs is not None:
        alone.append(outputs[0] if isinstance(outputs, list) and len(outputs) == 1 else outputs)
    return tuple(alone), said


def _outside(target: Outside, args: Any, kwargs: Mapping[str, Any], operand: Operand) -> Text:
    if target.how.startswith("mapped"):
        values, dims, given, named = args
        return _mapped(target, values, dims, given, named, operand)
    inside = _arguments(args, kwargs, operand)
    if target.how == "plain":
        return Text(f"{target.name}({inside})", POSTFIX)
    helper = {"boxed": "black_box", "copied": "on_copied_buffers"}[target.how]
    return Text(f"{helper}({target.name}{', ' if inside else ''}{inside})", POSTFIX)


def _mapped(target: Outside, values: Any, dims: Any, args: Any, kwargs: Any, operand: Operand) -> Text:
    """Return a function mapped over dimensions of values, with what else it is given."""
    shown = [operand(ref).text for ref in values]
    inner = [text if text.isidentifier() else f"value_{index}" for index, text in enumerate(shown)]
    named = dict(zip(values, inner, strict=True))
    fn = target.name
    if args != values or kwargs or not fn.isidentifier():
        call = _arguments(args, kwargs, lambda ref: Text(named[ref]))
        fn = f"lambda {', '.join(inner)}: {fn}({call})"
    return Text(f'torch.vmap({fn}, {dims!r}, randomness="different")({", ".join(shown)})', POSTFIX)


def _infix(name: str, args: Any, operand: Operand, numbers: Mapping[Ref, Any]) -> Text:
    sign = OPERATORS[name]
    first, second = args[::-1] if name in REFLECTED else args
    strength = PRECEDENCE[sign]
    operands = [
        value(numbers[item], operand)
        if isinstance(item, Ref) and item in numbers and isinstance(other, Ref) and other not in numbers
        else value(item, operand)
        for item, other in ((first, second), (second, first))
    ]
    if sign in "+*" and not isinstance(first, Ref) and operands[0].text.startswith("-"):
        strength = UNARY
    left = strength + (sign == "**" or strength == 6)
    right = strength + (sign != "**")
    if sign == "+" and operands[1].text.startswith("-") and operands[1].binds >= UNARY:
        return Text(f"{operands[0].within(left)} - {operands[1].text[1:]}", PRECEDENCE["-"])
    return Text(f"{operands[0].within(left)} {sign} {operands[1].within(right)}", PRECEDENCE[sign])


def _arguments(args: Any, kwargs: Mapping[str, Any], operand: Operand) -> str:
    several = [value(item, operand).text for item in args]
    return ", ".join([*several, *(f"{key}={value(item, operand).text}" for key, item in kwargs.items())])


def value(item: Any, operand: Operand) -> Text:
    """Return what a call takes as text."""
    if isinstance(item, Ref):
        return operand(item)
    if isinstance(item, Size):
        return Text(item.text, ATOM if item.is_name else 12)
    if isinstance(item, (tuple, torch.Size)):
        inside = ", ".join(value(part, operand).text for part in item)
        return Text(f"({inside},)" if len(item) == 1 else f"({inside})")
    if isinstance(item, list):
        return Text(f"[{', '.join(value(part, operand).text for part in item)}]")
    if isinstance(item, dict):
        pairs = (f"{key!r}: {value(part, operand).text}" for key, part in item.items())
        return Text("{" + ", ".join(pairs).replace("'", '"') + "}")
    if isinstance(item, float) and not math.isfinite(item):
        return (
            Text("torch.nan") if math.isnan(item) else Text("torch.inf" if item > 0 else "-torch.inf", UNARY)
        )
    if isinstance(item, (int, float)) and not isinstance(item, bool):
        return Text(repr(item), ATOM if item >= 0 else UNARY)
    if isinstance(item, torch.device):
        return Text(f'torch.device("{item}")')
    if item is None or item is ... or isinstance(item, (bool, complex, torch.dtype, torch.layout)):
        return Text("..." if item is ... else repr(item))
    if isinstance(item, str):
        return Text(_quoted(item))
    raise ExportError(f"a {type(item).__name__} is an argument of a call, and cannot be written")


def literal(tensor: Tensor) -> Text:
    """Return a tensor that is written out."""
    numbers = value(tensor.detach().cpu().tolist(), lambda ref: Text("")).text
    where = "" if tensor.device.type == "cpu" else f', device="{tensor.device}"'
    return Text(f"torch.tensor({numbers}, dtype={tensor.dtype}{where})", POSTFIX)


def _index(index: Any, operand: Operand) -> str:
    several = index if isinstance(index, tuple) else (index,)
    shown = ", ".join(_place(item, operand) for item in several)
    return shown or "()"


def _place(item: Any, operand: Operand) -> str:
    if not isinstance(item, slice):
        return value(item, operand).text
    start, stop, step = (
        "" if part is None else value(part, operand).text for part in (item.start, item.stop, item.step)
    )
    return f"{start}:{stop}" + (f":{step}" if step else "")


def _quoted(text: str) -> str:
    shown = repr(text)
    return shown if '"' in text else f'"{shown[1:-1]}"'


def kept(call: Call, operand: Operand) -> str:
    """Return the statement that keeps a value for the next run."""
    assert isinstance(call.target, Kept)
    place = call.target.place or f"controls[{_quoted(call.target.key)}]"
    return f"{place} = {operand(call.args[0]).text}"
