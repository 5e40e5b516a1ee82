"""The pictures of the toy problem: loss, variance and learned control variates, drawn without pyplot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from scg.experiments.pictures import band
from scg.experiments.toy.problem import least_loss
from scg.experiments.toy.training import Curve, relaxed_values
from scg.panels import png

COLOURS = {"exact": "#555555", "score": "#d98a00", "rebar": "#2f6db5", "relax": "#b8324a"}
OTHERS = ("#3b8f5a", "#7c54a5", "#7a5a3a", "#2a9d9d")
Panel = Callable[[Any, Sequence[Curve]], None]


def draw_curves(curves: Sequence[Curve], out: Path) -> None:
    """Draw the curves into ``out``: every panel of every t by itself, and all of them as toy.png."""
    by_t: dict[float, list[Curve]] = {}
    for curve in curves:
        by_t.setdefault(curve.setting.t, []).append(curve)
    for t, several in by_t.items():
        for name, panel in PANELS.items():
            (out / f"toy_{t:g}_{name}.png").write_bytes(drawn([several], [panel]))
    (out / "toy.png").write_bytes(drawn([*by_t.values()], [*PANELS.values()]))


def drawn(rows: Sequence[Sequence[Curve]], panels: Sequence[Panel]) -> bytes:
    """Return a PNG with a row of panels for the curves of every t; needs matplotlib."""

    def draw(grid: Any) -> None:
        for curves, places in zip(rows, grid, strict=True):
            for axes, panel in zip(places, panels, strict=True):
                panel(axes, curves)

    return png(len(rows), len(panels), draw)


def loss_panel(axes: Any, curves: Sequence[Curve]) -> None:
    """Draw the expected loss against steps, above the least there is."""
    over_steps(axes, curves, lambda curve: curve.loss)
    t = curves[0].setting.t
    axes.axhline(least_loss(t), color="black", linewidth=0.7, linestyle=":")
    axes.set(title=f"expected loss, t = {t:g}")


def variance_panel(axes: Any, curves: Sequence[Curve]) -> None:
    """Draw the log-variance against steps, where there is any variance."""
    over_steps(axes, curves, lambda curve: curve.log_variance)
    axes.set(title=f"log-variance of one gradient, t = {curves[0].setting.t:g}")


def variate_panel(axes: Any, curves: Sequence[Curve]) -> None:
    """Draw what control variates make of the cost, against the relaxed value, beside the cost itself."""
    t = curves[0].setting.t
    for curve, colour in coloured(curves):
        if curve.variate is not None:
            band(axes, relaxed_values(), curve.variate, f"{curve.setting.policy}, c(z)", colour)
    hard = {"color": "black", "linewidth": 1.0}
    axes.plot((0, 0.5), (t**2, t**2), label="f(b)", **hard)
    axes.plot((0.5, 1), ((1 - t) ** 2, (1 - t) ** 2), **hard)
    axes.set(title=f"control variates at the end, t = {t:g}", xlabel="sigmoid(z / 0.5)", xlim=(0, 1))
    axes.legend(loc="best")


PANELS: dict[str, Panel] = {
    "loss": loss_panel,
    "log_variance": variance_panel,
    "relaxation": variate_panel,
}


def over_steps(axes: Any, curves: Sequence[Curve], values: Callable[[Curve], Tensor]) -> None:
    """Draw values against steps, later curves thinner, so that those on top of each other all show."""
    for place, (curve, colour) in enumerate(reversed(coloured(curves))):
        found = values(curve)
        if bool(found.isfinite().any()):
            width = 1.2 + 0.4 * place
            band(axes, curve.steps, found, curve.setting.policy, colour, width=width, layer=-place)
    axes.set(xlabel="steps", xlim=(0, int(curves[0].steps[-1])))
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles[::-1], labels[::-1], loc="best")


def coloured(curves: Sequence[Curve]) -> list[tuple[Curve, str]]:
    """Return the curves with their colours."""
    others = [curve.setting.policy for curve in curves if curve.setting.policy not in COLOURS]
    own = {name: OTHERS[index % len(OTHERS)] for index, name in enumerate(others)}
    return [(curve, {**COLOURS, **own}[curve.setting.policy]) for curve in curves]
