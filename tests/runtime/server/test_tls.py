"""Servers that speak TLS, over real handshakes with certificates of the tests' own."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from muse.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc

from services.runtime.observability.instruments import REQUESTS
from services.runtime.server.process import READINESS, running_server
from services.runtime.server.settings import ServerSettings
from tests import http2
from tests.authority import DAY, ORCHESTRATOR, Authority, Pair
from tests.runtime.conftest import SERVICE

HOST = "127.0.0.1"
SERVING = health_pb2.HealthCheckResponse.SERVING
NO_TEXT = b"/\xff\xfe"  # a path that is no UTF-8, at which grpcio's accept loop ends
CLOSED = "UNAVAILABLE: failed to connect"


@dataclass
class Certified:
    """Files of a server and the authority that signs for it."""

    folder: Path
    authority: Authority = field(default_factory=Authority)

    def __post_init__(self) -> None:
        self.ca = self.authority.write(self.folder)
        self.use(self.authority.issue(HOST))

    def use(self, pair: Pair) -> None:
        """Writes the server's certificate and key, over those that are there."""
        self.cert, self.key = pair.write(self.folder)

    def settings(self, *, mutual: bool = False, **others: Any) -> ServerSettings:
        """Settings of a server with these files; if `mutual` its clients need certificates."""
        ca = self.ca if mutual else None
        return ServerSettings(tls_cert=self.cert, tls_key=self.key, tls_ca=ca, **others)

    @asynccontextmanager
    async def channel(self, port: int, pair: Pair | None = None) -> AsyncIterator[grpc.aio.Channel]:
        """A channel with a connection of its own."""
        key, cert = (None, None) if pair is None else (pair.key, pair.cert)
        credentials = grpc.ssl_channel_credentials(self.authority.pem, key, cert)
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.secure_channel(f"{HOST}:{port}", credentials, options) as channel:
            yield channel

    async def called(self, port: int, pair: Pair | None = None) -> str:
        """Calls on a new connection; returns "OK", or code and details of the failure."""
        async with self.channel(port, pair) as channel:
            return await outcome(channel)

    def shown(self, port: int) -> bytes:
        """Returns the certificate that a new connection is shown."""
        return ssl.get_server_certificate((HOST, port)).encode()


async def outcome(channel: grpc.aio.Channel) -> str:
    stub = tokenizer_pb2_grpc.TokenizerServiceStub(channel)
    try:
        await stub.Decode(tokenizer_pb2.DecodeRequest(), timeout=10)
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"
    return "OK"


async def health(channel: grpc.aio.Channel) -> int:
    request = health_pb2.HealthCheckRequest(service=READINESS)
    return int((await health_pb2_grpc.HealthStub(channel).Check(request, timeout=10)).status)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def certified(tmp_path: Path) -> Certified:
    return Certified(tmp_path)


async def test_a_server_with_a_certificate_answers_over_tls_and_not_in_plain_text(
    certified: Certified,
) -> None:
    async with running_server(SERVICE, certified.settings()) as running:
        assert await certified.called(running.port) == "OK"
        async with grpc.aio.insecure_channel(running.address) as channel:
            assert (await outcome(channel)).startswith(CLOSED)


async def test_a_server_with_authorities_refuses_every_client_that_they_do_not_vouch_for(
    certified: Certified,
) -> None:
    issue = certified.authority.issue
    async with running_server(SERVICE, certified.settings(mutual=True)) as running:
        refused = [
            None,
            Authority().issue("client"),
            issue("client", begin=-2 * DAY, end=-timedelta(seconds=1)),
            issue("client", begin=timedelta(hours=1)),
        ]
        for pair in refused:
            assert (await certified.called(running.port, pair)).startswith(CLOSED)
        assert await certified.called(running.port, issue("client")) == "OK"


async def test_a_new_certificate_is_shown_to_the_next_connection_and_no_call_is_lost(
    certified: Certified, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        running_server(SERVICE, certified.settings()) as running,
        certified.channel(running.port) as before,
    ):
        stub = tokenizer_pb2_grpc.TokenizerServiceStub(before)
        under_way = stub.GetStatus(tokenizer_pb2.GetStatusRequest())
        assert await outcome(before) == "OK"
        renewed = certified.authority.issue(HOST)
        certified.use(renewed)

        assert await certified.called(running.port) == "OK"
        assert await asyncio.to_thread(certified.shown, running.port) == renewed.cert
        assert await outcome(before) == "OK"
        assert not under_way.done()
        under_way.cancel()
    (said,) = [each for each in caplog.records if "read again" in each.message]
    assert vars(said)["file"] == str(certified.cert)


async def test_new_authorities_hold_for_the_next_connection(certified: Certified) -> None:
    other = Authority("other")
    async with running_server(SERVICE, certified.settings(mutual=True)) as running:
        client = other.issue("client")
        assert (await certified.called(running.port, client)).startswith(CLOSED)
        certified.ca.write_bytes(other.pem + certified.authority.pem)

        assert await certified.called(running.port, client) == "OK"


