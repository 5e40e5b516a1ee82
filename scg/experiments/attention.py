"""The command ``scg run attention``: where to look on a canvas for the one digit that lies on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import OneHotCategorical

import scg
from scg.experiments.learning import Experiment, Learner
from scg.runs import seed_of

SIDE, CELL = 4, 8
CELLS, PIXELS = SIDE * SIDE, CELL * CELL
BATCH, HELD, TESTED = 32, 297, 1000
ANYWHERE = "anywhere"
"""Not an estimator: a place that is drawn evenly, as one who learns nothing of places would look."""
POLICIES: dict[str, tuple[scg.Estimator | str, int | None]] = {
    ANYWHERE: (scg.Score(baseline="leave-one-out"), 4),
    "leave-one-out": (scg.Score(baseline="leave-one-out"), 4),
    "unordered-set": (scg.UnorderedSet(k=4, has_baseline=True), None),
    "relax": ("relax", None),
}
"""Estimators of where to look, and how many replicates they have."""


def digits() -> tuple[Tensor, Tensor]:
    """Return the digits of scikit-learn, [image, pixel], and what they are."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise scg.RunError("the digits are in the package scikit-learn: pip install scikit-learn") from error
    pixels, labels = load_digits(return_X_y=True)
    return torch.from_numpy(pixels / 16).float(), torch.from_numpy(labels).long()


def canvases(images: Tensor, labels: Tensor, count: int, seed: int) -> dict[str, Tensor]:
    """Return cells [canvas, cell, pixel], one of which is a digit, the others faint scraps of digits."""
    generator = torch.Generator().manual_seed(seed)
    scraps = images[torch.randint(len(images), (count, CELLS), generator=generator)]
    cells = 0.5 * scraps.gather(-1, torch.rand(scraps.shape, generator=generator).argsort(-1))
    which = torch.randint(len(images), (count,), generator=generator)
    place = torch.randint(CELLS, (count,), generator=generator)
    cells[torch.arange(count), place] = images[which]
    return {"cells": cells, "label": labels[which]}


def coarse(cells: Tensor) -> Tensor:
    """Return all of the canvas out of focus: four numbers for each cell."""
    squares: Tensor = cells.unflatten(-1, (2, CELL // 2, 2, CELL // 2))
    return squares.mean((-3, -1)).flatten(-3)


def read_off(place: Tensor, cells: Tensor) -> Tensor:
    """Return the cell at a place that is one-hot, or the mixture of them at a relaxed one."""
    return (place.unsqueeze(-1) * cells).sum(-2)


def surprise(scores: Tensor, label: Tensor) -> Tensor:
    """Return -log of the probability that scores give to what is there."""
    found = scores.log_softmax(-1)
    return -found.gather(-1, label.expand(found.shape[:-1]).unsqueeze(-1)).squeeze(-1)


def attention(example: Mapping[str, Tensor], seed: int, *, is_blind: bool = False) -> scg.Graph:
    """Declare: a coarse look gives the law of a place, a glimpse there is read, and its label is the cost."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, "weights"))
        look = nn.Sequential(nn.Linear(4 * CELLS, 64), nn.Tanh(), nn.Linear(64, CELLS))
        read = nn.Sequential(nn.Linear(PIXELS, 64), nn.ReLU(), nn.Linear(64, 10))
    g = scg.Graph("attention")
    cells = g.input("cells", plates="batch", example=example["cells"])
    label = g.input("label", plates="batch", example=example["label"])
    logits = g.det("logits", look, g.det("coarse", coarse, cells))
    place = g.sample("place", OneHotCategorical, logits=0 * logits if is_blind else logits)
    scores = g.det("scores", read, g.det("glimpse", read_off, place, cells))
    g.cost("surprise", surprise, scores, label)
    return g


def learner(policy: str, seed: int) -> Learner:
    """Return what learns under a policy, and is measured on digits that it has not seen."""
    images, labels = digits()
    seen, new = (images[:-HELD], labels[:-HELD]), (images[-HELD:], labels[-HELD:])
    tests = canvases(*new, TESTED, seed_of(seed, "tests"))
    graph = attention(canvases(*seen, 4, seed), seed, is_blind=policy == ANYWHERE)
    estimator, samples = POLICIES.get(policy, (policy, None))
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, "controls"))
        program = scg.compile(graph, {"place": estimator}, samples=samples, keep=("scores",))

    def measure() -> float:
        with torch.no_grad():
            scores = program(**tests, seed=seed_of(seed, "looks")).kept["scores"]
        return float((scores.argmax(-1) == tests["label"]).double().mean())

    return Learner(program, lambda step: canvases(*seen, BATCH, seed_of(seed, "batch", step)), measure)


def picture(axes: Any, learners: Mapping[str, Learner]) -> None:
    """Draw a canvas, and with how much probability the last learner looks at each cell of it."""
    images, labels = digits()
    one = canvases(images[-HELD:], labels[-HELD:], 1, 2)
    program = [*learners.values()][-1].program
    with torch.no_grad():
        looks = program(cells=one["cells"].expand(2000, -1, -1), label=one["label"].expand(2000), seed=1)
    chance = looks.samples["place"].reshape(-1, CELLS).mean(0)
    pixels = one["cells"].view(SIDE, SIDE, CELL, CELL).transpose(1, 2).reshape(SIDE * CELL, -1)
    shared: Any = {"extent": (0, SIDE, SIDE, 0), "vmin": 0, "vmax": 1}
    axes.imshow(pixels.numpy(), cmap="gray_r", **shared)
    axes.imshow(chance.view(SIDE, SIDE).numpy(), cmap="Reds", alpha=0.45, **shared)
    axes.set(title=f"where {[*learners][-1]} looks: red", xticks=[], yticks=[])


SUMMARY = "learn where to look for a digit on a canvas"
ATTENTION = Experiment("attention", SUMMARY, "accuracy", POLICIES, learner, picture, evaluations=6000)
