"""A gateway over an orchestrator and four small stages, all on free ports."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx2
import openai
import pytest
from opentelemetry.sdk.metrics import MeterProvider

from services.gateway.process import uvicorn_server
from services.gateway.settings import GatewaySettings
from tests.orchestrator.callers.conftest import key_file
from tests.small_stages import House, house
from tests.waiting import until

__all__ = ["house", "key_file"]


@dataclass
class Gateway:
    """A gateway that runs.

    Attributes:
        url: Where it answers.
        openai: OpenAI's own client of it.
        http: Any client of it.
    """

    url: str
    openai: openai.AsyncOpenAI
    http: httpx2.AsyncClient


Start = Callable[..., AbstractAsyncContextManager[Gateway]]


@asynccontextmanager
async def running_gateway(
    house: House, meters: MeterProvider | None = None, **settings: Any
) -> AsyncIterator[Gateway]:
    """A gateway over a house, with some settings set."""
    given = GatewaySettings(**{"port": 0, "orchestrator": house.address, "grace_s": 1, **settings})
    server = uvicorn_server(given, meters or MeterProvider(), None)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started or serving.done())
    try:
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        official = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
        async with official, httpx2.AsyncClient(base_url=url, timeout=30) as http:
            yield Gateway(url, official, http)
    finally:
        server.should_exit = True
        await serving


@pytest.fixture
def start(house: House) -> Start:
    """Starts a gateway with other settings."""
    return partial(running_gateway, house)


@pytest.fixture
async def gateway(house: House) -> AsyncIterator[Gateway]:
    """A gateway with default settings."""
    async with running_gateway(house) as running:
        yield running
