"""Import of weights that others have published, as checkpoints of this project."""
