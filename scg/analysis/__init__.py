"""From a graph and example values to facts: influence, crossing, run modes, smooth paths."""
