"""`stmask-bench`: how fast bundles run, side by side, and how close they come to what the machine can do."""
