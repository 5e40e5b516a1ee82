"""Benchmarks: programs of scg against the same steps by hand and in other libraries."""
