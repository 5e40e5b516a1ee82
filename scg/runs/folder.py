"""The folder of a run: begun once, never overwritten unasked, and gone on with under the same settings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from scg.errors import RunError
from scg.runs.files import write

WRITTEN = (".csv", ".html", ".json", ".md", ".png", ".pt", ".svg")
"""What runs leave, by suffix: other files of the same name are not theirs."""


@dataclass(frozen=True)
class Folder:
    """Where the files of a run are, all of which begin with its name."""

    path: Path
    name: str

    def file(self, suffix: str) -> Path:
        """Return the file of the run with a suffix, as ".csv"."""
        return self.path / f"{self.name}{suffix}"

    @property
    def marker(self) -> Path:
        """The file that says that there is a run, with its settings."""
        return self.file(".json")

    @property
    def checkpoint(self) -> Path:
        """The file of what the run reached."""
        return self.file(".pt")

    @property
    def board(self) -> Path:
        """The folder for TensorBoard."""
        return self.file("_board")


def plain(settings: object) -> dict[str, Any]:
    """Return settings, a mapping or a dataclass, as they are after they were written and read.

    >>> plain({"rate": 0.01, "widths": (2, 3)})
    {'rate': 0.01, 'widths': [2, 3]}
    """
    if not isinstance(settings, Mapping) and not (is_dataclass(settings) and not isinstance(settings, type)):
        raise RunError(f"settings are a mapping or a dataclass, not a {type(settings).__name__}")
    given = dict(settings) if isinstance(settings, Mapping) else asdict(settings)
    found: dict[str, Any] = json.loads(json.dumps(given, default=str))
    return found


def begin(folder: Folder, settings: dict[str, Any], *, overwrite: bool) -> None:
    """Make the folder and say in it whose it is; refuse one that has files of such a run."""
    own = folder.path.glob(f"{folder.name}[._]*")
    there = sorted(path.name for path in own if path.suffix in WRITTEN)
    if there and not overwrite:
        resumed = "go on with it by resume=True (--resume), " if folder.marker.exists() else ""
        raise RunError(
            f"{folder.path} has {', '.join(there[:4])}{', ...' * (len(there) > 4)} already: {resumed}choose "
            "another folder (--out), or replace what is there by overwrite=True (--overwrite)"
        )
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        for name in there:
            # The checkpoint goes before the settings that it belongs to.
            if name in (folder.checkpoint.name, folder.file(".csv").name):
                (folder.path / name).unlink()
        if overwrite and folder.board.is_dir():
            shutil.rmtree(folder.board)
    except OSError as error:
        why = "it is no folder" if folder.path.is_file() else error.strerror or error
        raise RunError(f"{folder.path} cannot be written to: {why}") from error
    write(folder.marker, (json.dumps(settings, indent=2) + "\n").encode())


def go_on(folder: Folder, settings: dict[str, Any]) -> None:
    """Refuse a folder without a run, or with one of other settings, each of which is named."""
    if not folder.marker.is_file():
        told = (
            f"there is no {folder.marker}: leave resume (--resume) out to begin, or say where it is (--out)"
        )
        raise RunError(f"nothing to go on with: {told}")
    try:
        before = json.loads(folder.marker.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{folder.marker} cannot be read: {error}") from error
    names = [*before, *(name for name in settings if name not in before)]
    none = object()
    differ = [
        f"{name.replace('_', '-')} {_shown(before, name)} -> {_shown(settings, name)}"
        for name in names
        if before.get(name, none) != settings.get(name, none)
    ]
    if differ:
        raise RunError(
            f"{folder.path} has a run of other settings: {', '.join(differ)}. Go on with those it has, or "
            "begin in another folder"
        )


def _shown(settings: dict[str, Any], name: str) -> str:
    return json.dumps(settings[name]) if name in settings else "(not there)"