@pytest.mark.parametrize("damage", ["no PEM", "key of another", "expired", "no key", "no cert"])
async def test_a_change_that_cannot_be_used_keeps_the_pair_and_is_logged_once(
    certified: Certified, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    authority, in_use = certified.authority, certified.cert.read_bytes()
    async with running_server(SERVICE, certified.settings()) as running:
        key = certified.key.read_text()
        damaged = {"no PEM": certified.cert, "no cert": certified.cert}.get(damage, certified.key)
        if damage == "no PEM":
            certified.cert.write_text("no certificate")
        elif damage == "key of another":
            certified.key.write_bytes(authority.issue(HOST).key)
        elif damage == "expired":
            certified.use(authority.issue(HOST, begin=-2 * DAY, end=-DAY))
            damaged = certified.cert
        else:
            damaged.unlink()

        for _ in range(3):
            assert await certified.called(running.port) == "OK"
        assert await asyncio.to_thread(certified.shown, running.port) == in_use
        (said,) = [each.getMessage() for each in caplog.records if "stay" in each.message]
        assert str(damaged) in said
        assert not any(line in said for line in key.splitlines()[1:-1])

        certified.use(authority.issue(HOST))
        assert await certified.called(running.port) == "OK"
        assert await asyncio.to_thread(certified.shown, running.port) != in_use


async def test_a_server_is_built_again_with_its_latest_certificate(certified: Certified) -> None:
    context = ssl.create_default_context(cadata=certified.authority.pem.decode())
    context.set_alpn_protocols(["h2"])
    async with running_server(SERVICE, certified.settings(grace_s=1)) as running:
        renewed = certified.authority.issue(HOST)
        certified.use(renewed)
        assert await certified.called(running.port) == "OK"
        reader, writer = await asyncio.open_connection(HOST, running.port, ssl=context)
        writer.write(http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0) + http2.call(NO_TEXT))
        await http2.goaway(reader)
        writer.close()

        async with asyncio.timeout(10):
            while await certified.called(running.port) != "OK":  # noqa: ASYNC110, no event is set
                await asyncio.sleep(0.01)
        assert await asyncio.to_thread(certified.shown, running.port) == renewed.cert


async def test_only_named_clients_are_answered_but_health_is_for_all(
    certified: Certified, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    counted: list[grpc.StatusCode] = []
    monkeypatch.setattr(REQUESTS, "record", lambda _, *, outcome, **__: counted.append(outcome))
    issue, settings = certified.authority.issue, certified.settings
    accepted = (ORCHESTRATOR, "orchestrator.muse.svc")
    async with running_server(SERVICE, settings(mutual=True, tls_clients=accepted)) as running:
        for name in accepted:
            assert await certified.called(running.port, issue("other", name)) == "OK"
        for name in ("spiffe://cluster.local/ns/muse/sa/base", "orchestrator.muse.svc.evil"):
            refused = await certified.called(running.port, issue(name))
            assert refused.startswith(
                f"PERMISSION_DENIED: this server does not accept calls of {name}"
            )
        nameless = await certified.called(running.port, issue("10.1.2.3"))
        assert "without a URI or DNS name" in nameless
        async with certified.channel(running.port, issue("probe")) as channel:
            assert await health(channel) == SERVING
    assert counted == ["OK"] * 2 + ["PERMISSION_DENIED"] * 3
    logged = [vars(each)["client"] for each in caplog.records if "was refused" in each.message]
    assert logged[0] == "spiffe://cluster.local/ns/muse/sa/base"


async def test_clients_are_held_to_their_names_for_whatever_describes_a_server(
    certified: Certified,
) -> None:
    settings = certified.settings(mutual=True, tls_clients=(ORCHESTRATOR,), introspection=True)
    async with (
        running_server(SERVICE, settings) as running,
        certified.channel(running.port, certified.authority.issue("other")) as channel,
    ):
        call = channel.unary_unary("/grpc.channelz.v1.Channelz/GetServers")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_the_health_port_answers_health_in_plain_text_and_nothing_else(
    certified: Certified,
) -> None:
    port = free_port()
    async with (
        running_server(SERVICE, certified.settings(mutual=True, health_port=port)),
        grpc.aio.insecure_channel(f"{HOST}:{port}") as channel,
    ):
        assert await health(channel) == SERVING
        assert (await outcome(channel)).startswith("UNIMPLEMENTED")
    with socket.socket() as probe:
        assert probe.connect_ex((HOST, port)) != 0


async def test_a_client_that_says_nothing_does_not_keep_the_others_waiting(
    certified: Certified,
) -> None:
    async with running_server(SERVICE, certified.settings(max_connections=4)) as running:
        silent = [await asyncio.open_connection(HOST, running.port) for _ in range(2)]
        assert await certified.called(running.port) == "OK"
        for _, writer in silent:
            assert not writer.is_closing()
            writer.close()
