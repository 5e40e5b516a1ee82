"""Crossing: does a function let elements of a plate influence each other, where credit relies on it?

Structure is asked first: an operation that joins elements crosses, whatever the values were. Values are asked
where structure cannot see (NumPy, indices that depend on values), and whether what was joined was rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from scg.analysis.choices import Finding, decided
from scg.analysis.followed import Recording, all_ways, record_call, sizes_to_try, tensors
from scg.analysis.influence import stochastic_plates
from scg.evaluation.calls import held_by, is_elementwise, runner, signature, user_function
from scg.evaluation.invoke import call, seen
from scg.evaluation.probing import shifted
from scg.evaluation.trace import Trace
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.records import Det, Record
from scg.noise import reseed
from scg.probes.branches import Ways
from scg.probes.held import holding, moved_parameters
from scg.standing import Standing

MANY = 32
ROUNDING = 1e3
"""How many units in the last place of the largest value are rounding."""

SEED, SCALES = 0, (0.3, 3.0)
"""How far what a function holds and reads besides is moved off its values."""

Shared = Mapping[str, frozenset[str]]


def crossings(ir: IR, worlds: Sequence[Trace], findings: dict[tuple[str, str], Finding]) -> list[str]:
    """Return a fault for each node that mixes elements of a plate that a stochastic ancestor keeps.

    ``findings`` is filled with what was found, by node and plate.
    """
    shared = stochastic_plates(ir)
    known: dict[Any, Finding] = {}
    faults = []
    for record in ir.records():
        for plate, finding in crossed(ir, worlds, record, shared, known):
            findings[record.name, plate] = finding
            if finding.joint is not None:
                faults.append(_fault(ir, record, plate, finding))
    return faults


def foreseen(ir: IR, worlds: Sequence[Trace]) -> list[str]:
    """Return a warning for each value drawn elsewhere whose law reads other elements, or later steps.

    It was drawn before those were there. ``worlds`` differ in what is read.
    """
    shared = {name: frozenset(plates) for name, plates in ir.layout.items()}
    found = []
    for name in ir.given:
        for plate, finding in crossed(ir, worlds, ir[name], shared, {}):
            if finding.joint is not None:
                what = "later elements" if ir.plates[plate].ordered else "other elements"
                found.append(
                    f"the law of '{name}' ({ir[name].where}) reads {what} of plate '{plate}' through "
                    f"{finding.joint}: its value was drawn before those were there, so from another law"
                )
    return found


def crossed(
    ir: IR, worlds: Sequence[Trace], record: Record, shared: Shared, known: dict[Any, Finding]
) -> Iterator[tuple[str, Finding]]:
    """Yield what was found of each plate that stochastic ancestors of a node keep."""
    one = worlds[0]
    if user_function(record) is None or (is_elementwise(record) and _is_aligned(ir, one, record)):
        return
    mixes = record.mixes if isinstance(record, Det) else frozenset()
    kept = frozenset().union(*(shared[parent] for parent in record.parents)) & set(ir.layout[record.name])
    for plate in sorted(kept - mixes):
        if one.sizes[plate] == 1:
            continue
        among = tuple(parent for parent in record.arguments.names if plate in shared[parent])
        places = tuple(record.arguments.names.index(parent) for parent in among)
        key = (plate, signature(ir, one, record), places)
        if key not in known:
            known[key] = _found(ir, worlds, record, plate, among)
        yield plate, known[key]


def _is_aligned(ir: IR, trace: Trace, record: Record) -> bool:
    plated = [name for name in (*record.parents, record.name) if ir.layout[name]]
    values = [seen(ir, record, name, trace.values[name]) for name in plated]
    return len({leaf.dim() for leaf in tensors(values)}) < 2


def _found(ir: IR, worlds: Sequence[Trace], record: Record, plate: str, among: Sequence[str]) -> Finding:
    several = _recordings(ir, worlds[0], record, plate, among)
    if any(found.provenance.index is not None for ways in several for found in ways):
        several += _recordings(ir, worlds[1], record, plate, among)
    taken = [ways.taken for ways in several]
    untaken = [found for ways in several for found in ways if found is not ways.taken]
    joint, elsewhere = _joint(taken), _joint(untaken)
    if joint is None and elsewhere is not None:
        return Finding(f"{elsewhere}, on a branch that the example does not take", _known(untaken))
    if joint is None and several and all(map(_tells_all, several)):
        is_complete = all(ways.is_complete for ways in several)
        found = decided(ir, worlds, record, plate, among, taken[0], of_one=not is_complete)
        if is_complete or found.joint is not None:
            return found
    difference = _difference(ir, worlds, record, plate, among)
    if joint is None:
        return Finding("its values" if difference == "real" else None, "probed")
    standing = _known(taken)
    if difference == "rounding" or (standing == "assumed" and difference == "real"):
        return Finding(None if difference == "rounding" else joint, "probed")
    return Finding(joint, standing)


def _recordings(
    ir: IR, trace: Trace, record: Record, plate: str, among: Sequence[str]
) -> list[Ways[Recording]]:
    """Record the function at other sizes, and at the example's only where it runs at no other."""
    *others, example = sizes_to_try(ir, trace, record, (plate,))
    calls = [partial(record_call, ir, trace, record, among, sizes) for sizes in others]
    return all_ways(calls) or all_ways([partial(record_call, ir, trace, record, among, example)])


