"""From facts to a program: policy, estimators, lowering, running."""
