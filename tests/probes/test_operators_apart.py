"""All of torch's operators: what joins elements of a dimension by structure is what joins them by value."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from scg.probes.dependence import Label
from scg.probes.provenance import Provenance
from tests.selection import EVERYTHING, some

LARGEST = 12
SAMPLES = 1
NEVER_SEEN_TO_JOIN = frozenset(
    """logcumsumexp linalg.lu linalg.ldl_factor linalg.ldl_factor_ex lu linalg.lu_factor linalg.lu_factor_ex
    linalg.pinv linalg.matrix_rank linalg.matrix_rank.hermitian prod norm.inf cummax cummin sort msort argsort
    masked.median histogramdd multinomial sparse.mm.reduce""".split()
)
"""What joins where values are near each other, or as the sample is not."""


UNDEFINED = frozenset(("empty_like", "new_empty", "new_empty_strided", "empty_strided", "empty"))
"""What gives whatever was in memory."""


class Case(NamedTuple):
    """One operator on sample arguments, as a function of its first tensor."""

    name: str
    call: Callable[[Tensor], list[Tensor]]
    tensor: Tensor


def cases(operators: Any) -> Iterator[Case]:
    for info in some(operators.op_db, 3):
        if torch.float64 in info.supported_dtypes("cpu") and info.name not in UNDEFINED:
            try:
                several = (case(info, sample) for sample in operators.samples(info))
                yield from itertools.islice(filter(None, several), SAMPLES)
            except Exception:  # noqa: BLE001 - what cannot be sampled here
                continue


def case(info: Any, sample: Any) -> Case | None:
    leaves, spec = pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
    place = next((i for i, leaf in enumerate(leaves) if is_followed(leaf)), None)
    if place is None:
        return None

    def call(tensor: Tensor) -> list[Tensor]:
        given = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        given[place] = tensor
        first, args, kwargs = pytree.tree_unflatten(given, spec)
        torch.manual_seed(0)
        return dense(info.op(first, *args, **kwargs))

    variant = f".{info.variant_test_name}" if info.variant_test_name else ""
    return Case(info.name + variant, call, leaves[place])


def is_followed(leaf: Any) -> bool:
    return (
        isinstance(leaf, Tensor)
        and leaf.layout is torch.strided
        and leaf.is_floating_point()
        and leaf.dim() > 0
        and 2 <= len(leaf) <= LARGEST
    )


def dense(value: Any) -> list[Tensor]:
    leaves = pytree.tree_leaves(value)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.layout is torch.strided]


def joins_by_structure(case: Case) -> bool:
    label, tensor = Label("p", len(case.tensor)), case.tensor.clone()
    with torch.no_grad(), Provenance({label: [(tensor, 0)]}) as provenance:
        outputs = case.call(tensor)
    own = torch.arange(1, label.count + 1)
    for output in outputs:
        owners = provenance.owners(label, output)
        if owners is not None and output.dim() and len(output) == label.count:
            mine = own.view(-1, *(1,) * (output.dim() - 1))
            if bool(((owners != 0) & (owners != mine)).any()):
                return True
    return False


def joins_by_value(case: Case) -> bool:
    before, size = case.call(case.tensor.clone()), len(case.tensor)
    for element, trial in itertools.product(range(size), range(2)):
        generator = torch.Generator().manual_seed(trial)
        moved = case.tensor.clone()
        noise = torch.rand(moved[element].shape, generator=generator, dtype=moved.dtype)
        moved[element] = moved[element] * (1 + 0.1 * noise) if trial else moved[element] + 0.01 * noise
        try:
            after = case.call(moved)
        except Exception:  # noqa: BLE001 - not defined there
            continue
        for old, new in zip(before, after, strict=False):
            if old.dim() and old.shape == new.shape and len(old) == size:
                others = torch.arange(size) != element
                if not torch.allclose(old[others], new[others], rtol=1e-9, atol=1e-12, equal_nan=True):
                    return True
    return False


def test_structure_and_values_agree_on_operators(operators: Any) -> None:
    """On all of them under HYPOTHESIS_PROFILE=fuzz, else on every third."""
    seen: set[str] = set()
    missed, unseen = set(), set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each in cases(operators):
            try:
                by_value = joins_by_value(each)
            except Exception:  # noqa: BLE001 - a sample on which it cannot be called
                continue
            by_structure = joins_by_structure(each)
            seen.add(each.name)
            if by_value and not by_structure:
                missed.add(each.name)
            if by_structure and not by_value:
                unseen.add(each.name)
    assert not missed
    assert unseen <= NEVER_SEEN_TO_JOIN
    assert len(seen) > (300 if EVERYTHING else 100)
