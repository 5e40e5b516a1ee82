"""What tests of probes share."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session")
def operators() -> Any:
    """The module of torch's own list of operators, which takes long to import and needs more than torch."""
    pytest.importorskip("expecttest", reason="torch's list of operators imports it")
    return pytest.importorskip("tests.probes.operators")
