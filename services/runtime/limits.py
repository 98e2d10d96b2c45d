"""Limits that protocol checks, the orchestrator and the decoder share. Imports nothing."""

MAX_STEPS = 256  # of one decode
SEED_LIMIT = 2**64  # seeds are 0 to SEED_LIMIT - 1
