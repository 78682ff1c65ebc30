"""`stmask-bench`: how fast bundles run, row beside row, and how far from what the machine could do."""
