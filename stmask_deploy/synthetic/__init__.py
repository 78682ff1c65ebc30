"""A generated video benchmark with exact masks and identities."""
