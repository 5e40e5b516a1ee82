"""Sizes: several runs of one program, on plates of other sizes, told as one whose numbers are expressions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from torch import Tensor

from scg.errors import ExportError
from scg.export.tape import Call, Outside, Path, Ref, Tape

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Size:
    """A number that depends on sizes of plates: its expression, those plates, and its value in each run."""

    text: str
    plates: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def is_name(self) -> bool:
        """Whether the expression is the size of one plate."""
        return self.text.isidentifier()


def aligned(tapes: Sequence[Tape], sizes: Sequence[Sizes]) -> Tape:
    """Return the first of several tapes, with expressions for the numbers in which they differ."""
    first = tapes[0]
    if any(len(tape.calls) != len(first.calls) for tape in tapes):
        raise ExportError("the program calls other functions when plates have other sizes, or values differ")
    merge = _Merge(sizes)
    calls = [merge.call(several) for several in zip(*(tape.calls for tape in tapes), strict=True)]
    for ref, value in first.literals.items():
        if any(tape.literals.get(ref) is not value for tape in tapes):
            raise ExportError(
                f"a tensor of shape {tuple(value.shape)} is made by no call of torch that can be seen"
            )
    shapes = {ref: merge.tree([tape.shapes[ref] for tape in tapes]) for ref in first.shapes}
    faults: dict[str, set[Path]] = {}
    for tape in tapes:
        for fault, paths in tape.faults.items():
            faults.setdefault(fault, set()).update(paths)
    return Tape(**{**vars(first), "calls": calls, "shapes": shapes, "faults": faults})


@dataclass(frozen=True, eq=False)
class _Merge:
    sizes: Sequence[Sizes]

    def call(self, several: Sequence[Call]) -> Call:
        first = several[0]
        if any(_key(call.target) != _key(first.target) or call.part != first.part for call in several):
            raise ExportError(
                "the program calls other functions when plates have other sizes, or values differ"
            )
        args = self.tree([call.args for call in several])
        kwargs = self.tree([dict(call.kwargs) for call in several])
        return first.replaced(args=args, kwargs=kwargs, result=self.tree([call.result for call in several]))

    def tree(self, several: Sequence[Any]) -> Any:
        first = several[0]
        if isinstance(first, slice):
            parts = zip(*((item.start, item.stop, item.step) for item in several), strict=True)
            return slice(*(self.tree(part) for part in parts))
        if isinstance(first, dict):
            return {key: self.tree([item[key] for item in several]) for key in first}
        if isinstance(first, (tuple, list)):
            if any(len(item) != len(first) for item in several):
                raise ExportError("the number of arguments of a call depends on the sizes of plates")
            made = [self.tree(part) for part in zip(*several, strict=True)]
            return made if isinstance(first, list) else tuple(made)
        if _same(several):
            return first
        if all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in several):
            found = expression(several, self.sizes)
            if found is not None:
                return found
        raise ExportError(f"{_shown(first)} in the program is {_shown(several[1])} in another run of it")


def expression(values: Sequence[float], sizes: Sequence[Sizes]) -> Size | None:
    """Return a number as an expression of sizes of plates.

    >>> expression((1 / 6, 1 / 10), ({"batch": 3}, {"batch": 5})).text
    '1 / (2 * batch)'
    >>> expression((2, 4), ({"batch": 3}, {"batch": 5})).text
    'batch - 1'
    """
    plates = [plate for plate in sizes[0] if len({size[plate] for size in sizes}) > 1]
    for count in range(1, len(plates) + 1):
        for several in combinations(plates, count):
            products = [math.prod(size[plate] for plate in several) for size in sizes]
            text = _as_product(values, products, " * ".join(several))
            if text is not None:
                return Size(text, several, tuple(values))
    return None


def _as_product(values: Sequence[float], products: Sequence[int], shown: str) -> str | None:
    times = _constant([value / product for value, product in zip(values, products, strict=True)])
    if times is not None:
        return shown if times == 1 else f"{_number(times)} * {shown}"
    over = _constant([value * product for value, product in zip(values, products, strict=True)])
    if over is not None:
        inverse = 1 / over
        if abs(inverse - round(inverse)) < 1e-9 and round(inverse) > 1:
            return f"1 / ({round(inverse)} * {shown})"
        return f"{_number(over)} / {shown if shown.isidentifier() else f'({shown})'}"
    plus = _constant([value - product for value, product in zip(values, products, strict=True)])
    if plus is not None:
        return f"{shown} {'+' if plus > 0 else '-'} {_number(abs(plus))}"
    return None


def _constant(values: Sequence[float]) -> float | None:
    first = values[0]
    return first if all(math.isclose(value, first, rel_tol=1e-12) for value in values) else None


def _number(value: float) -> str:
    return str(round(value)) if math.isclose(value, round(value), rel_tol=1e-12) else repr(value)


def _key(target: Any) -> Any:
    return (target.name, target.how) if isinstance(target, Outside) else target


def _same(several: Sequence[Any]) -> bool:
    first = several[0]
    if isinstance(first, Tensor):
        return all(item is first for item in several)
    if isinstance(first, float) and math.isnan(first):
        return all(isinstance(item, float) and math.isnan(item) for item in several)
    return all(item is first or (type(item) is type(first) and item == first) for item in several)


def _shown(value: Any) -> str:
    return "a value" if isinstance(value, Ref) else repr(value)[:60]
