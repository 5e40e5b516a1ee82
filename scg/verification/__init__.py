"""Verification: is the gradient that a program leaves unbiased? Tested on many draws, against a reference."""
