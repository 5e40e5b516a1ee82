"""The records a graph is made of, and the handles and arguments that join them."""
