"""Arrays in files: a user's own .npz, and Omniglot as chardata.mat."""

from __future__ import annotations

import zipfile
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import scg

KEYS = ("images", "train", "x_train", "data")
MAT = "chardata.mat"
SIDE = 28


def read_npz(path: Path) -> Tensor:
    """Return the array of a .npz that is called as images are, or the only one that it has."""
    import numpy as np

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as opened:
            there = list(opened.files)
            named = [key for key in KEYS if key in there] or (there if len(there) == 1 else [])
            found = opened[named[0]] if named else None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise scg.RunError(f"{path} is no .npz that can be read: {error}") from error
    if found is None:
        raise scg.RunError(
            f"{path} has {', '.join(there) or 'no arrays'}: call the images one of {', '.join(KEYS)}"
        )
    return _tensor(path, found)


def read_mat(path: Path) -> Tensor:
    """Return the images of Omniglot's chardata.mat, [image, 28, 28]; there they are columns."""
    if find_spec("scipy") is None:
        raise scg.RunError(f"{path} is read with scipy: pip install scipy")
    from scipy.io import loadmat

    try:
        with path.open("rb") as file:
            found = loadmat(file)
    except Exception as error:  # what scipy raises is of many kinds
        raise scg.RunError(f"{path} is no .mat that can be read: {error}") from error
    if "data" not in found or found["data"].shape[:1] != (SIDE**2,):
        there = [f"{name} {[*value.shape]}" for name, value in found.items() if hasattr(value, "shape")]
        raise scg.RunError(f"{path} has {', '.join(there) or 'nothing'}, and no data [784, image]")
    # MATLAB has columns first: an image lies on its side.
    return _tensor(path, found["data"].T).view(-1, SIDE, SIDE).mT.contiguous()


def _tensor(path: Path, array: Any) -> Tensor:
    try:
        return torch.from_numpy(array.copy())
    except TypeError as error:
        raise scg.RunError(f"{path} has {array.dtype}, and images are numbers") from error
