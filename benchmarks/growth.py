"""How times grow with sizes: exponents by least squares of logarithms, and a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contest import BY_HAND, PYRO, SCG, SCG_COMPILED, STORCHASTIC
from benchmarks.figures import Figure

PANELS = ("chain", "siblings", "compile")
STYLES: dict[str, dict[str, Any]] = {
    SCG: {"color": "#b8324a", "lw": 1.8, "marker": "o"},
    SCG_COMPILED: {"color": "#d98a00", "marker": "s"},
    BY_HAND: {"color": "#333333", "marker": "^"},
    PYRO: {"color": "#2f6db5", "marker": "v"},
    STORCHASTIC: {"color": "#3b8f5a", "marker": "D"},
}
KINDS = {"chain": "#333333", "siblings": "#2f6db5", "random": "#b8324a"}
WIDTH, HEIGHT, DPI = 4.6, 5.0, 140
Curve = list[tuple[int, float]]


def exponent(curve: Sequence[tuple[float, float]]) -> float:
    """Return the slope of log time over log size by least squares.

    >>> round(exponent([(10, 3.0), (100, 30.0), (1000, 300.0)]), 6)
    1.0
    """
    xs, ys = ([math.log(each) for each in side] for side in zip(*curve, strict=True))
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    across = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True))
    return across / sum((a - x) ** 2 for a in xs)


def curves(figures: Sequence[Figure]) -> dict[tuple[str, str, str], Curve]:
    """Return median seconds over size, for every problem, case and contender with at least two sizes."""
    found: dict[tuple[str, str, str], Curve] = {}
    for figure in figures:
        if figure.size is not None and figure.seconds is not None:
            key = (figure.problem, figure.case, figure.contender)
            found.setdefault(key, []).append((figure.size, figure.seconds.median))
    return {key: sorted(curve) for key, curve in found.items() if len(curve) > 1}


def draw(found: Mapping[tuple[str, str, str], Curve], path: Path) -> None:
    """Draw the curves of chains, siblings and compiling, with their exponents; needs matplotlib."""
    from matplotlib.figure import Figure as Picture

    shown = [name for name in PANELS if any(key[0] == name for key in found)]
    if not shown:
        return
    picture = Picture(figsize=(WIDTH * len(shown), HEIGHT), layout="constrained", facecolor="white")
    for axes, problem in zip(picture.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for (owner, case, contender), curve in found.items():
            if owner == problem and contender in STYLES:
                label = f"{contender}, {case}: {exponent(curve):.2f}"
                sizes, seconds = zip(*curve, strict=True)
                style = {"lw": 1.0, "ms": 3.5, "ls": "--" if "reparam" in case else "-", **STYLES[contender]}
                if owner == "compile":
                    style["color"] = KINDS[case.partition(",")[0]]
                axes.plot(sizes, [1e3 * each for each in seconds], label=label, **style)
        title = "time in scg.compile" if problem == "compile" else f"one step, {problem}"
        axes.set(xscale="log", yscale="log", xlabel="nodes", ylabel="ms", title=f"{title}, with exponents")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    picture.savefig(path, dpi=DPI, metadata={"Software": None})
