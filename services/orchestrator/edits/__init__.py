"""Edits of pictures: one file for each edit kind, and what the kinds share."""
