"""The network in PyTorch, from which the graphs are exported."""
