"""The gateway of `muse up`: whether it can run here, and what it is given."""

import os
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from services.stages import GATEWAY
from tools.local.forwarding import HOST
from tools.local.placement import LocalPod

PACKAGES = (
    *("aiohttp", "aiosqlite", "alembic", "fastapi", "fsspec", "multipart"),
    *("opentelemetry.instrumentation.fastapi", "sqlalchemy", "uvicorn"),
)
CREDENTIALS = ("MUSE_API_KEYS_FILE", "MUSE_JWT_ISSUER")  # with one of them callers need a key


def check_gateway(environment: Mapping[str, str] = os.environ) -> None:
    """Checks what the gateway needs before anything is started.

    Raises:
        ValueError: a package is missing, or a key for its own questions.
    """
    for package in PACKAGES:
        if not _is_installed(package):
            raise ValueError(
                f"gateway: expected the package {package}, which is not installed: install the "
                'extra "gateway", or start without HTTP by --no-gateway'
            )
    for name in CREDENTIALS:
        if environment.get(name) and not environment.get("MUSE_API_KEY"):
            raise ValueError(
                f"gateway: expected MUSE_API_KEY beside {name}, by which the orchestrator demands "
                "a key for the gateway's own questions, too; or start without HTTP by --no-gateway"
            )


def set_up(pod: LocalPod, base_port: int, jobs: Path) -> LocalPod:
    """Returns a pod that, if it is a gateway, calls the orchestrators and has jobs.

    Args:
        pod: Any pod of the overlay.
        base_port: Forwards to the ready pods of the orchestrator, however many there are.
        jobs: Folder that all gateways have their jobs in, unless MUSE_JOBS_DATABASE names another
            database.
    """
    if pod.deployment.name != GATEWAY:
        return pod
    environment = {
        "MUSE_JOBS_DATABASE": f"sqlite:///{jobs / 'jobs.db'}",
        **pod.environment,
        "MUSE_ORCHESTRATOR": f"{HOST}:{base_port}",
    }
    return replace(pod, environment=environment)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of its parent
        return False
