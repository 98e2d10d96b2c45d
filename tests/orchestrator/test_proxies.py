"""An HTTP proxy of the environment does not come between the processes of one machine."""

import asyncio

import pytest
from muse_client import AsyncMuseClient

from services.runtime.server.channels import proxy_options
from tests.small_stages import House, house
from tools.local.probes import serving

__all__ = ["house"]
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, NOWHERE)


async def test_the_orchestrator_reaches_its_stages_and_a_probe_the_orchestrator(
    proxy: None, house: House
) -> None:
    async with AsyncMuseClient(house.address) as client:
        assert len(await client.generate("a fox")) == 1
    assert await asyncio.to_thread(serving, house.address)


@pytest.mark.parametrize(
    ("address", "direct"),
    [
        ("127.0.0.1:1", True),
        ("127.0.9.3:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("dns:///localhost:1", True),
        ("10.0.0.1:1", False),
        ("base.muse:1", False),
        ("dns:///base.muse:1", False),
    ],
)
def test_only_this_machine_is_called_directly(address: str, direct: bool) -> None:
    assert bool(proxy_options(address)) is direct
