"""Which addresses are public, in every way in which an address is written."""

from ipaddress import ip_address

import pytest

from services.gateway.jobs.webhooks.addresses import (
    AllowedHosts,
    RefusedAddress,
    check_connection,
    is_public,
)

PRIVATE = (
    *("0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.255", "169.254.169.254"),
    *("172.16.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "224.0.0.1", "240.0.0.1"),
    "255.255.255.255",
    *("::", "::1", "fc00::1", "fe80::1", "ff02::1", "2001:db8::1"),
    *("::ffff:10.0.0.1", "::ffff:127.0.0.1", "::127.0.0.1"),
    *(
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::",
        "2002:a00:1::1",
    ),
)
PUBLIC = ("1.1.1.1", "192.0.43.7", "2606:4700:4700::1111", "64:ff9b::101:101", "2002:101:101::1")


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_of_the_internet_is_refused(address: str) -> None:
    assert not is_public(ip_address(address))
    with pytest.raises(RefusedAddress, match="is no public address"):
        check_connection("example.com", address, AllowedHosts(()))


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(ip_address(address))
    check_connection("example.com", address, AllowedHosts(()))


def test_hosts_and_networks_may_be_allowed() -> None:
    allowed = AllowedHosts(("Hooks", "10.1.0.0/16", "fc00::/7"))
    for address in ("10.1.2.3", "fd00::1", "1.1.1.1"):
        check_connection("example.com", address, allowed)
    check_connection("hooks", "127.0.0.1", allowed)
    for host, address in (("example.com", "10.2.0.1"), ("hooks.example.com", "127.0.0.1")):
        with pytest.raises(RefusedAddress):
            check_connection(host, address, allowed)


def test_a_network_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^webhook_allowed: 10\.0\.0\.1/8 has host bits set"):
        AllowedHosts(("10.0.0.1/8",))