def _joint(recordings: Sequence[Recording]) -> str | None:
    """Return what joins elements."""
    joints = (found.joint(label) for found in recordings for label in found.places)
    return next((joint for joint in joints if joint is not None), None)


def _known(recordings: Sequence[Recording]) -> Standing:
    """Say whether every operation was understood."""
    is_unclear = any(found.is_unclear(label) for found in recordings for label in found.places)
    return "assumed" if is_unclear else "structural"


def _tells_all(ways: Ways[Recording]) -> bool:
    """Say whether operations tell all that a function does on the ways that were found."""
    return all(found.provenance.left is None and found.provenance.index is None for found in ways)


def _difference(ir: IR, worlds: Sequence[Trace], record: Record, plate: str, among: Sequence[str]) -> str:
    """Replace some elements of the plate by those of other worlds, and watch all the others.

    It is "none", "rounding" or "real": the largest that was seen, at the values held and at others.
    """
    found = {_watched(ir, worlds, record, plate, among)}
    others = [name for name in record.arguments.names if name not in among]
    for scale in SCALES:
        with holding(moved_parameters(held_by(ir, record), SEED, scale)):
            found.add(_watched(ir, shifted(worlds, others, scale), record, plate, among))
    return next(kind for kind in ("real", "rounding", "none") if kind in found)


def _watched(ir: IR, worlds: Sequence[Trace], record: Record, plate: str, among: Sequence[str]) -> str:
    one = worlds[0]
    size, position = one.sizes[plate], ir.layout[record.name].index(plate)
    before, seen_before = outputs(ir, one, record, {}), "none"
    for mask in _masks(size, ordered=ir.plates[plate].ordered):
        keep = (~mask).nonzero()[:, 0]
        for other in worlds[1:]:
            replaced = {
                parent: _blend(one.values[parent], other.values[parent], mask, ir.layout[parent].index(plate))
                for parent in among
            }
            after = outputs(ir, one, record, replaced)
            for old, new in zip(before, after, strict=True):
                if position < old.dim() and old.shape[position] == size:
                    kind = _kind(_part(old, position, keep), _part(new, position, keep))
                    if kind == "real":
                        return kind
                    seen_before = kind if kind != "none" else seen_before
    return seen_before


def _kind(old: Tensor, new: Tensor) -> str:
    if torch.equal(old, new):
        return "none"
    if not old.is_floating_point():
        return "real"
    scale = float(torch.maximum(old.abs().max(), new.abs().max()))
    tolerance = ROUNDING * torch.finfo(old.dtype).eps * scale
    return "rounding" if float((old - new).abs().max()) <= tolerance else "real"


def _masks(size: int, *, ordered: bool) -> Iterator[Tensor]:
    """Yield which elements to replace: suffixes of an ordered plate, else sets that part every pair.

    The binary digits of the places part any two elements; single elements and random halves are for
    functions of a total that does not change when many elements do.
    """
    place = torch.arange(size)
    if ordered:
        cuts = range(1, size) if size <= MANY else {1, size - 1, *torch.randint(1, size, (MANY,)).tolist()}
        yield from (place >= cut for cut in cuts)
        return
    for digit in range((size - 1).bit_length()):
        yield (place >> digit) & 1 == 1
        yield (place >> digit) & 1 == 0
    yield from (place == index for index in torch.randperm(size)[:4].tolist())
    half = torch.randperm(size) < (size + 1) // 2
    yield half
    yield ~half


def _part(tensor: Tensor, position: int, keep: Tensor) -> Tensor:
    return tensor.index_select(position, keep.to(tensor.device)).nan_to_num(nan=12345.0)


def _blend(one: Any, other: Any, mask: Tensor, position: int) -> Any:
    def leaf(a: Any, b: Any) -> Any:
        if not isinstance(a, Tensor):
            return a
        shape = [1] * a.dim()
        shape[position] = len(mask)
        return torch.where(mask.to(a.device).view(shape), b, a)

    return pytree.tree_map(leaf, one, other)


def outputs(ir: IR, trace: Trace, record: Record, replaced: dict[str, Any]) -> list[Tensor]:
    """Return the tensors that the function of a node gives where some parents have other values."""
    args, kwargs = record.arguments.substitute(
        lambda name: seen(ir, record, name, replaced.get(name, trace.values[name]))
    )
    with torch.random.fork_rng():
        reseed(0)
        return tensors(call(record, runner(ir, record), args, kwargs))


def _fault(ir: IR, record: Record, plate: str, finding: Finding) -> str:
    order = "an earlier element reads a later one" if ir.plates[plate].ordered else "elements read each other"
    unsure = ", as far as is known," if finding.standing == "assumed" else ""
    return (
        f"node '{record.name}' ({record.where}) crosses plate '{plate}'{unsure}: {order} through "
        f"{finding.joint}, and a stochastic node above keeps that plate, so credit would be lost. "
        f'Declare it with mixes="{plate}", or keep the elements apart'
    )
