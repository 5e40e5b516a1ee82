"""One training step of a chain against the same loop written by hand, interleaved in one process.

Run ``python benchmarks/chain_step.py``; medians and their ratio are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from chains import normal_chain, reparam_by_hand, score_by_hand
from torch import nn

import scg


def main() -> None:
    """Print, for score and reparam, the median step of both and the median of their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=300, help="nodes of the chain")
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for policy, by_hand in (("score", score_by_hand), ("reparam", reparam_by_hand)):
        compare(policy, by_hand, arguments.length, arguments.rounds)


def compare(policy: str, by_hand: Callable[[nn.Parameter, int], None], length: int, rounds: int) -> None:
    """Time both kinds of step in turn and print the result."""
    program = scg.compile(normal_chain(length), policy=policy)
    program()
    theta = nn.Parameter(torch.tensor(0.1))

    def ours() -> None:
        program().loss.backward()

    def hand() -> None:
        by_hand(theta, length)

    timed: dict[Callable[[], None], list[float]] = {ours: [], hand: []}
    for _ in range(rounds):
        for step, several in timed.items():
            start = time.perf_counter()
            step()
            several.append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(timed[ours], timed[hand], strict=True)]
    mine, theirs = (1e3 * statistics.median(timed[step]) for step in (ours, hand))
    print(
        f"{policy:>8}, {length} nodes: program {mine:.2f} ms, by hand {theirs:.2f} ms, "
        f"ratio of medians {mine / theirs:.2f}, median ratio {statistics.median(ratios):.2f}"
    )


if __name__ == "__main__":
    main()
