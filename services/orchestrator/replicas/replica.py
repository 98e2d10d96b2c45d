"""One replica of a stage: its channel, its health and its outstanding work."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from muse_client.channels import ROUND_ROBIN

from services.orchestrator.calls import cancelled
from services.orchestrator.replicas.addresses import names_several
from services.orchestrator.replicas.work import work_of
from services.runtime.observability.call_spans import client_interceptors
from services.runtime.server.certificates import Certificates
from services.runtime.server.channels import (
    channel_options,
    keepalive_options,
    open_channel,
    proxy_options,
    server_name_options,
)
from services.runtime.server.process import SERVING

logger = logging.getLogger(__name__)
# By default gRPC waits up to two minutes before it reconnects, and 20 s for a machine that does not
# answer; a stage is back sooner.
RECONNECTING = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0  # between two health watches
# Failures of the replica itself, unlike a refusal or a short deadline.
FAILURES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
FIRST_EJECTION_S, MAX_EJECTION_S = 0.5, 30.0  # longer than the pauses between retries
WARN_AFTER_FAILURES = 3  # in a row


class HealthState(Enum):
    """Health of a replica; the values describe it in messages."""

    UNKNOWN = "has not answered yet"
    SERVING = "serves"
    NOT_SERVING = "does not serve"


@dataclass(frozen=True)
class Method:
    """A method of a stage, as its generated stub describes it.

    Attributes:
        kind: "unary_unary" or "unary_stream".
        name: Full name of the method.
        request_serializer: Serializes a request.
        response_deserializer: Deserializes a response.
    """

    kind: str
    name: str
    request_serializer: Callable[[Any], bytes]
    response_deserializer: Callable[[bytes], Any]


class Replica:
    """A replica of a stage, whose health is watched from its creation on.

    The health service of a single server is watched, so that a server that drains, compiles or has
    lost its device gets no calls. For a "dns:///" name gRPC itself balances between the servers,
    and only the connectivity of the channel is watched.
    """

    def __init__(
        self,
        address: str,
        *,
        changed: Callable[[], None],
        max_message_mib: int = 32,
        certificates: Certificates | None = None,
        server_name: str = "",
    ) -> None:
        """Starts to connect; needs a running event loop. `changed` follows changes of `health`.

        Without `certificates` calls are in plain text. The server's certificate must have
        `server_name`, or the host of the address if that is "".
        """
        self.address, self.problem = address, HealthState.UNKNOWN.value
        self.health = HealthState.UNKNOWN
        self.outstanding = 0  # work of the calls in progress, in the unit of `work_of`
        self.chosen = 0  # turn in which its set chose it last
        self.failures = 0  # in a row
        self.ejected_until = 0.0  # on the monotonic clock
        self._changed = changed
        several = names_several(address)
        self.channel = open_channel(
            address,
            certificates,
            options=[
                *channel_options(max_message_mib),
                *keepalive_options(),
                *proxy_options(address),
                *server_name_options(server_name),
                *RECONNECTING,
                *([ROUND_ROBIN] if several else []),
            ],
            interceptors=client_interceptors(),
        )
        self._methods: dict[Method, Any] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._watching = asyncio.create_task(
            self._watch_connection() if several else self._watch_health()
        )

    def call(self, method: Method, request: Any, timeout: float | None) -> Any:
        """Starts a call, as gRPC's stubs do; counts its work as outstanding until it ends."""
        if method not in self._methods:
            self._methods[method] = getattr(self.channel, method.kind)(
                method.name,
                request_serializer=method.request_serializer,
                response_deserializer=method.response_deserializer,
            )
        call, work = self._methods[method](request, timeout=timeout), work_of(request)
        self.outstanding += work
        ending = asyncio.create_task(self._end(call, work))
        self._endings.add(ending)  # the event loop holds tasks only weakly
        ending.add_done_callback(self._endings.discard)
        return call

    async def retire(self) -> None:
        """Waits for the calls in progress, then closes the channel."""
        self._watching.cancel()
        while self._endings:
            await asyncio.wait(self._endings)
        await self.close()

    async def close(self) -> None:
        """Cancels the calls in progress and closes the channel."""
        self._watching.cancel()
        await self.channel.close()
        await asyncio.gather(self._watching, *self._endings, return_exceptions=True)

    async def _end(self, call: Any, work: int) -> None:
        try:
            code = await call.code()
        finally:
            self.outstanding -= work
        if code is grpc.StatusCode.OK:
            self.failures = 0
        elif code in FAILURES:
            self.failures += 1
            ejection_s = min(FIRST_EJECTION_S * 2 ** (self.failures - 1), MAX_EJECTION_S)
            self.ejected_until = time.monotonic() + ejection_s
            if self.failures >= WARN_AFTER_FAILURES:
                logger.warning(
                    "a replica fails repeatedly",
                    extra={
                        "address": self.address,
                        "failures": self.failures,
                        "code": code.name,
                        "ejection_s": ejection_s,
                    },
                )

    def _set_health(self, health: HealthState, problem: str = "") -> None:
        self.problem = problem or health.value
        if health is not self.health:
            self.health = health
            self._changed()

    async def _watch_health(self) -> None:
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        pause_s = FIRST_PAUSE_S
        while True:
            watch = stub.Watch(health_pb2.HealthCheckRequest())
            problem = "its health watch ended"
            try:
                async for answer in watch:
                    pause_s = FIRST_PAUSE_S
                    if answer.status == SERVING:
                        self._set_health(HealthState.SERVING)
                    else:
                        self._set_health(HealthState.NOT_SERVING, "its health says NOT_SERVING")
            except grpc.aio.AioRpcError as error:
                problem = f"{error.code().name}: {error.details()}"
            except asyncio.CancelledError:
                if cancelled():
                    raise
            finally:
                watch.cancel()
            self._set_health(HealthState.NOT_SERVING, problem)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _watch_connection(self) -> None:
        while True:
            state = self.channel.get_state(try_to_connect=True)
            if state is grpc.ChannelConnectivity.READY:
                self._set_health(HealthState.SERVING)
            elif state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                self._set_health(HealthState.NOT_SERVING, "none of its addresses can be reached")
            elif self.health is HealthState.SERVING:
                self._set_health(HealthState.UNKNOWN)
            await self.channel.wait_for_state_change(state)
