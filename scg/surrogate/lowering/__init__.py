"""Lowering: the only place that builds torch.fx."""
