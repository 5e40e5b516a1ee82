"""The run: its loops, and what is done between their steps: saving, telling, ending if that is asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scg.errors import RunError
from scg.progress import Progress
from scg.runs.board import Board, board
from scg.runs.checkpoint import load, save
from scg.runs.files import write
from scg.runs.folder import Folder, begin, go_on, plain
from scg.runs.history import Row, as_csv
from scg.runs.part import Clock, Part
from scg.runs.pictures import curves
from scg.runs.stopping import Stop, Stopped, stopping

EVERY = 30.0


class Run:
    """A long run in a folder; made by ``scg.runs.open``, and used in a ``with`` statement."""

    def __init__(
        self,
        folder: Folder,
        states: Mapping[str, Any],
        every: float,
        told: Progress | None,
        show: Board | None,
    ) -> None:
        """Go on from the ``states`` of loops in a ``folder``.

        The run is saved ``every`` so many seconds; progress is ``told``, and a board is there to ``show`` it.
        """
        self.folder = folder
        self._states, self._every, self._progress, self._board = dict(states), every, told, show
        self._parts: dict[str, Part] = {}
        self._hooks: list[Callable[[], object]] = []
        self._saved = time.perf_counter()
        self._stopping: AbstractContextManager[Stop] = stopping()
        self._stop = Stop()
        self._draws = find_spec("matplotlib") is not None
        self.clock: Clock = time.perf_counter

    @property
    def out(self) -> Path:
        """The folder."""
        return self.folder.path

    def __enter__(self) -> Run:
        """Take signals for questions from here on."""
        self._stop = self._stopping.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        """Leave signals to others again."""
        self._stopping.__exit__(None, None, None)
        if self._board is not None:
            self._board.close()

    def part(self, name: str) -> Part:
        """Return the loop called ``name``, one of several in this run; names tell them apart."""
        if name not in self._parts:
            self._parts[name] = Part(self, name, self._states.get(name), self.clock)
        return self._parts[name]

    def keep(self, **things: Any) -> None:
        """Have ``things`` saved and put as they were, for a run of one loop; see ``Part.keep``."""
        self.part("").keep(**things)

    def steps(self, count: int) -> Iterator[int]:
        """Yield the steps up to ``count`` that are left, for a run of one loop; see ``Part.steps``."""
        return self.part("").steps(count)

    def log(self, **values: Any) -> None:
        """Note ``values`` of this step, for a run of one loop; see ``Part.log``."""
        self.part("").log(**values)

    def finish(self) -> None:
        """End the loop after this step, for a run of one loop."""
        self.part("").finish()

    def at_saves(self, function: Callable[[], object]) -> None:
        """Call ``function`` whenever the run was saved, as to draw a picture, which the run then does not."""
        self._hooks.append(function)

    def write(self, suffix: str, content: str | bytes) -> Path:
        """Write a file whole or not at all: the run's name with a ``suffix``, and its ``content``."""
        path = self.folder.file(suffix)
        write(path, content.encode() if isinstance(content, str) else content)
        return path

    def save(self) -> None:
        """Write a checkpoint, then tables and pictures: between the steps of a loop, never within one."""
        states = {name: part.state() for name, part in self._parts.items()}
        self._states |= {name: state for name, state in states.items() if state is not None}
        save(self.folder.checkpoint, self._states)
        rows = {name: state["rows"] for name, state in self._states.items()}
        self.write(".csv", as_csv(rows))
        for hook in self._hooks:
            hook()
        picture = curves(rows) if self._draws and not self._hooks else None
        if picture is not None:
            self.write(".png", picture)
        if self._board is not None:
            self._board.flush()
        self._saved = time.perf_counter()

    def boundary(self, part: Part, *, last: bool) -> None:
        """Do what is due after a step of ``part``, which may have been its ``last``."""
        if self._progress is not None:
            (self._progress.finish if last else self._progress.tell)(_told(part))
        stopped = self._stop.asked is not None
        if last or stopped or time.perf_counter() - self._saved >= self._every:
            self.save()
        if stopped and not last:
            raise Stopped(
                f"stopped after step {part.step} of {part.count}; saved in {self.folder.checkpoint}: go on "
                "with --resume (resume=True)"
            )

    def logged(self, part: Part, step: int, row: Row) -> None:
        """Pass a ``row`` that ``part`` logged at a ``step`` on to the board."""
        if self._board is not None:
            self._board.add(part.name, step, row)


def _told(part: Part) -> str:
    """Say how far a loop is, its newest numbers, and how long it will take."""
    title = f"{part.name}: " if part.name else ""
    newest = part.rows[-1] if part.rows else {}
    numbers = [f"{name} {_short(value)}" for name, value in newest.items() if name not in ("step", "seconds")]
    count, left = part.count or 0, (part.count or 0) - part.step
    time_left = [f"{_clock(left / part.speed)} left"] if left > 0 and part.speed else []
    speed = [f"{part.speed:.3g} steps/s"] if part.speed else []
    return f"{title}{', '.join((f'step {part.step} of {count}', *numbers, *speed, *time_left))}"


def _short(value: Any) -> str:
    return f"{sum(value) / max(len(value), 1) if isinstance(value, list) else value:.4g}"


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def open(  # noqa: A001 - scg.runs.open is the public name
    folder: str | Path,
    settings: object,
    *,
    name: str = "run",
    resume: bool = False,
    overwrite: bool = False,
    every: float = EVERY,
    progress: bool = True,
    tensorboard: bool | None = None,
) -> Run:
    """Begin a run in ``folder``, or ``resume`` the one that is there, which goes on to the same end.

    ``settings``, a mapping or a dataclass, are what results depend on: a run that goes on has to have the
    same. A folder that has a run of this ``name`` is refused unless it is to ``overwrite`` it. The run is
    saved ``every`` so many seconds, tells its ``progress`` on stderr, and writes what it logs as CSV, as PNG
    where matplotlib is installed, and for ``tensorboard`` where that is, unless told otherwise.

    >>> import tempfile, torch, scg.runs
    >>> net = torch.nn.Linear(1, 1)
    >>> adam = torch.optim.Adam(net.parameters())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with scg.runs.open(folder, {"seed": 1}, progress=False, tensorboard=False) as run:
    ...         run.keep(net=net, adam=adam)
    ...         for step in run.steps(3):
    ...             run.log(loss=float(step))
    ...         print((run.out / "run.csv").read_text().count(chr(10)))
    4
    """
    place, own = Folder(Path(folder), name), plain(settings)
    if resume and overwrite:
        raise RunError("resume goes on with what is there and overwrite replaces it: say one of them")
    if resume:
        go_on(place, own)
        states = load(place.checkpoint)
    else:
        begin(place, own, overwrite=overwrite)
        states = {}
    told = Progress() if progress else None
    return Run(place, states, every, told, board(place.board, tensorboard))
