"""Masked parallel decoding, in pure JAX (Muse, section 2.8)."""
