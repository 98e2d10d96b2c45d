"""How good the pictures are, measured."""
