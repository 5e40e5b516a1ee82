"""How the time in ``scg.compile`` grows with the length of a chain.

Run ``python benchmarks/compile_growth.py``; sizes are interleaved, and medians and ratios printed.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time

from chains import normal_chain

import scg


def main() -> None:
    """Print the median time in ``scg.compile`` for each size, and its ratio to the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    times: dict[int, list[float]] = {size: [] for size in arguments.sizes}
    for round_ in range(arguments.rounds):
        for size in arguments.sizes:
            graph = normal_chain(size)
            gc.collect()
            start = time.perf_counter()
            scg.compile(graph, policy="score")
            times[size].append(time.perf_counter() - start)
            print(f"round {round_ + 1}: {size} nodes in {times[size][-1]:.2f} s", file=sys.stderr)
    first = statistics.median(times[arguments.sizes[0]])
    for size, several in times.items():
        median = statistics.median(several)
        print(f"{size:>8} nodes  {median:8.3f} s  {median / first:6.2f} times {arguments.sizes[0]} nodes")


if __name__ == "__main__":
    main()
