"""The surrogate loss: lowered from facts and choices to torch.fx, and what emitted code calls."""
