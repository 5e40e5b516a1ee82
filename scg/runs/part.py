"""A part of a run: one loop, with what it changes, how far it is, and what it logged."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor

from scg.errors import RunError
from scg.runs.history import Row, columns, read

Clock = Callable[[], float]


class Boundary(Protocol):
    """What a run does between the steps of a loop."""

    def boundary(self, part: Part, *, last: bool) -> None:
        """Save what is due, tell how far the loop is, and end where that was asked for."""

    def logged(self, part: Part, step: int, row: Row) -> None:
        """Pass on what was logged at a step."""


class Part:
    """One loop of a run; made by ``run.part``."""

    def __init__(self, run: Boundary, name: str, found: Mapping[str, Any] | None, clock: Clock) -> None:
        """Begin the loop called ``name`` of ``run``, or go on from what was ``found`` of it in a checkpoint.

        ``clock`` says how many seconds there were.
        """
        self.name = name
        self.step, self.seconds = 0, 0.0
        self.count: int | None = None
        self.rows: list[Row] = []
        self.speed = 0.0
        self._run, self._clock = run, clock
        self._things: dict[str, Any] = {}
        self._found = found
        self._inside = self._finished = False
        self._since = 0.0
        self._begun = False
        self._frozen: Mapping[str, Any] | None = None
        if found is not None:
            self.step, self.seconds = found["step"], found["seconds"]
            self.rows, self._finished = [*found["rows"]], found["finished"]

    def keep(self, **things: Any) -> None:
        """Have ``things`` that the loop changes saved, and those of a run that goes on put as they were.

        They have ``state_dict`` and ``load_state_dict``, as modules and optimizers, or ``get_state`` and
        ``set_state``, as a ``torch.Generator``. Call it before the loop, with all that is made.
        """
        for name, thing in things.items():
            _check(name, thing)
            self._things[name] = thing
            if self._found is not None:
                if name not in self._found["things"]:
                    there = ", ".join(self._found["things"]) or "nothing"
                    raise RunError(f"the checkpoint has no '{name}' to go on with; it has {there}")
                _put(name, thing, self._found["things"][name])

    def steps(self, count: int) -> Iterator[int]:
        """Yield the numbers of the steps up to ``count`` that are left: 0, 1, ... in a new run.

        After each of them the run may be saved. The loop ends early by ``finish()``; one that is left by
        ``break`` is not saved, as nothing says whether its last step was done.
        """
        self._claim()
        self.count = count
        first, spent = self.step, self.seconds
        while self.step < count and not self._finished:
            self._inside, self._since = True, self._clock()
            yield self.step
            self.seconds += self._clock() - self._since
            self._inside = False
            self.step += 1
            self.speed = (self.step - first) / max(self.seconds - spent, 1e-9)
            self._run.boundary(self, last=self._finished or self.step >= count)
        if self.step == first:
            self._run.boundary(self, last=True)
        # What a later loop does to the same things is no part of this one.
        self._frozen = copy.deepcopy(self.state())

    def _claim(self) -> None:
        if self._inside:
            raise RunError("a loop of this run was left by break: end one by finish()")
        missing = set(self._found["things"]) - set(self._things) if self._found else set()
        if missing:
            told = ", ".join(sorted(missing))
            raise RunError(f"the checkpoint has {told} as well: give all to keep() before the loop")
        self._found = self._frozen = None
        self._begun = True

    def finish(self) -> None:
        """End the loop after this step, before its count is reached."""
        self._finished = True

    def log(self, **values: Any) -> None:
        """Note ``values`` of this step: numbers, or [n] tensors such as those of several runs."""
        step = self.step + self._inside
        now = self.seconds + (self._clock() - self._since if self._inside else 0.0)
        found = {name: read(name, value) for name, value in values.items()}
        if not self.rows or self.rows[-1]["step"] != step:
            self.rows.append({"step": step, "seconds": now})
        self.rows[-1].update(found)
        self._run.logged(self, step, found)

    def history(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the steps at which ``name`` was logged, and what that was: [rows], or [rows, n]."""
        return columns(self.rows, name)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Do what is no part of the work, such as measuring: its seconds do not count."""
        begun = self._clock()
        try:
            yield
        finally:
            if self._inside:
                self._since += self._clock() - begun

    def state(self) -> Mapping[str, Any] | None:
        """Return what a checkpoint keeps of the loop; as long as it has not begun, what one has of it."""
        if self._frozen is not None or not self._begun:
            return self._frozen or self._found
        return {
            "step": self.step,
            "seconds": self.seconds,
            "rows": self.rows,
            "finished": self._finished,
            "things": {name: _state(thing) for name, thing in self._things.items()},
        }


def _check(name: str, thing: Any) -> None:
    pairs: Sequence[tuple[str, str]] = (("state_dict", "load_state_dict"), ("get_state", "set_state"))
    if not any(all(callable(getattr(thing, method, None)) for method in pair) for pair in pairs):
        raise RunError(
            f"keep() cannot save '{name}', a {type(thing).__name__}: give what has state_dict and "
            "load_state_dict, as modules and optimizers do"
        )


def _state(thing: Any) -> Any:
    return thing.state_dict() if hasattr(thing, "state_dict") else thing.get_state()


def _put(name: str, thing: Any, state: Any) -> None:
    try:
        if hasattr(thing, "load_state_dict"):
            thing.load_state_dict(state)
        else:
            thing.set_state(state)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise RunError(f"'{name}' is not what the checkpoint has of it: {error}") from error
