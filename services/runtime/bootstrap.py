"""What JAX is told before it makes its first array."""

import os
from pathlib import Path


def prepare_jax(compilation_cache: Path | None) -> None:
    """Makes JAX keep what it compiles, so that a second start compiles nothing.

    Call it before anything makes an array: JAX reads these settings once.

    Args:
        compilation_cache: A folder, made if missing; None keeps nothing. A folder that cannot be
            written to is only read: whoever writes there decides what every reader runs, so one
            job fills it and the servers mount it read-only.
    """
    import jax  # here, so that what only wants a server's other parts goes without it

    if compilation_cache is None:
        return
    compilation_cache.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(compilation_cache.resolve()))
    # By default it leaves out what compiles in a second or is small: all of a small model. Where
    # nothing can be written, no program takes long enough to be worth the attempt.
    writable = os.access(compilation_cache, os.W_OK)
    least_s = 0.0 if writable else float("inf")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least_s)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
