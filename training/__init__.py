"""Training of every stage's checkpoint."""
