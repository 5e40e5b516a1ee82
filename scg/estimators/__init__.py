"""Gradient estimators, one file each; the registry finds them."""
