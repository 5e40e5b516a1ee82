"""Outside: the names under which an exported module takes what the user gave."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from scg.nodes.ir import IR
from scg.nodes.records import Record


class Names:
    """The names under which a module takes what the user gave, each thing once."""

    def __init__(self, ir: IR) -> None:
        """Name nothing yet."""
        self.ir = ir
        self.given: dict[str, Any] = {}

    def __call__(self, record: Record | None, fn: Any) -> str:
        """Return the name of a function or module."""
        owner = next((key for key, held in self.ir.store.modules.items() if held is fn), None)
        name = getattr(fn, "__name__", "")
        if owner is not None:
            name = f"{owner}_module"
        elif not str(name).isidentifier():
            name = f"{record.name if record is not None else 'the'}_fn"
        return self.argument(str(name), fn)

    def network(self, node: str, net: Any) -> str:
        """Return the name of a network of an estimator."""
        return self.argument(f"{node}_net", net)

    def argument(self, wanted: str, value: Any) -> str:
        """Return the name of a thing, one of its own if that is taken by another."""
        for name, held in self.given.items():
            if held is value:
                return name
        base = wanted.replace(".", "_")
        is_taken = (base in self.ir or base in self.ir.plates) and not isinstance(value, Tensor)
        name, count = f"{base}_fn" if is_taken else base, 2
        while name in self.given:
            name, count = f"{base}_{count}", count + 1
        self.given[name] = value
        return name
