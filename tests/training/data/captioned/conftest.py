"""Readers of small data, in a folder of the test or in the memory of fsspec."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from training.data.captioned.filters import Filters
from training.data.captioned.reading import ExampleReader
from training.data.sources import DataFlags

OpenReader = Callable[..., ExampleReader]


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder for data, on this machine and in a bucket."""
    if request.param == "local":
        yield str(tmp_path / "data")
        return
    yield f"memory://{tmp_path.name}"
    fsspec.filesystem("memory").rm("/", recursive=True)


@pytest.fixture
def reader(tmp_path: Path) -> OpenReader:
    """Opens data of a folder or URL."""

    def call(data: object, *, filters: Filters | None = None, **flags: Any) -> ExampleReader:
        settings = DataFlags(filters=filters or Filters(), **flags)
        files = settings.open(str(data), tmp_path / "out")
        return settings.reader(files, side_px=8, log=tmp_path / "out" / "skipped.jsonl")

    return call
