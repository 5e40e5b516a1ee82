"""What is told at the end of a long run: how many programs with a defect were judged, by class."""

from __future__ import annotations

import os
from typing import Any

from tests.truth.defects import SEEN


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if SEEN and os.environ.get("HYPOTHESIS_PROFILE") == "fuzz":
        terminalreporter.section("programs with a defect")
        for kind, count in sorted(SEEN.items()):
            terminalreporter.write_line(f"{count:6} {kind}")
        terminalreporter.write_line(f"{SEEN.total():6} in all")
