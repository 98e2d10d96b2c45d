"""Readers of small data: in a folder of the test, in the memory of fsspec, or in a bucket."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.s3_service import s3_service
from training.data.captioned.filters import Filters
from training.data.captioned.reading import ExampleReader
from training.data.sources import DataFlags

__all__ = ["s3_service"]

OpenReader = Callable[..., ExampleReader]


@pytest.fixture(params=["local", "memory", "s3", "gs"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder for data: here, in memory, and in a bucket where its service is installed."""
    if request.param == "local":
        yield str(tmp_path / "data")
    elif request.param == "memory":
        yield f"memory://{tmp_path.name}"
        fsspec.filesystem("memory").rm("/", recursive=True)
    else:
        request.getfixturevalue(f"{request.param}_service")
        bucket = tmp_path.name.replace("_", "-")
        fsspec.filesystem(request.param).mkdir(bucket)
        yield f"{request.param}://{bucket}/data"


@pytest.fixture(scope="session")
def gs_service() -> Iterator[None]:
    """Serves Google Cloud Storage on this machine, and has gcsfs find it there."""
    pytest.importorskip("gcsfs", reason="needs pip install -e '.[data]'")
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="needs it installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:  # the emulator tells no port it took
        port = taken.getsockname()[1]
    with ExitStack() as stack:
        stack.enter_context(emulator.create_server("127.0.0.1", port, in_memory=True))
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        environment.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        yield


@pytest.fixture
def reader(tmp_path: Path) -> OpenReader:
    """Opens data of a folder or URL."""

    def call(data: object, *, filters: Filters | None = None, **flags: Any) -> ExampleReader:
        settings = DataFlags(filters=filters or Filters(), **flags)
        files = settings.open(str(data), tmp_path / "out")
        return settings.reader(files, side_px=8, log=tmp_path / "out" / "skipped.jsonl")

    return call
