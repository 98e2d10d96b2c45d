"""Idle connections: clients that ping stay connected, and lost connections are noticed."""

import asyncio
import time

import grpc
import pytest
from muse_client import AsyncMuseClient
from muse_client import channels as client_channels

from services.runtime.server import channels
from services.runtime.server.process import Service, running_server
from services.runtime.server.settings import ServerSettings
from services.stages import generated
from tests.small_stages import House, house
from tests.tcp_line import Line

__all__ = ["house"]
PING_MS = 1000  # gRPC sends no more of them
FASTEST_PING_MS = 500  # that the servers of these tests permit
STRIKES = 4  # pings after which a server that does not permit them has closed the connection


@pytest.fixture(autouse=True)
def fast_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "MIN_PING_INTERVAL_MS", FASTEST_PING_MS)


async def _nothing() -> None:
    return


async def test_an_idle_client_that_pings_as_grpc_documents_it_stays_connected() -> None:
    servicer = generated("tokenizer", "TokenizerServiceServicer")()
    service = Service(name="tokenizer", servicer=servicer, warm_up=_nothing, close=_nothing)
    options = [
        ("grpc.keepalive_time_ms", PING_MS),
        ("grpc.keepalive_timeout_ms", 5000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    async with (
        running_server(service, ServerSettings(grace_s=0.1)) as running,
        grpc.aio.insecure_channel(running.address, options=options) as channel,
    ):
        await asyncio.wait_for(channel.channel_ready(), 10)
        changed = asyncio.create_task(channel.wait_for_state_change(grpc.ChannelConnectivity.READY))
        done, _ = await asyncio.wait([changed], timeout=(STRIKES + 1) * PING_MS / 1000)
        changed.cancel()
        assert not done, "the server closed the connection of a client that pings"


async def test_a_client_pings_before_networks_forget_and_no_faster_than_servers_permit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    forgets_ms = 60_000  # the shortest idle time of usual load balancers
    server = dict(channels.server_options())
    for client in (
        dict(client_channels.channel_options("a:1")),
        dict(channels.keepalive_options()),
    ):
        assert (
            server["grpc.http2.min_ping_interval_without_data_ms"]
            < client["grpc.keepalive_time_ms"]
            < forgets_ms
        )
        assert client["grpc.keepalive_permit_without_calls"] == 1
        assert client["grpc.http2.max_pings_without_data"] == 0
    assert server["grpc.keepalive_permit_without_calls"] == 1


async def test_a_client_calls_again_after_a_silence_in_which_the_network_forgot_its_connection(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_channels, "KEEPALIVE_TIME_MS", PING_MS)
    monkeypatch.setattr(client_channels, "KEEPALIVE_TIMEOUT_MS", PING_MS // 2)
    line = Line(int(house.address.rpartition(":")[2]))
    await line.restore()
    async with AsyncMuseClient(f"127.0.0.1:{line.port}", timeout_s=20) as client:
        assert len(await client.generate("a fox")) == 1
        line.silent = True  # nothing is closed: what is sent gets lost
        await asyncio.sleep(3 * PING_MS / 1000)
        line.silent = False  # for new connections; the old one has been given up
        begun_s = time.monotonic()
        assert len(await client.generate("a fox")) == 1
        assert time.monotonic() - begun_s < 10
    await line.cut()
