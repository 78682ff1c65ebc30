"""Training and fine-tuning of STMask networks."""
