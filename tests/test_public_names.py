"""What ``scg`` exports."""

from __future__ import annotations

import scg
from scg.estimators.registry import registry


def test_every_estimator_is_exported_under_the_name_of_its_class() -> None:
    for kind in registry().values():
        assert getattr(scg, kind.__name__) is kind
        assert kind.__name__ in scg.__all__


def test_everything_exported_is_documented() -> None:
    for name in scg.__all__:
        assert getattr(scg, name).__doc__
