"""Reading: what ``--data`` names, a package, a folder or a file, as images."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

import scg
from scg.experiments.vae.data.arrays import MAT, read_mat, read_npz
from scg.experiments.vae.data.idx import NAMES, find_idx, read_idx
from scg.experiments.vae.data.images import Images, intensities, split
from scg.experiments.vae.data.packaged import PACKAGED, read_packaged
from scg.experiments.vae.data.pictures import OMNIGLOT, find_pictures, read_omniglot, read_pictures
from scg.runs import named_nearest


def read(name: str, seed: int) -> Images:
    """Return the images of a name in ``PACKAGED``, or those of a folder or a file."""
    if name in PACKAGED:
        return split(name, *read_packaged(name), seed)
    path = Path(name).expanduser()
    if not path.exists():
        known = named_nearest("data", name, PACKAGED)
        raise scg.RunError(f"{known}; or give a folder, or a .npz, that is there")
    found = _of_folder(path) if path.is_dir() else _of_file(path)
    return split(name, *intensities(path, found), seed)


def _of_file(path: Path) -> Tensor:
    if path.suffix == ".npz":
        return read_npz(path)
    if path.suffix == ".mat":
        return read_mat(path)
    if "idx3" in path.name:
        return read_idx(path)
    raise scg.RunError(f"{path} is none of .npz, .mat, {NAMES[0]} and {NAMES[0]}.gz")


def _of_folder(folder: Path) -> Tensor:
    idx = find_idx(folder)
    if idx is not None:
        return read_idx(idx)
    if (folder / MAT).is_file():
        return read_mat(folder / MAT)
    if any((folder / name).is_dir() for name in OMNIGLOT):
        return read_omniglot(folder)
    files = find_pictures(folder)
    if not files:
        raise scg.RunError(
            f"{folder} has none of {NAMES[0]}, {NAMES[0]}.gz (MNIST), {MAT}, {OMNIGLOT[0]} (Omniglot), and "
            "no pictures (.png, .jpg)"
        )
    return read_pictures(files)
