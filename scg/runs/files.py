"""Files: written whole or not at all, whatever ends the process or fills the disk meanwhile."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from scg.errors import RunError


def write(path: Path, content: bytes) -> None:
    """Write a file; until that is done, and is on the disk, the one before stays as it was.

    What does not fit is removed again, to leave the room to others.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        kept = "the one before is whole" if path.exists() else "there was none before"
        told = f"{path} could not be written: {error.strerror or error} ({len(content):,} bytes; {kept})"
        raise RunError(told) from error


def _sync_folder(folder: Path) -> None:
    """Have the new name of a file on the disk as well; some systems open no folders."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
