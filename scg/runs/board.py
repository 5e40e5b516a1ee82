"""The board: scalars for TensorBoard, where that is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scg.errors import RunError


class Board:
    """Writes what loops log into a folder that ``tensorboard --logdir`` shows, a line for each loop."""

    def __init__(self, folder: Path) -> None:
        """Write into a folder, which is made when there is something to write."""
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def add(self, part: str, step: int, values: dict[str, Any]) -> None:
        """Write the numbers that a loop logged at a step; several under one name by their mean."""
        if part not in self._writers:
            self._writers[part] = _writer(self._folder / (part or "run"), step)
        for name, value in values.items():
            number = sum(value) / len(value) if isinstance(value, list) and value else value
            self._writers[part].add_scalar(name, number, step)

    def flush(self) -> None:
        """Have all on the disk."""
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """End."""
        for writer in self._writers.values():
            writer.close()


def _writer(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step)


def board(folder: Path, wanted: bool | None) -> Board | None:
    """Return a board if it is wanted, by default where TensorBoard is installed."""
    installed = find_spec("tensorboard") is not None
    if wanted and not installed:
        raise RunError("tensorboard=True needs TensorBoard: pip install tensorboard")
    return Board(folder) if wanted or (wanted is None and installed) else None
