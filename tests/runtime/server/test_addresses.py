"""Servers, probes and metrics at addresses of both families, in every usual spelling."""

import asyncio
import socket
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from muse_client.addresses import target_of

from services.orchestrator.replicas.addresses import addresses_of
from services.runtime.observability.metrics import configure_metrics
from services.runtime.server.process import Service, running_server
from services.runtime.server.settings import ServerSettings
from services.stages import generated
from tools.local.probes import serving


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


IPV6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback address")


async def _nothing() -> None:
    return


@pytest.mark.parametrize(
    ("host", "prefix", "spellings"),
    [
        ("127.0.0.1", "127.0.0.1:", ("{}", "ipv4:{}", "dns:///{}")),
        ("0.0.0.0", "127.0.0.1:", ("{}", "0.0.0.0:{port}", "localhost:{port}")),
        ("localhost", "localhost:", ("{}", "dns:///{}")),
        pytest.param("::1", "[::1]:", ("{}", "ipv6:{}", "dns:///{}"), marks=IPV6),
        pytest.param("[::1]", "[::1]:", ("{}", "[0::1]:{port}"), marks=IPV6),
        pytest.param("::", "[::1]:", ("{}", "[::]:{port}", "127.0.0.1:{port}"), marks=IPV6),
        pytest.param("[::]", "[::1]:", ("{}", "localhost:{port}"), marks=IPV6),
    ],
)
async def test_a_server_is_called_at_its_printed_address_in_every_spelling(
    host: str, prefix: str, spellings: tuple[str, ...]
) -> None:
    service = Service(
        name="tokenizer",
        servicer=generated("tokenizer", "TokenizerServiceServicer")(),
        warm_up=_nothing,
        close=_nothing,
    )
    async with running_server(
        service, ServerSettings(host=host, insecure=True, grace_s=0.1)
    ) as running:
        assert running.address == f"{prefix}{running.port}"
        for spelling in spellings:
            text = spelling.format(running.address, port=running.port)
            for target in (target_of(text, 1), *addresses_of(text, "tokenizer")):
                async with grpc.aio.insecure_channel(target) as channel:
                    health: Any = health_pb2_grpc.HealthStub(channel)
                    answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
                    assert answer.status == health_pb2.HealthCheckResponse.SERVING

        assert await asyncio.to_thread(serving, running.address, "", 10)


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=IPV6)])
def test_metrics_are_scraped_at_either_family(host: str) -> None:
    settings = ServerSettings(host=host)
    port, end = configure_metrics("tokenizer", host=settings.host, port=0)
    try:
        shown = f"[{host}]" if ":" in host else host
        with urlopen(f"http://{shown}:{port}/metrics", timeout=10) as answer:
            assert answer.status == 200
    finally:
        end()


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("fe80::1%eth0", "host: expected an address without a zone"),
        ("127.0.0.1:50051", "host: expected an IP address or a name without a port"),
        ("[::1]:50051", "host: expected an IP address or a name without a port"),
        ("", "host: expected an IP address or a name"),
        ("http://localhost", "host: expected an IP address or a name"),
    ],
)
def test_a_host_with_a_zone_or_a_port_is_refused(host: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        ServerSettings(host=host)


def test_one_stage_in_two_spellings_is_named_twice() -> None:
    assert addresses_of("ipv6:[::1]:1,[::]:2", "base") == ["[::1]:1", "[::1]:2"]
    with pytest.raises(ValueError, match="base: expected every address once"):
        addresses_of("ipv4:127.0.0.1:1,127.0.0.1:1", "base")
