"""What the tests of the whole stack share: checkpoints that take seconds to make."""

import os
from pathlib import Path

import pytest

from tests.tiny_checkpoints import write_tiny_checkpoints


@pytest.fixture(scope="session")
def cache() -> Path:
    """Home of compiled programs, not the user's; one for all processes of a run."""
    home = Path(os.environ["JAX_COMPILATION_CACHE_DIR"]) / "home"
    home.mkdir(parents=True, exist_ok=True)
    return home


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random checkpoint of every stage."""
    root = tmp_path_factory.mktemp("checkpoints")
    write_tiny_checkpoints(root)
    return root
