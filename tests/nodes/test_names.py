"""Names of nodes, against what a program uses."""

from __future__ import annotations

import scg
from scg.examples import schulman_1
from scg.nodes.names import RESERVED


def test_every_public_name_of_a_program_is_reserved() -> None:
    program = scg.compile(schulman_1())
    nodes = set(schulman_1())
    public = {name for name in dir(program) if not name.startswith("_")} - nodes
    assert public <= RESERVED
