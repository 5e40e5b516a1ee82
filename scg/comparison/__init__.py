"""Comparison: what estimators are worth on a graph, measured: bias, variance, time and evaluations."""
