"""Every overlay, rendered once."""

import copy
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from k8s.checks.rendering import Manifest, parse, render, renderer

ROOT = Path(__file__).parents[2]
MISSING = "nothing here renders manifests: install kubectl, or run make kubectl"


@cache
def _rendered(folder: str) -> list[Manifest]:
    return parse(render(ROOT / folder))


@pytest.fixture(scope="session")
def rendered() -> Callable[[str], list[Manifest]]:
    """Returns the objects of a folder with a kustomization, a fresh copy each time."""
    if renderer() is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    return lambda folder: copy.deepcopy(_rendered(folder))
