"""Evaluation: what the nodes of a graph are on given values, whatever estimators there will be."""
