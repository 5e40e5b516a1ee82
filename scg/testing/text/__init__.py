"""Graphs and policies as Python text that builds them again."""
