"""Operators PyTorch lacks, as custom operators with eager definitions."""
