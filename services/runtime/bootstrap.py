"""What JAX is told before it makes its first array."""

from pathlib import Path


def prepare_jax(compilation_cache: Path | None) -> None:
    """Makes JAX keep what it compiles, so that a second start compiles nothing.

    Call it before anything makes an array: JAX reads these settings once.

    Args:
        compilation_cache: A folder, made if missing; None keeps nothing.
    """
    import jax  # here, so that what only wants a server's other parts goes without it

    if compilation_cache is None:
        return
    compilation_cache.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(compilation_cache.resolve()))
    # By default it leaves out what compiles in a second or is small: all of a small model.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
