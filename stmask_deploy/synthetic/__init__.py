"""A synthetic video benchmark with exact masks and identities."""
