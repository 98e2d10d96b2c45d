"""Checkpoints on disk: reading, writing and naming them."""
