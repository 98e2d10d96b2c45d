"""What tests of several folders use."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest


@pytest.fixture(scope="session")
def nothing_compiles() -> Callable[[], AbstractContextManager[None]]:
    """Makes blocks that fail if JAX traces, lowers or compiles a program inside them."""
    import jax  # here: most tests do without

    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: (
            compiled.append(event) if event.startswith("/jax/core/compile/") else None
        )
    )

    @contextmanager
    def block() -> Iterator[None]:
        before = len(compiled)
        yield
        assert compiled[before:] == []

    return block
