"""One replica of a stage: its channel, whether it serves, and what it has yet to do."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.orchestrator.replicas.addresses import names_several
from services.orchestrator.replicas.work import work_of
from services.runtime.observability.call_spans import client_interceptors
from services.runtime.server.channels import channel_options, keepalive_options
from services.runtime.server.process import SERVING

logger = logging.getLogger(__name__)
# gRPC waits up to two minutes before it tries a lost address again, and 20 s for a machine that
# does not answer; a stage is back sooner.
RECONNECTING = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
ROUND_ROBIN = ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}')
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0  # before its health is watched again
# The replica's own failures; a refusal, or a deadline that was too short, is none.
FAILURES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
FIRST_LEFT_OUT_S, LONGEST_LEFT_OUT_S = 0.5, 30.0  # longer than the pauses between tries of a call
MANY_FAILURES = 3  # in a row: a person should look


class Standing(Enum):
    """What is known of a replica."""

    UNKNOWN = "has not answered yet"
    SERVES = "serves"
    AWAY = "does not serve"


@dataclass(frozen=True)
class Method:
    """A method of a stage, as its generated stub describes it.

    Attributes:
        kind: "unary_unary" or "unary_stream".
        name: Its full name.
        request_serializer: Makes bytes of a request.
        response_deserializer: Makes an answer of bytes.
    """

    kind: str
    name: str
    request_serializer: Callable[[Any], bytes]
    response_deserializer: Callable[[bytes], Any]


class Replica:
    """A replica, followed from the moment it is known.

    Of one server the health is watched, so that one which drains, still compiles or has lost its
    device gets no calls. Behind a name that stands for several ("dns:///") gRPC itself takes turns,
    and only whether any of them can be reached is followed.
    """

    def __init__(
        self, address: str, *, changed: Callable[[], None], max_message_mib: int = 32
    ) -> None:
        """Connects, in a running event loop.

        Args:
            address: "host:port", or a name that gRPC resolves.
            changed: Called after each change of its standing.
            max_message_mib: Size of the largest message, in MiB.
        """
        self.address, self.problem = address, Standing.UNKNOWN.value
        self.standing = Standing.UNKNOWN
        self.outstanding = 0  # work of the calls under way, as `work_of` counts it
        self.chosen = 0  # when it was chosen last, as its set counts
        self.failures = 0  # in a row
        self.left_out_until = 0.0  # on the monotonic clock
        self._changed = changed
        several = names_several(address)
        self.channel = grpc.aio.insecure_channel(
            address,
            options=[
                *channel_options(max_message_mib),
                *keepalive_options(),
                *RECONNECTING,
                *([ROUND_ROBIN] if several else []),
            ],
            interceptors=client_interceptors(),
        )
        self._methods: dict[Method, Any] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._following = asyncio.create_task(
            self._follow_connection() if several else self._follow_health()
        )

    def call(self, method: Method, request: Any, timeout: float | None) -> Any:
        """Begins a call and counts its work until it has ended.

        Args:
            method: Which.
            request: What it is given.
            timeout: Seconds it may take.

        Returns:
            The call, as gRPC's own stubs return it.
        """
        if method not in self._methods:
            self._methods[method] = getattr(self.channel, method.kind)(
                method.name,
                request_serializer=method.request_serializer,
                response_deserializer=method.response_deserializer,
            )
        call, work = self._methods[method](request, timeout=timeout), work_of(request)
        self.outstanding += work
        ending = asyncio.create_task(self._end(call, work))
        self._endings.add(ending)  # the loop itself keeps no task alive
        ending.add_done_callback(self._endings.discard)
        return call

    async def retire(self) -> None:
        """Lets the calls under way end, then closes the channel."""
        self._following.cancel()
        while self._endings:
            await asyncio.wait(self._endings)
        await self.close()

    async def close(self) -> None:
        """Closes the channel; calls under way are cancelled."""
        self._following.cancel()
        await self.channel.close()
        await asyncio.gather(self._following, *self._endings, return_exceptions=True)

    async def _end(self, call: Any, work: int) -> None:
        try:
            code = await call.code()
        finally:
            self.outstanding -= work
        if code is grpc.StatusCode.OK:
            self.failures = 0
        elif code in FAILURES:
            self.failures += 1
            left_out_s = min(FIRST_LEFT_OUT_S * 2 ** (self.failures - 1), LONGEST_LEFT_OUT_S)
            self.left_out_until = time.monotonic() + left_out_s
            if self.failures >= MANY_FAILURES:
                logger.warning(
                    "a replica fails again and again",
                    extra={
                        "address": self.address,
                        "failures": self.failures,
                        "code": code.name,
                        "left_out_s": left_out_s,
                    },
                )

    def _say(self, standing: Standing, problem: str = "") -> None:
        self.problem = problem or standing.value
        if standing is not self.standing:
            self.standing = standing
            self._changed()

    async def _follow_health(self) -> None:
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        pause_s = FIRST_PAUSE_S
        while True:
            watching = stub.Watch(health_pb2.HealthCheckRequest())
            problem = "it ended its health watch"
            try:
                async for answer in watching:
                    pause_s = FIRST_PAUSE_S
                    if answer.status == SERVING:
                        self._say(Standing.SERVES)
                    else:
                        self._say(Standing.AWAY, "its health says NOT_SERVING")
            except grpc.aio.AioRpcError as error:
                problem = f"{error.code().name}: {error.details()}"
            except asyncio.CancelledError:
                # gRPC may raise this also when the other side cancelled.
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
            finally:
                watching.cancel()
            self._say(Standing.AWAY, problem)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _follow_connection(self) -> None:
        while True:
            state = self.channel.get_state(try_to_connect=True)
            if state is grpc.ChannelConnectivity.READY:
                self._say(Standing.SERVES)
            elif state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                self._say(Standing.AWAY, "none of its addresses can be reached")
            elif self.standing is Standing.SERVES:
                self._say(Standing.UNKNOWN)
            await self.channel.wait_for_state_change(state)
