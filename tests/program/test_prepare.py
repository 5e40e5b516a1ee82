"""Preparing, and what it leaves as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

import scg
from scg.examples import schulman_1
from scg.program.prepare import collector_paused


@pytest.fixture
def collecting() -> Iterator[None]:
    yield
    gc.enable()


@pytest.mark.usefixtures("collecting")
@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    scg.compile(schulman_1())
    assert gc.isenabled() is enabled
    with pytest.raises(scg.EstimatorError):
        scg.compile(schulman_1(), policy="reparam")
    assert gc.isenabled() is enabled


@pytest.mark.usefixtures("collecting")
def test_the_collector_rests_inside() -> None:
    gc.enable()
    with collector_paused():
        assert not gc.isenabled()
