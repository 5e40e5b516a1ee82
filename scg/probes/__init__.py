"""Probes: what is found out about a function of tensors by calling it; they know no graph."""
