"""Numbers: values of a tape that are one number, and sizes that the text of a call reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from scg.export.sizes import Size
from scg.export.tape import Call, Ref, Tape, mapped


def numbers(tape: Tape) -> Iterator[tuple[Ref, Any]]:
    """Yield the values that are one number, which no tensor has to be made for beside another."""
    for ref, tensor in tape.literals.items():
        if not tensor.dim() and tensor.is_floating_point():
            yield ref, tensor.item()
    for call in tape.calls:
        if call.target in (torch.full, torch.ones, torch.zeros) and call.args and call.args[0] == ():
            number = {torch.ones: 1.0, torch.zeros: 0.0}.get(call.target)
            number = call.args[1] if number is None and len(call.args) > 1 else number
            if isinstance(number, (int, float, Size)):
                yield call.result, number


def sizes_in(call: Call, numbers: Mapping[Ref, Any]) -> list[Size]:
    """Return the sizes that the text of a call reads."""
    found: list[Size] = []

    def leaf(item: Any) -> Any:
        item = numbers.get(item, item) if isinstance(item, Ref) else item
        if isinstance(item, Size):
            found.append(item)
        return item

    mapped(leaf, (call.args, dict(call.kwargs)))
    return found
