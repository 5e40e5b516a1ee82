"""The program that a user holds: prepared on examples, run, checked, explained."""
