"""The plan: how many episodes a call plays, and how long they may be."""

from __future__ import annotations

from dataclasses import dataclass

from scg.errors import GraphError


@dataclass(frozen=True)
class Plan:
    """What is played in a call: ``count`` episodes or ``steps`` steps, with at most ``limit`` an episode."""

    count: int
    limit: int | None
    steps: int | None
    seed: int | None

    @staticmethod
    def of(count: int, limit: int | None, steps: int | None, seed: int | None) -> Plan:
        """Return the plan, or refuse what is no plan, with every fault."""
        asked = {"count": count, "limit": limit, "steps": steps}
        faults = [
            f"{name} is {found!r}: write a positive int"
            for name, found in asked.items()
            if not _is_int(found, 1) and (found is not None or name == "count")
        ]
        if seed is not None and not _is_int(seed, 0):
            faults.append(f"seed is {seed!r}: write an int that is not negative")
        if steps is not None and count != 1:
            faults.append(f"count={count!r} and steps={steps!r} both say how much to play: give one of them")
        if faults:
            raise GraphError("episodes: " + "; ".join(faults))
        return Plan(count, limit, steps, seed)

    def rounds(self, size: int) -> int:
        """Return how many episodes each of ``size`` environments plays, at first."""
        if self.count == 1:
            return 1
        if self.count % size:
            below = self.count // size * size
            told = f"{below} or {below + size}" if below else f"{size}"
            raise GraphError(
                f"episodes: count={self.count} is no multiple of the {size} environments of the vector "
                f"environment, which contribute equally many: write {told}"
            )
        return self.count // size


def _is_int(found: object, least: int) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and found >= least
