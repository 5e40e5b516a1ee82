"""The module: the text of a Python file that needs torch alone, from the functions of a program."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from scg.errors import ExportError
from scg.export.blocks import blocks
from scg.export.functions import Writer
from scg.export.scope import IMPORTED, STEP, WIDTH, Scope, fitted
from scg.export.sizes import Size
from scg.export.tape import Tape
from scg.export.titles import Title

HELPERS = {
    "boxed": '''def black_box(function: Callable[..., Any], *args: Any) -> Tensor:
    """Call what is no function of torch on values without a gradient, and return a tensor."""
    with torch.no_grad():
        found = torch.as_tensor(function(*args))
    dtypes = [item.dtype for item in args if isinstance(item, Tensor) and item.is_floating_point()]
    dtype = dtypes[0] if dtypes else torch.get_default_dtype()
    return found.to(dtype) if found.is_floating_point() else found''',
    "copied": '''def on_copied_buffers(module: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a module, and leave its running statistics as they are."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    return torch.func.functional_call(module, buffers, args, kwargs)''',
    "hook": '''def refuse_second_order(gradient: Tensor) -> None:
    """Refuse second derivatives: score terms are right to first order only."""
    if torch.is_grad_enabled():
        raise RuntimeError("this loss is differentiated once, without create_graph=True")''',
}


@dataclass(frozen=True)
class Leaf:
    """What a module takes by name, and whether nothing of it has a gradient."""

    name: str
    is_frozen: bool
    is_tensor: bool
    is_input: bool = False


@dataclass(frozen=True)
class Drawn:
    """The noise under one key: its kind, its shape, and its type."""

    key: str
    kind: str
    shape: tuple[int | Size, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Header:
    """What a module says besides the program, what reads the sizes of plates, and which are more than one."""

    title: str
    leaves: Sequence[Leaf]
    sizes: Mapping[str, str]
    noise: Sequence[Drawn]
    nodes: frozenset[str]
    several: frozenset[str] = frozenset()


def module_text(tape: Tape, titles: Mapping[str, Title], header: Header) -> str:
    """Return a module whose function ``loss`` is the program that was recorded."""
    roots = {source.root for source in tape.sources.values()} | {leaf.name for leaf in header.leaves}
    names = {title.name for title in titles.values()} | {
        "noise",
        "controls",
        "loss",
        "draw_noise",
        "black_box",
        "on_copied_buffers",
        "refuse_second_order",
    }
    own = names - {"noise", "controls", "loss"}
    if wrong := sorted(({*roots, *header.sizes} & (IMPORTED | own)) | (header.sizes.keys() & names)):
        raise ExportError(f"the name '{wrong[0]}' means something else in a module: rename what has it")
    reserved = frozenset({*roots, *names, *header.sizes} - {"loss"})
    writer = Writer(tape, titles, reserved, header.nodes)
    scope = writer.main(blocks(tape))
    parts = [HELPERS[key] for key in HELPERS if key in writer.helpers]
    parts += [*writer.texts.values(), _main(scope, tape, header)]
    if header.noise:
        parts.append(_draw_noise(header.noise))
    body = "\n\n\n".join(parts)
    return f'"""{header.title}"""\n{_allowed({*reserved, *header.nodes})}\n{_imports(body)}\n\n\n{body}\n'


def _allowed(names: Iterable[str]) -> str:
    """Return the comment that lets ruff pass names of the user's that it would not have chosen."""
    several = list(names)
    codes = ["E741"] if {"l", "O", "I"} & {*several} else []
    codes += ["N803", "N806"] if any(name != name.lower() for name in several) else []
    return f"# ruff: noqa: {', '.join(codes)}\n" if codes else ""


def _imports(body: str) -> str:
    """Return the imports that a text needs."""
    lines = ["from collections.abc import Callable"] if re.search(r"\bCallable\[", body) else []
    lines += ["from typing import Any"] if re.search(r"\bAny\b", body) else []
    lines += [""] if lines else []
    lines += ["import torch"] if re.search(r"\btorch\.", body) else []
    lines += ["from torch import Tensor, nn" if re.search(r"\bnn\.", body) else "from torch import Tensor"]
    lines += ["from torch.nn import functional as F"] if re.search(r"\bF\.", body) else []
    return "\n".join(lines)


def _main(scope: Scope, tape: Tape, header: Header) -> str:
    free = {name: kind for name, kind in scope.free.items() if name not in header.sizes}
    used = {name for name in scope.free if name in header.sizes}
    used |= {name for item in header.noise for name in _plates(item)} & scope.free.keys()
    wrong = _agreement(tape, header, scope.free)
    used |= header.several
    used |= {plate for plate in header.sizes if any(re.search(rf"\b{plate}\b", text) for text in wrong)}
    small = [f"{plate} < 2" for plate in header.sizes if plate in header.several]
    for plate in used:
        root, _, rest = re.split(r"(\W)", header.sizes[plate], maxsplit=1)
        free.setdefault(root, "Tensor" if rest.startswith("shape") else "Any")
    order = ["noise", *(leaf.name for leaf in header.leaves)]
    names = [name for name in order if name in free] + [name for name in free if name not in order]
    arguments = [f"{name}: {free[name]}" for name in names if name != "noise"]
    first = ["noise: dict[str, Tensor]"] if "noise" in free else []
    head = fitted("def loss(", [*first, *(["*"] if arguments else []), *arguments], ") -> Tensor:", 0)
    lines = [
        f'"""Return a loss whose backward leaves estimates of its gradient{_told(header, free)}."""',
        *_checks(tape, header, free),
        *(f"{p} = {header.sizes[p]}" for p in header.sizes if p in used),
        *_refusal(small, f"at least 2 elements are wanted along {' and '.join(sorted(header.several))}"),
        *_refusal(wrong, "every plate has one size, in all inputs and in the noise"),
    ]
    return "\n".join([head, *((STEP + line).rstrip() for line in [*lines, *scope.body()])])


