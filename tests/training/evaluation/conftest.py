"""The artwork that tests draw, with the board and the pictures of the preset "demo"."""

from pathlib import Path

import pytest

from training.evaluation.testbed import Testbed, open_testbed


@pytest.fixture(scope="session")
def testbed(artwork: Path) -> Testbed:
    """A testbed of a few plain objects; its detector is prepared once."""
    return open_testbed("demo", artwork)
