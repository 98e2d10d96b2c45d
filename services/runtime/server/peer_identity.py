"""The clients that may call a server, by the names in the certificate that they show."""

import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import grpc

from services.runtime.server.requests import Context
from services.runtime.wire.errors import RequestError

logger = logging.getLogger(__name__)
NAMES = ("peer_uri", "peer_dns")  # gRPC's properties of a certificate's alternative names


class AcceptedClients:
    """Clients whose calls are accepted; TLS has verified their certificates before.

    Health checks are not asked for a name: probes have identities of their own.
    """

    def __init__(self, names: Collection[str]) -> None:
        """Accepts clients with one of these SPIFFE URIs or DNS names in their certificate."""
        self._names = frozenset(names)

    @asynccontextmanager
    async def accepting(self, method: str, context: Context) -> AsyncIterator[None]:
        """Refuses a call of any other client.

        Raises:
            RequestError: PERMISSION_DENIED.
        """
        properties = context.auth_context()
        shown = [
            name.decode(errors="replace") for kind in NAMES for name in properties.get(kind, ())
        ]
        if self._names.isdisjoint(shown):
            client = ", ".join(shown) or "a client without a URI or DNS name in its certificate"
            logger.warning("a client was refused", extra={"method": method, "client": client})
            raise RequestError(
                grpc.StatusCode.PERMISSION_DENIED,
                f"this server does not accept calls of {client}: its setting tls_clients has the "
                "names of those that it accepts",
            )
        yield
