"""What every test relies on: one thread, and property tests that give the same answer every time."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch.distributions import Distribution

from tests.selection import thinned

torch.set_num_threads(1)
if not torch.accelerator.is_available():
    for devices in (torch.cuda, torch.xpu, torch.mtia):
        # For devices that are not there, torch.manual_seed would note the stack of every call.
        devices.manual_seed_all = lambda seed: None

settings.register_profile("ci", derandomize=True, deadline=None, database=None, max_examples=50)
settings.register_profile(
    "fuzz", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what is run in full under the fuzz profile only, and inductor where it cannot work.

    Without vectors it writes some that torch then does not declare; paths with a space it does not quote.
    """
    items[:] = thinned(items)
    why = "vectors" if torch.backends.cpu.get_cpu_capability() == "DEFAULT" else ""
    why = why or ("a path without a space to torch" if " " in torch.__file__ else "")
    for item in items:
        if why and "inductor" in item.name:
            item.add_marker(pytest.mark.skip(reason=f"torch's inductor needs {why}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many random graphs were judged, and how long that took."""
    for report in terminalreporter.stats.get("passed", []):
        count = dict(report.user_properties).get("random graphs") if report.when == "call" else None
        if count is not None:
            terminalreporter.write_line(f"{count} random graphs judged in {report.duration / 60:.1f} minutes")


@pytest.fixture(autouse=True)
def validated() -> None:
    """Have torch check the arguments of distributions again, after torch.compile has turned that off."""
    Distribution.set_default_validate_args(True)


@pytest.fixture
def compiling(validated: None) -> Iterator[None]:
    """Start torch.compile afresh, and leave checks to it as it does where it is first called."""
    torch.compiler.reset()
    Distribution.set_default_validate_args(False)
    yield
    torch.compiler.reset()
