"""Addresses that webhooks may reach: public ones, and those that the operator allows.

A URL is checked when a job is created, and the address once more at each connection: a name may
resolve to another address by then ("DNS rebinding").

Source: OWASP, "Server-Side Request Forgery Prevention Cheat Sheet", case 2.
"""

import asyncio
import errno
import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from services.gateway.errors import invalid

PARAM, MAX_URL, RESOLVE_S = "webhook", 2048, 5.0
# The last 32 bits are an address of IPv4, which a translator reaches (RFC 6052, section 2.1).
_TRANSLATED = ip_network("64:ff9b::/96")
IpAddress = IPv4Address | IPv6Address


class RefusedAddress(OSError):
    """An address that webhooks may not reach."""


@dataclass(frozen=True)
class AllowedHosts:
    """Hosts and networks that webhooks may reach beside public addresses.

    Attributes:
        names: Names of hosts, and networks such as 10.0.0.0/8.
    """

    names: Collection[str]

    def __post_init__(self) -> None:
        for name in self.names:
            if "/" in name:
                try:
                    ip_network(name)
                except ValueError as error:
                    raise ValueError(f"webhook_allowed: {error}") from None

    def has_host(self, host: str) -> bool:
        """Returns whether a host is allowed by its name, whatever it resolves to."""
        return host.lower() in {each.lower() for each in self.names}

    def has_network_of(self, address: IpAddress) -> bool:
        """Returns whether an address is of a network that is allowed."""
        return any(address in ip_network(each) for each in self.names if "/" in each)

    def has_address(self, address: IpAddress) -> bool:
        """Returns whether an address is public, or of a network that is allowed."""
        return is_public(address) or self.has_network_of(address)


def is_public(address: IpAddress) -> bool:
    """Returns whether an address is one of the internet, in every way in which it can be meant."""
    return all(
        each.is_global
        and not (each.is_multicast or each.is_reserved or each.is_link_local or each.is_private)
        for each in _meant(address)
    )


async def check_url(url: str, allowed: AllowedHosts) -> None:
    """Checks the URL of a webhook: its form, and all addresses that it resolves to now.

    Raises:
        ApiError: it may not be called; the message says why.
    """
    parts = _parts(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if allowed.has_host(host):
        return
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )
    except (OSError, UnicodeError):  # TimeoutError is an OSError
        raise invalid(PARAM, "a host with an address", f"{host}, which has none") from None
    for address in {ip_address(each[4][0]) for each in found}:
        if not allowed.has_address(address):
            raise invalid(
                PARAM, "a public address", f"{host}, which is {address}", code="private_address"
            )
        if parts.scheme != "https" and not allowed.has_network_of(address):
            raise invalid(PARAM, "https://", f"{parts.scheme}:// of {host}")


def check_connection(host: str, address: str, allowed: AllowedHosts) -> None:
    """Checks the very address that a connection to a host is about to be made to.

    Raises:
        RefusedAddress: webhooks may not reach it.
    """
    if not (allowed.has_host(host) or allowed.has_address(ip_address(address))):
        problem = f"{host} is {address}, which is no public address"
        raise RefusedAddress(errno.EACCES, problem)


def _parts(url: str) -> SplitResult:
    expected = f"a URL such as https://example.com/hook of at most {MAX_URL} characters"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018, raises ValueError where it is no port
    except ValueError:
        raise invalid(PARAM, expected, f"{url[:100]!r}") from None
    if len(url) > MAX_URL or parts.scheme not in ("http", "https") or not parts.hostname:
        raise invalid(PARAM, expected, f"{url[:100]!r}")
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise invalid(PARAM, "a URL of printable ASCII without spaces", f"{url[:100]!r}")
    if parts.username is not None or parts.password is not None:
        raise invalid(PARAM, "a URL without user and password", "one with them")
    return parts


def _meant(address: IpAddress) -> Iterator[IpAddress]:
    """Yields the addresses that a connection to an address may end at."""
    if isinstance(address, IPv4Address):
        yield address
    elif address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    elif address in _TRANSLATED:
        yield IPv4Address(int(address) & 0xFFFF_FFFF)
    else:
        yield address
        if address.sixtofour is not None:
            yield address.sixtofour
