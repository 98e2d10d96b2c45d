"""Addresses in every usual spelling of IPv4, IPv6 and names."""

import pytest
from muse_client import AsyncMuseClient, MuseClient
from muse_client.addresses import endpoint, is_loopback, parse_address, reachable, target_of
from muse_client.channels import ROUND_ROBIN, channel_options


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051"),
        ("ipv4:127.0.0.1:50051", "127.0.0.1:50051"),
        ("127.0.0.1", "127.0.0.1:50050"),
        ("::1", "[::1]:50050"),
        ("[::1]", "[::1]:50050"),
        ("[::1]:50051", "[::1]:50051"),
        ("ipv6:[::1]:50051", "[::1]:50051"),
        ("ipv6:%5B::1%5D:50051", "[::1]:50051"),
        ("[0:0:0:0:0:0:0:1]:50051", "[::1]:50051"),
        ("[FD00::2]:50051", "[fd00::2]:50051"),
        ("localhost:50051", "localhost:50051"),
        (" localhost ", "localhost:50050"),
        ("dns:muse.example:80", "muse.example:80"),
        ("dns:///muse.example:80", "dns:///muse.example:80"),
        ("dns:///[::1]:80", "dns:///[::1]:80"),
        ("0.0.0.0:50051", "127.0.0.1:50051"),
        ("[::]:50051", "[::1]:50051"),
        ("::", "[::1]:50050"),
        ("unix:/run/muse.sock", "unix:/run/muse.sock"),
    ],
)
def test_every_usual_spelling_becomes_one(text: str, target: str) -> None:
    assert target_of(text, 50050) == target
    assert target_of(target, 50050) == target


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected HOST:PORT, \\[IPV6\\]:PORT or dns:///NAME:PORT, got ''"),
        ("http://127.0.0.1:50050", "without http://"),
        ("https://[::1]:50050", "without https://"),
        ("grpc://a:1", "without grpc://"),
        ("a:port", "expected HOST:PORT"),
        ("a:", "expected HOST:PORT"),
        (":50050", "expected HOST:PORT"),
        ("a:0", "a port of 1 to 65535"),
        ("a:65536", "a port of 1 to 65535"),
        ("a:٣", "expected HOST:PORT"),
        ("::1:50051", "expected HOST:PORT, \\[IPV6\\]:PORT"),
        ("[::1]50051", "expected HOST:PORT"),
        ("[::1", "expected an IP address or a name"),
        ("[127.0.0.1]:1", "expected an IP address or a name"),
        ("user@a:1", "expected an IP address or a name"),
        ("a b:1", "expected an IP address or a name"),
        ("a,b:1", "expected an IP address or a name"),
        ("fe80::1%eth0", "without a zone \\(%eth0\\)"),
        ("[fe80::1%25eth0]:50051", "without a zone"),
    ],
)
def test_another_spelling_is_refused_by_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^address: .*{said}"):
        target_of(text, 50050)


def test_both_clients_refuse_what_is_no_address() -> None:
    for client in (MuseClient, AsyncMuseClient):
        with pytest.raises(ValueError, match=r"^address: expected HOST:PORT"):
            client("http://127.0.0.1:50050")


def test_a_port_is_required_where_there_is_no_usual_one() -> None:
    with pytest.raises(ValueError, match="expected HOST:PORT"):
        parse_address("::1")


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("muse.localhost", True),
        ("10.0.0.1", False),
        ("::2", False),
        ("::ffff:10.0.0.1", False),
        ("localhost.example", False),
    ],
)
def test_loopback_is_found_in_every_family(host: str, here: bool) -> None:
    assert is_loopback(host) is here


def test_calls_of_a_name_take_turns_between_its_addresses() -> None:
    assert ROUND_ROBIN in channel_options("dns:///orchestrator:50050")
    assert ROUND_ROBIN not in channel_options("10.0.0.1:50050")


def test_an_address_to_copy_is_one_that_can_be_called() -> None:
    hosts = ("0.0.0.0", "::", "127.0.0.1", "fd00::2", "localhost")
    assert [endpoint(reachable(host), 1) for host in hosts] == [
        "127.0.0.1:1",
        "[::1]:1",
        "127.0.0.1:1",
        "[fd00::2]:1",
        "localhost:1",
    ]
