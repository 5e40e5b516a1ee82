"""The protocol: what the compiler tells an estimator, what an estimator asks for, and what it owes."""
