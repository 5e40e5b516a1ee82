"""Exporting: programs recorded as calls of torch, and written as Python modules."""
