"""One attempt to deliver the event of a webhook."""

import logging
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

import aiohttp
from aiohttp.typedefs import LooseHeaders

from services.gateway.jobs.database.deliveries import Deliveries
from services.gateway.jobs.database.tables import DeliveryRow
from services.gateway.jobs.metrics import JobMetrics, Outcome
from services.gateway.jobs.webhooks.addresses import AllowedHosts, check_connection
from services.gateway.jobs.webhooks.signatures import signed_headers
from services.runtime.version import package_version

logger = logging.getLogger(__name__)
ATTEMPT_S = 10.0  # until a receiver has answered
RECORDED_S = 3 * ATTEMPT_S  # until that is recorded, or another gateway tries


class WebhookSender:
    """Posts events, and records how that ended."""

    def __init__(
        self,
        deliveries: Deliveries,
        secrets: Sequence[bytes],
        allowed: AllowedHosts,
        metrics: JobMetrics,
        *,
        retry_s: float,
        attempts: int,
    ) -> None:
        """Posts nothing yet; `JobSettings` documents the numbers."""
        self._deliveries, self._secrets, self._allowed = deliveries, secrets, allowed
        self._metrics, self._retry_s, self._attempts = metrics, retry_s, attempts

    async def claim(self) -> DeliveryRow | None:
        """Returns an event to be delivered now; None if there is none."""
        return await self._deliveries.claim(RECORDED_S)

    async def send(self, event: DeliveryRow) -> None:
        """Posts an event once; only an answer of 2xx delivers it."""
        try:
            status = await self._post(event)
            problem = None if 200 <= status < 300 else f"it answered {status}"
        except (aiohttp.ClientError, OSError, ValueError) as error:  # a TimeoutError is an OSError
            problem = f"{type(error).__name__}: {error}"
        said = {"event": event.id, "attempt": event.attempts}
        if problem is None:
            outcome: Outcome = "delivered"
            await self._deliveries.end(event, "delivered")
            logger.info("webhook delivered", extra=said)
        elif event.attempts >= self._attempts:
            outcome = "given_up"
            await self._deliveries.end(event, "failed")
            logger.warning("webhook given up", extra={**said, "problem": problem})
        else:
            outcome = "put_off"
            pause_s = self._retry_s * 2 ** (event.attempts - 1)
            await self._deliveries.put_off(event, pause_s)
            logger.info("webhook put off", extra={**said, "problem": problem})
        self._metrics.attempted(outcome)

    async def _post(self, event: DeliveryRow) -> int:
        """Returns the status that the receiver answers; redirects are not followed."""
        assert event.attempted_s is not None
        body = event.body.encode()
        headers: LooseHeaders = {
            "Content-Type": "application/json",
            "User-Agent": f"muse/{package_version()}",
            **signed_headers(
                self._secrets, event_id=event.id, timestamp_s=int(event.attempted_s), body=body
            ),
        }
        host = urlsplit(event.url).hostname or ""

        def checked_socket(address: aiohttp.AddrInfoType) -> socket.socket:
            check_connection(host, address[4][0], self._allowed)
            return socket.socket(address[0], address[1], address[2])

        connector = aiohttp.TCPConnector(socket_factory=checked_socket, use_dns_cache=False)
        timeout = aiohttp.ClientTimeout(total=ATTEMPT_S)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.post(event.url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            return answer.status
