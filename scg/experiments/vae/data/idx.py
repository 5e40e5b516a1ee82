"""MNIST's own files: idx, plain or compressed, under the names that its page has."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

import scg

NAMES = ("train-images-idx3-ubyte", "train-images.idx3-ubyte")
IMAGES = b"\x00\x00\x08\x03"
"""What idx files of bytes in three dimensions begin with."""


def find_idx(folder: Path) -> Path | None:
    """Return the file of images to train on, if a folder, or its folder ``raw``, has one."""
    places = [folder, folder / "raw", folder / "MNIST" / "raw"]
    files = [place / f"{name}{end}" for place in places for name in NAMES for end in ("", ".gz")]
    return next((file for file in files if file.is_file()), None)


def read_idx(path: Path) -> Tensor:
    """Return the images of an idx file, bytes [image, height, width]."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise scg.RunError(f"{path} cannot be read: {error}") from error
    if content[:4] != IMAGES:
        start = content[:4].hex() or "nothing"
        raise scg.RunError(f"{path} is no idx file of images: it begins with {start}, not {IMAGES.hex()}")
    sizes = [int.from_bytes(content[start : start + 4], "big") for start in (4, 8, 12)]
    body = content[16:]
    if len(body) != math.prod(sizes):
        wanted = " x ".join(map(str, sizes))
        raise scg.RunError(f"{path} is broken: it says {wanted} bytes, and has {len(body):,}")
    return torch.frombuffer(bytearray(body), dtype=torch.uint8).view(sizes) if body else torch.empty(sizes)
