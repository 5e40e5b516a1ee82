"""Proofs that the gradient of a program is that of its objective, and what they rest on."""
