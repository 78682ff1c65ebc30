"""The network in PyTorch, the definition that is exported."""
