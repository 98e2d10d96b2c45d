"""What JAX is told before it makes its first array."""

import os
import threading
from functools import cache
from pathlib import Path

from services.runtime.observability.instruments import COMPILING, PROGRAMS, Source

# Events of JAX: the first comes with a program's time, wherever it is from; the second before it,
# on the same thread, if that was the cache.
MADE_READY = "/jax/core/compile/backend_compile_duration"
FROM_CACHE = "/jax/compilation_cache/cache_hits"
_here = threading.local()


def prepare_jax(compilation_cache: Path | None) -> None:
    """Makes JAX keep what it compiles, so that a second start compiles nothing.

    Call it before anything makes an array: JAX reads these settings once.

    Args:
        compilation_cache: A folder, made if missing; None keeps nothing. A folder that cannot be
            written to is only read: whoever writes there decides what every reader runs, so one
            job fills it and the servers mount it read-only.
    """
    import jax  # here, so that what only wants a server's other parts goes without it

    _count_programs()
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


@cache
def _count_programs() -> None:
    """Has JAX tell, once and for all, of each program it makes ready."""
    import jax

    def note_event(event: str, **_: str | int) -> None:
        if event == FROM_CACHE:
            _here.cached = True

    def note_duration(event: str, duration_secs: float, **_: str | int) -> None:
        if event == MADE_READY:
            source: Source = "cache" if getattr(_here, "cached", False) else "compiler"
            _here.cached = False
            PROGRAMS.add(1, source=source)
            COMPILING.add(duration_secs, source=source)

    jax.monitoring.register_event_listener(note_event)
    jax.monitoring.register_event_duration_secs_listener(note_duration)
