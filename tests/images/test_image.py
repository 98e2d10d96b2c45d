"""The orchestrator's image, built and started by buildah, where there is one and a base image.

    MUSE_PYTHON_IMAGE=docker.io/library/python:3.12-slim-bookworm pytest tests/images -rs

MUSE_BUILDAH may hold further options of `buildah`, MUSE_BUILDAH_BUILD of `buildah build`.
"""

import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

ROOT = Path(__file__).parents[2]
BASE = os.environ.get("MUSE_PYTHON_IMAGE")
BUILDAH = ["buildah", *shlex.split(os.environ.get("MUSE_BUILDAH", ""))]
OPTIONS = shlex.split(os.environ.get("MUSE_BUILDAH_BUILD", ""))
pytestmark = pytest.mark.skipif(
    shutil.which("buildah") is None or not BASE,
    reason="NOT RUN: no image is built, for want of buildah or of MUSE_PYTHON_IMAGE",
)


def buildah(*words: str) -> str:
    done = subprocess.run([*BUILDAH, *words], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    """A container of the orchestrator's image."""
    image = buildah(
        *("build", "--quiet", "--layers", "--isolation", "chroot", *OPTIONS),
        *("--build-arg", f"PYTHON_IMAGE={BASE}", "--target", "orchestrator", "."),
    )
    made = buildah("from", image)
    yield made
    buildah("rm", made)


def test_the_image_has_a_user_without_rights_and_no_jax(container: str) -> None:
    def run(code: str) -> str:
        return buildah("run", "--isolation", "chroot", container, "--", "python", "-c", code)

    assert run("import os; print(os.getuid(), os.getgid())") == "65532 65532"
    assert run("import importlib.util as u; print(u.find_spec('jax'), u.find_spec('pip'))") == (
        "None None"
    )
    assert run("import os; print(os.access('/opt/muse', os.W_OK))") == "False"


def test_the_image_starts_its_server(container: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["run", "--isolation", "chroot", "--env", f"MUSE_PORT={port}", container, "--"]
    server = subprocess.Popen(
        [*BUILDAH, *command, "python", "-m", "services.orchestrator"], cwd=ROOT
    )
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            deadline, status = time.monotonic() + 60, None
            while status is None and time.monotonic() < deadline:
                try:
                    status = stub.Check(
                        health_pb2.HealthCheckRequest(service="liveness"), timeout=5
                    ).status
                except grpc.RpcError:
                    assert server.poll() is None
                    time.sleep(0.5)
        assert status == health_pb2.HealthCheckResponse.SERVING
    finally:
        server.terminate()
        server.wait(60)
