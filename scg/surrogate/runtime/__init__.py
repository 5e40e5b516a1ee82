"""What emitted code calls: operations, noise, sites."""
