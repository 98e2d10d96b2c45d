"""Limits that protocol checks and the decoder share. Imports nothing."""

MAX_STEPS = 256  # of one decode
