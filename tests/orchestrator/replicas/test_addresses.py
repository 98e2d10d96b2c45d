"""What a setting says of where the replicas of a stage are."""

import pytest

from services.orchestrator.__main__ import Settings, build
from services.orchestrator.replicas.addresses import ServiceName, addresses_of, service_of
from services.runtime.server.process import ServerError


def test_one_or_several_addresses_are_read() -> None:
    assert addresses_of("127.0.0.1:50053", "base") == ["127.0.0.1:50053"]
    assert addresses_of("a:1, [::1]:2,dns:///b:3", "base") == ["a:1", "[::1]:2", "dns:///b:3"]


@pytest.mark.parametrize(
    "wrong", ["", "base", "base:", ":1", "base:0", "base:65536", "a:1,", "a:b"]
)
def test_what_is_no_address_is_named_with_its_stage(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"superres: expected (HOST:PORT|a port)") as caught:
        addresses_of(wrong, "superres")
    assert "got '" in str(caught.value)


def test_an_address_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="base: expected every address once, got 'a:1' twice"):
        addresses_of("a:1,b:2,a:1", "base")


@pytest.mark.parametrize(
    ("setting", "namespace"),
    [
        ("dns:///base:50053", ""),
        ("base:50053", ""),
        ("dns:///base.muse:50053", "muse"),
        ("base.muse.svc.cluster.local:50053", "muse"),
    ],
)
def test_a_service_is_named_as_dns_names_it(setting: str, namespace: str) -> None:
    assert service_of(setting, "base") == ServiceName(namespace, "base", 50053)


@pytest.mark.parametrize("wrong", ["a:1,b:2", "10.0.0.1:50053", "[::1]:50053", "base"])
def test_what_names_no_service_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="base: expected"):
        service_of(wrong, "base")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(base="here"), "base: expected HOST:PORT"),
        (Settings(discovery="kubernetes"), "text_encoder: expected the name of a Service"),
    ],
)
async def test_the_server_does_not_start_with_a_wrong_address(
    settings: Settings, message: str
) -> None:
    with pytest.raises(ServerError, match=message):
        await build(settings)
