"""Pictures in folders, as Omniglot comes and as a user's own do."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import scg

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".tif", ".tiff")
OMNIGLOT = ("images_background", "images_evaluation")
SIDE = 28


def find_pictures(folder: Path) -> list[Path]:
    """Return all pictures below a folder, in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def read_pictures(files: Sequence[Path]) -> Tensor:
    """Return pictures of one size as bytes of grey, [image, height, width]."""
    if find_spec("PIL") is None:
        raise scg.RunError("pictures are read with pillow: pip install pillow")
    found = [_grey(path) for path in files]
    odd = next((path for path, one in zip(files, found, strict=True) if one.shape != found[0].shape), None)
    if odd is not None:
        wide = [" x ".join(map(str, one.shape)) for one in (found[files.index(odd)], found[0])]
        raise scg.RunError(f"{odd} has {wide[0]} pixels, and {files[0]} has {wide[1]}: make them one size")
    return torch.stack(found)


def _grey(path: Path) -> Tensor:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            grey: Any = opened.convert("L")
            flat = torch.frombuffer(bytearray(grey.tobytes()), dtype=torch.uint8)
            return flat.view(grey.height, grey.width)
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise scg.RunError(f"{path} is no picture that can be read: {error}") from error


def read_omniglot(folder: Path) -> Tensor:
    """Return the characters of Omniglot's folders, [image, 28, 28], ink as 1.

    They are black on white, 105 x 105, and every new pixel is the mean of those that it covers.
    """
    files = [path for name in OMNIGLOT for path in find_pictures(folder / name)]
    if not files:
        raise scg.RunError(f"{folder} has no pictures below {' or '.join(OMNIGLOT)}")
    ink = 1 - read_pictures(files).float() / 255
    return F.adaptive_avg_pool2d(ink.unsqueeze(1), SIDE).squeeze(1)
