"""The composition of the stages, and the public API."""
