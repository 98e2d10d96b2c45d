"""The text encoder: that of a T5 or of a CLIP."""
