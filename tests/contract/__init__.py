"""The contract that every registered estimator keeps, tested through the registry."""
