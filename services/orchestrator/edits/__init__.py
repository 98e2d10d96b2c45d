"""Editing pictures: reading what callers send, placing it on the square that the stages work on."""
