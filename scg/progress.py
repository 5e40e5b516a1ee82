"""Live progress of something long: one line written over on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

PAUSE, PAUSE_ELSEWHERE = 0.1, 10.0


class Progress:
    """Says how far something is, on stderr unless told otherwise."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Start with nothing said."""
        self._stream = sys.stderr if stream is None else stream
        self._overwrites = self._stream.isatty()
        self._last = time.perf_counter()

    def tell(self, line: str) -> None:
        """Say how things are, unless that was said a moment ago."""
        now = time.perf_counter()
        if now - self._last >= (PAUSE if self._overwrites else PAUSE_ELSEWHERE):
            self._last = now
            self._write(line, "" if self._overwrites else "\n")

    def finish(self, line: str) -> None:
        """Say how things ended, and keep that."""
        self._last = time.perf_counter()
        self._write(line, "\n")

    def _write(self, line: str, ending: str) -> None:
        self._stream.write(f"\r\x1b[K{line}{ending}" if self._overwrites else f"{line}{ending}")
        self._stream.flush()
