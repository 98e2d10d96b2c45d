"""JAX settings of a server: the cache of compiled programs, and metrics of compilation."""

import logging
import os
import threading
from functools import cache
from pathlib import Path

from services.runtime.observability.instruments import COMPILING, PROGRAMS, Source

logger = logging.getLogger(__name__)
# Events of JAX. The first reports the time to load a program, compiled or cached; the second comes
# before it on the same thread if the program is cached.
PROGRAM_LOADED = "/jax/core/compile/backend_compile_duration"
CACHE_HIT = "/jax/compilation_cache/cache_hits"
_thread = threading.local()


def prepare_jax(compilation_cache: Path | None, *, required: bool = False) -> None:
    """Makes JAX keep compiled programs, so that the next start compiles nothing.

    JAX reads these settings once, so call it before the first array. A folder that cannot be
    created is a warning, as a server serves without it.

    Args:
        compilation_cache: Folder, created if missing; None keeps nothing. A read-only folder is
            read and not written: a writer decides what code every reader runs, so one job fills
            the folder and the servers mount it read-only.
        required: Whether a folder that cannot be created is an error.

    Raises:
        ValueError: the required folder cannot be created.
    """
    import jax  # imported here: other parts of the runtime work without JAX

    _count_programs()
    if compilation_cache is None:
        return
    try:
        compilation_cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"compilation_cache: cannot create {compilation_cache} ({error.strerror})"
        if required:
            raise ValueError(problem) from error
        logger.warning("%s; compiled programs are not kept", problem)
        return
    jax.config.update("jax_compilation_cache_dir", str(compilation_cache.resolve()))
    # By default JAX skips programs that compile within a second or are small, which is all of a
    # small model. In a read-only folder no time is long enough to attempt a write.
    writable = os.access(compilation_cache, os.W_OK)
    if not writable:
        logger.info("%s is only read; new programs are not kept", compilation_cache)
    min_compile_s = 0.0 if writable else float("inf")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", min_compile_s)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@cache
def _count_programs() -> None:
    """Counts every program that JAX loads; registers its listeners once a process."""
    import jax

    def note_event(event: str, **_: str | int) -> None:
        if event == CACHE_HIT:
            _thread.cached = True

    def note_duration(event: str, duration_secs: float, **_: str | int) -> None:
        if event == PROGRAM_LOADED:
            source: Source = "cache" if getattr(_thread, "cached", False) else "compiler"
            _thread.cached = False
            PROGRAMS.add(1, source=source)
            COMPILING.add(duration_secs, source=source)

    jax.monitoring.register_event_listener(note_event)
    jax.monitoring.register_event_duration_secs_listener(note_duration)