def _told(header: Header, free: Mapping[str, str]) -> str:
    """Return what the noise is, in words."""
    if "noise" not in free:
        return ""
    return ", under base noise by node" if header.noise else ", under noise by node, or its value"


def _plates(item: Drawn) -> Iterable[str]:
    for size in item.shape:
        if isinstance(size, Size):
            yield from size.plates


def _checks(tape: Tape, header: Header, free: Mapping[str, str]) -> list[str]:
    """Return the lines that refuse what the program was not written for."""
    lines: list[str] = []
    for leaf in header.leaves:
        if leaf.name not in free:
            continue
        if leaf.is_input:
            for ref, source in tape.sources.items():
                if source.root == leaf.name:
                    condition, shown = _shape(source.text, tape.shapes[ref])
                    frozen = f" or {source.text}.requires_grad" if leaf.is_frozen else ""
                    said = f"{source.text} has the shape {shown}{' and no gradient' if frozen else ''} here"
                    lines += [f"if {condition}{frozen}:", f"{STEP}raise ValueError({_quoted(said)})"]
        elif leaf.is_frozen:
            grads = f"any(leaf.requires_grad for leaf in {leaf.name}.parameters())"
            lines.append(f"if {leaf.name}.requires_grad:" if leaf.is_tensor else f"if {grads}:")
            lines.append(f'{STEP}raise ValueError("{leaf.name} has no gradient here")')
    return lines


def _agreement(tape: Tape, header: Header, free: Mapping[str, str]) -> list[str]:
    """Return what is true where plates have several sizes, or one too small."""
    inputs = {leaf.name for leaf in header.leaves if leaf.is_input and leaf.name in free}
    several = [(src.text, tape.shapes[ref]) for ref, src in tape.sources.items() if src.root in inputs]
    if "noise" in free:
        several += [(f'noise["{item.key}"]', item.shape) for item in header.noise]
    return [
        f"{text}.shape[{dim}] != {size.text}"
        for text, shape in several
        for dim, size in enumerate(shape)
        if isinstance(size, Size) and header.sizes.get(size.text) != f"{text}.shape[{dim}]"
    ]


def _refusal(wrong: Sequence[str], said: str) -> list[str]:
    """Return the lines that refuse what is wrong."""
    if not wrong:
        return []
    start, end = ("if any([", "]):") if len(wrong) > 1 else ("if ", ":")
    return [*fitted(start, wrong, end, 0).split("\n"), f"{STEP}raise ValueError({_quoted(said)})"]


def _quoted(text: str) -> str:
    shown = repr(text)
    return shown if '"' in text else f'"{shown[1:-1]}"'


def _shape(name: str, shape: tuple[int | Size, ...]) -> tuple[str, str]:
    """Return what is true of a wrong shape, and the right one in words."""
    shown = ", ".join(size.text if isinstance(size, Size) else str(size) for size in shape)
    lead = next((i for i, size in enumerate(shape) if not isinstance(size, Size)), len(shape))
    rest = shape[lead:]
    if lead == len(shape) or any(isinstance(size, Size) for size in rest):
        return f"{name}.dim() != {len(shape)}", f"[{shown}]"
    inside = f"({rest[0]},)" if len(rest) == 1 else str(tuple(rest))
    return f"{name}.shape{f'[{lead}:]' if lead else ''} != {inside}", f"[{shown}]"


def _draw_noise(noise: Sequence[Drawn]) -> str:
    """Return the function that draws the noise of a run."""
    plates = list(dict.fromkeys(plate for item in noise for plate in _plates(item)))
    head = fitted("def draw_noise(", [f"{plate}: int" for plate in plates], ") -> dict[str, Tensor]:", 0)
    doc = '"""Draw the noise of a run from the generator of torch."""'
    draws: dict[str, list[str]] = {}
    for item in noise:
        draws.setdefault(_draw(item), []).append(f'"{item.key}"')
    if len(draws) == 1 and len(noise) > 1:
        ((draw, keys),) = draws.items()
        items = [f"node: {draw}", f"for node in ({', '.join(keys)})"]
        one, lines = f"return {{{' '.join(items)}}}", items
    else:
        each = [f'"{item.key}": {_draw(item)}' for item in noise]
        one, lines = f"return {{{', '.join(each)}}}", [f"{line}," for line in each]
    if len(one) + len(STEP) <= WIDTH and len(lines) < 3:
        return "\n".join([head, STEP + doc, STEP + one])
    return "\n".join(
        [head, *(STEP + line for line in [doc, "return {", *(STEP + line for line in lines), "}"])]
    )


def _draw(item: Drawn) -> str:
    """Return the call that draws noise."""
    shape = ", ".join(size.text if isinstance(size, Size) else str(size) for size in item.shape)
    comma = "," if len(item.shape) == 1 else ""
    least = round(math.log2(torch.finfo(item.dtype).eps / 4))
    open_end = f".clamp(min=2**{least})" if item.kind == "uniform" else ""
    draw = "torch.rand" if item.kind == "uniform" else "torch.randn"
    return f"{draw}(({shape}{comma}), dtype={item.dtype}){open_end}"
