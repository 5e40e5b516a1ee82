"""Configuration: what TOML files say, and the errors for what they may not."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import scg
from scg import runs
from scg.commands import positive


@dataclass
class Settings:
    rate: float = 0.1
    seeds: int = 5
    name: str = "a"
    quick: bool = False
    widths: tuple[int, ...] = (2, 3)
    limit: int | None = None


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(text)
    return path


def test_what_a_file_says_goes_before_defaults(tmp_path: Path) -> None:
    path = config(tmp_path, 'rate = 1\nwidths = [4]\nquick = true\nlimit = 3\nname = "b"')
    found = runs.read_config(path, Settings())
    assert found == {"rate": 1.0, "seeds": 5, "name": "b", "quick": True, "widths": (4,), "limit": 3}
    assert isinstance(found["rate"], float)
    assert runs.read_config(path, {**found, "more": 1})["more"] == 1


@pytest.mark.parametrize(
    "text, told",
    [
        ("raet = 1", "there is no key 'raet': 'rate' is meant? There are rate, seeds, name, quick, widths"),
        ("seeds = 1.5", "'seeds' is 1.5, and has to be a whole number"),
        ("seeds = true", "'seeds' is True, and has to be a whole number"),
        ('rate = "fast"', "'rate' is 'fast', and has to be a number"),
        ("quick = 1", "'quick' is 1, and has to be true or false"),
        ("name = 1", "'name' is 1, and has to be a text"),
        ("widths = 3", "'widths' is 3, and has to be a list"),
        ("widths = [3, 4.5]", "'widths' is [3, 4.5], and has to be a whole number"),
        ("rate = ", "is no TOML: "),
        (
            "raet = 1\nseeds = true",
            "There are rate, seeds, name, quick, widths, limit; 'seeds' is",
        ),
    ],
)
def test_keys_and_types_are_checked(text: str, told: str, tmp_path: Path) -> None:
    path = config(tmp_path, text)
    with pytest.raises(scg.RunError) as error:
        runs.read_config(path, Settings())
    assert str(error.value).startswith(str(path))
    assert told in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(scg.RunError, match=r"none.toml cannot be read: No such file"):
        runs.read_config(tmp_path / "none.toml", Settings())


class TestOptions:
    def parsed(self, path: Path, *arguments: str) -> dict[str, Any]:
        parser = argparse.ArgumentParser()
        parser.add_argument("--rates", type=float, nargs="+", default=[0.1])
        parser.add_argument("--value-steps", type=positive, default=1)
        parser.add_argument("--quick", action="store_true")
        runs.add_options(parser, devices=True)
        runs.configure(parser, path)
        return vars(parser.parse_args(arguments))

    def test_the_command_line_goes_before_the_file(self, tmp_path: Path) -> None:
        path = config(tmp_path, 'rates = [1, 2.5]\nvalue-steps = 3\nseed = 4\nquick = true\nout = "here"')
        found = self.parsed(path, "--seed", "7")
        assert (found["rates"], found["value_steps"], found["seed"]) == ([1.0, 2.5], 3, 7)
        assert (found["quick"], found["out"]) == (True, Path("here"))

    @pytest.mark.parametrize(
        "text, told",
        [
            ("value-step = 3", "there is no key 'value-step': 'value-steps' is meant?"),
            ("value_steps = 0", "'value_steps' is 0, which does not do: 0 is not above 0"),
            ("value-steps = 'many'", "'value-steps' is 'many', which does not do: "),
            ("rates = 0.1", "'rates' is 0.1, and has to be a list"),
            ("resume = true", "there is no key 'resume'"),
            ("quick = 'yes'", "'quick' is 'yes', and has to be true or false"),
            ("device = 1", "'device' is 1, and has to be a text"),
        ],
    )
    def test_keys_and_types_are_checked(self, text: str, told: str, tmp_path: Path) -> None:
        with pytest.raises(scg.RunError) as error:
            self.parsed(config(tmp_path, text))
        assert told in str(error.value)
