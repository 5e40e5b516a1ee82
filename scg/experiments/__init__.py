"""Experiments of the papers behind the estimators: each a package, run by ``scg run`` and its name."""
