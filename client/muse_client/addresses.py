"""Addresses of servers, in every usual spelling of IPv4, IPv6 and names.

Sources: RFC 3986, section 3.2.2 (IPv6 in brackets); gRPC, "Name Resolution" (schemes).
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

RESOLVED = "dns:///"  # gRPC takes turns between all addresses of the name
_PLAIN = ("ipv4:", "ipv6:", "dns:")  # schemes that add nothing to the address after them
_PASSED = ("unix:", "unix-abstract:", "vsock:", "xds:")  # left to gRPC
_LOOPBACK = {4: "127.0.0.1", 6: "::1"}


@dataclass(frozen=True)
class Address:
    """Address of a server to call.

    Attributes:
        host: IP address without brackets, or name.
        port: 1 to 65535.
        resolved: Whether gRPC takes turns between all addresses of the name.
    """

    host: str
    port: int
    resolved: bool = False

    @property
    def target(self) -> str:
        """The address as gRPC and this package spell it: "host:port", "[::1]:50050"."""
        return f"{RESOLVED if self.resolved else ''}{endpoint(self.host, self.port)}"


def parse_address(text: str, default_port: int | None = None) -> Address:
    """Parses the address of a server to call.

    An address that servers listen on, 0.0.0.0 or [::], stands for this machine.

    Args:
        text: HOST:PORT, [IPV6]:PORT, or one of them after ipv4:, ipv6:, dns: or dns:///.
        default_port: Port of an address without one; None requires a port.

    Raises:
        ValueError: expected another spelling; the message shows it.
    """
    expected = "HOST:PORT, [IPV6]:PORT or dns:///NAME:PORT"
    if "://" in text and not text.startswith(RESOLVED):
        raise ValueError(f"expected {expected} without {text.split('://')[0]}://, got {text!r}")
    rest, resolved = text.removeprefix(RESOLVED), text.startswith(RESOLVED)
    for scheme in _PLAIN if not resolved else ():
        if rest.lower().startswith(scheme):
            rest = rest[len(scheme) :].replace("%5B", "[").replace("%5D", "]")
            break
    host, port = _split(rest)
    if port is None and default_port is not None:
        port = str(default_port)
    if not host or port is None or not (port.isascii() and port.isdigit()):
        raise ValueError(f"expected {expected}, got {text!r}")
    if not 1 <= int(port) <= 65535:
        raise ValueError(f"expected a port of 1 to 65535, got {text!r}")
    return Address(reachable(parse_host(host)), int(port), resolved)


def target_of(text: str, default_port: int) -> str:
    """Returns an address as gRPC takes it; other schemes of gRPC, such as unix:, are left to it.

    Raises:
        ValueError: as in `parse_address`.
    """
    text = text.strip()
    if text.startswith(_PASSED):
        return text
    try:
        return parse_address(text, default_port).target
    except ValueError as error:
        raise ValueError(f"address: {error}") from None


def parse_host(text: str) -> str:
    """Returns an IP address without brackets in its shortest spelling, or a name as it is.

    Raises:
        ValueError: it is neither, or has a zone.
    """
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    ip = _ip(inner)
    if "%" in inner:
        raise ValueError(
            f"expected an address without a zone ({inner[inner.index('%') :]}), got {text!r}: "
            "use a global or unique local address"
        )
    if ip is not None and (inner == text or ip.version == 6):
        return str(ip)
    if not inner or inner != text or not set(inner).isdisjoint(" \t\n/:[]@,"):
        raise ValueError(f"expected an IP address or a name without a port, got {text!r}")
    return inner


def endpoint(host: str, port: int) -> str:
    """Returns "host:port", with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reachable(host: str) -> str:
    """Returns the address at which this machine reaches a server that listens on `host`."""
    ip = _ip(host)
    return _LOOPBACK[ip.version] if ip is not None and ip.is_unspecified else host


def is_loopback(host: str) -> bool:
    """Returns whether an IP address or name is reached from this machine alone."""
    ip = _ip(host)
    if ip is None:
        name = host.lower().removesuffix(".")
        return name == "localhost" or name.endswith(".localhost")
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def is_here(target: str) -> bool:
    """Returns whether the address of a server, as `target_of` returns it, is this machine's own."""
    return not target.startswith(_PASSED) and is_loopback(parse_address(target).host)


def _ip(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _split(text: str) -> tuple[str, str | None]:
    """Splits host and port; a bare IPv6 address has no port."""
    if _ip(text.partition("%")[0]) is not None:
        return text, None
    if text.startswith("["):
        host, bracket, port = text.partition("]")
        if port and not port.startswith(":"):
            return "", None
        return host + bracket, port[1:] if port else None
    host, colon, port = text.partition(":")
    return host, port if colon else None
