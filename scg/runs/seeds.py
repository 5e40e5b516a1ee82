"""Seeds: numbers that are functions of what they are for, so that nothing has to be remembered of noise."""

from __future__ import annotations

import hashlib


def seed_of(*parts: object) -> int:
    """Return a seed that is a function of all ``parts``, as of a run's seed and the number of a step.

    >>> seed_of(1, "policy") == seed_of(1, "policy"), seed_of(1, "policy") == seed_of(1, "control")
    (True, False)
    """
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")
