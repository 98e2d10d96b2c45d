"""Gateways with jobs in a database of the test, and a receiver of webhooks."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web

from tests.gateway.conftest import Gateway, house, key_file, running_gateway
from tests.small_stages import House

__all__ = ["house", "key_file"]

JOBS = "/v1/jobs"
BODY = {"operation": "generate", "prompt": "a fox", "seed": 7}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # of Standard Webhooks' own examples
ENDED = ("succeeded", "failed", "cancelled")
StartJobs = Callable[..., AbstractAsyncContextManager[Gateway]]


@dataclass
class Receiver:
    """A server that webhooks are posted to.

    Attributes:
        url: Where.
        statuses: What it answers to the next ones; then 200.
        headers: Of those that came.
        bodies: Of those that came.
    """

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def receive(self, request: web.Request) -> web.Response:
        """Answers a webhook."""
        self.headers.append({name.lower(): each for name, each in request.headers.items()})
        self.bodies.append(await request.read())
        status = self.statuses.pop(0) if self.statuses else 200
        return web.Response(status=status, headers={"Location": "/elsewhere"})


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """Settings of gateways that share jobs in SQLite."""
    return {"jobs_database": f"sqlite:///{tmp_path / 'data' / 'jobs.db'}"}


@pytest.fixture
def start_jobs(house: House, settings: dict[str, Any]) -> StartJobs:
    """Starts a gateway with jobs, and other settings."""
    return partial(running_gateway, house, **settings)


@pytest.fixture
async def gateway(start_jobs: StartJobs) -> AsyncIterator[Gateway]:
    """A gateway with jobs."""
    async with start_jobs() as running:
        yield running


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver of webhooks on this machine."""
    found = Receiver()
    app = web.Application()
    app.router.add_post("/{path}", found.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield found
    await runner.cleanup()


@pytest.fixture
def hooks(tmp_path: Path) -> dict[str, Any]:
    """Settings by which webhooks are signed, and may reach this machine."""
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    return {
        "webhook_secret_file": secret,
        "webhook_allowed": ("127.0.0.0/8",),
        "webhook_retry_s": 0.05,
    }


async def added(gateway: Gateway, headers: dict[str, str] | None = None, **body: Any) -> str:
    """Adds a job, and returns its id."""
    response = await gateway.http.post(JOBS, json={**BODY, **body}, headers=headers)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


async def job(
    gateway: Gateway, job_id: str, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """A job as it stands."""
    response = await gateway.http.get(f"{JOBS}/{job_id}", headers=headers)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def reached(
    gateway: Gateway, job_id: str, *states: str, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """A job once it is in one of some states; else the test fails where it ended."""
    async with asyncio.timeout(20):
        while (found := await job(gateway, job_id, headers))["state"] not in states:
            assert found["state"] not in ENDED, found
            await asyncio.sleep(0.02)
    return found


async def gone(gateway: Gateway, job_id: str) -> None:
    """Waits until a job is no longer there."""
    async with asyncio.timeout(20):
        url = f"{JOBS}/{job_id}"
        while (await gateway.http.get(url)).status_code != 404:  # noqa: ASYNC110, no event
            await asyncio.sleep(0.02)


async def pictures(gateway: Gateway, done: dict[str, Any]) -> list[bytes]:
    """The files of a job's pictures."""
    answers: list[httpx2.Response] = [
        await gateway.http.get(each["url"]) for each in done["result"]["images"]
    ]
    assert {each.status_code for each in answers} == {200}
    return [each.content for each in answers]


class Held:
    """Holds base at its first step until it is let go."""

    def __init__(self, house: House) -> None:
        """Holds it."""
        self.entered, self.gate = asyncio.Event(), asyncio.Event()
        house.stages["base"].around = self.around

    async def around(self, _: int) -> None:
        """What base awaits."""
        self.entered.set()
        await self.gate.wait()
