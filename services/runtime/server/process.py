"""The process around a servicer: health, reflection, channelz, signals, and a clean end."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from cyclopts import App
from cyclopts.config import Env
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.runtime.checkpoints.errors import CheckpointError
from services.runtime.observability import instruments
from services.runtime.observability.logs import configure_logs
from services.runtime.observability.metrics import configure_metrics
from services.runtime.observability.tracing import configure_tracing
from services.runtime.server.interceptors import CallCount, EndlessCalls, server_interceptors
from services.runtime.server.metrics_interceptor import MeasuringCalls

logger = logging.getLogger(__name__)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
READINESS = "readiness"  # SERVING once warm, until it drains or its device fails
LIVENESS = "liveness"  # SERVING from the moment the port is open: that it answers is what counts
# A machine that vanished closes no connection: the other side asks now and then if it is there.
PING_EVERY_MS, PONG_WITHIN_MS = 10_000, 5_000
PINGS_APART_MS = PING_EVERY_MS // 2  # those that come faster are refused; 5 min, unless told so
HAND_BACK_AFTER = 0.8  # share of the grace after which unfinished calls are handed back


class ServerError(Exception):
    """A server that cannot start; the message says why."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What every server can be told.

    Attributes:
        host: Address to listen on. Only this machine by default: the wire is not encrypted.
        port: Port to listen on; 0 takes a free one.
        grace_s: Seconds that calls under way may take to end after SIGTERM.
        max_message_mib: Size of the largest message, in MiB.
        log_level: The least severe level that is logged.
        metrics_port: Port of the endpoint that Prometheus scrapes; 0 takes a free one. None by
            default.
    """

    host: str = "127.0.0.1"
    port: int = 0
    grace_s: float = 30.0
    max_message_mib: int = 32
    log_level: str = "INFO"
    metrics_port: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port: expected 0 to 65535, got {self.port}")
        if self.metrics_port is not None and not 0 <= self.metrics_port <= 65535:
            raise ValueError(f"metrics_port: expected 0 to 65535, got {self.metrics_port}")
        if self.metrics_port and self.metrics_port == self.port:
            raise ValueError(f"metrics_port: expected another than port, got {self.port} for both")
        if self.max_message_mib < 1:
            raise ValueError(f"max_message_mib: expected at least 1, got {self.max_message_mib}")
        if not 0 <= self.grace_s < float("inf"):
            raise ValueError(f"grace_s: expected at least 0, got {self.grace_s}")


@dataclass(frozen=True, kw_only=True)
class StageSettings(ServerSettings):
    """What a server that computes can be told besides.

    Attributes:
        max_batch: Requests computed together; of base and superres, the number of slots.
        max_queued: Requests that may wait; of base and superres, one caller may take half of the
            places, so that others find some. Further ones are refused.
        compilation_cache: Folder that keeps compiled programs, so that a second start is fast.
            One that cannot be written to is only read.
        compile_only: Compile everything into compilation_cache, then end instead of serving.
    """

    max_batch: int = 8
    max_queued: int = 64
    compilation_cache: Path | None = None
    compile_only: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_batch", "max_queued"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.compile_only and self.compilation_cache is None:
            raise ValueError("compile_only: expected a compilation_cache to compile into, got none")


@dataclass(frozen=True, kw_only=True)
class Service:
    """What a server serves.

    Attributes:
        name: Short name, such as "tokenizer".
        full_name: Name on the wire, such as "muse.tokenizer.v1.TokenizerService".
        register: Adds the servicer to a server.
        warm_up: Makes it ready; the server says SERVING afterwards.
        close: Called after the last call has ended.
        hand_back: Called when the grace is nearly over: ends calls under way with what another
            replica can go on from. By default there is no such thing.
        health: Yields whether it works, each time that changes. By default it always does.
        load: Says how busy it is, for its metrics. By default it has no slots and no queue.
    """

    name: str
    full_name: str
    register: Callable[[grpc.aio.Server], None]
    warm_up: Callable[[], Awaitable[None]]
    close: Callable[[], Awaitable[None]]
    hand_back: Callable[[], None] | None = None
    health: Callable[[], AsyncGenerator[bool, None]] | None = None
    load: Callable[[], instruments.Load] | None = None


@dataclass(frozen=True)
class Running:
    """A server that runs.

    Attributes:
        address: "host:port" to connect to.
        port: Port it listens on.
        health: Says whether it serves.
        serving: Names it says that of: the service's, "" and READINESS.
    """

    address: str
    port: int
    health: health.aio.HealthServicer
    serving: tuple[str, ...]

    async def say(self, status: int) -> None:
        """Tells those who ask for its health: SERVING or NOT_SERVING."""
        for name in self.serving:
            await self.health.set(name, status)


def channel_options(max_message_mib: int = 32) -> list[tuple[str, int]]:
    """Returns the options of a channel or server: explicit limits, and no port shared unseen.

    Args:
        max_message_mib: Size of the largest message, in MiB.
    """
    limit = max_message_mib * 1024 * 1024
    return [
        ("grpc.max_receive_message_length", limit),
        ("grpc.max_send_message_length", limit),
        ("grpc.so_reuseport", 0),
    ]


def keepalive_options() -> list[tuple[str, int]]:
    """Returns the options by which a channel or server notices that the other side vanished."""
    return [
        ("grpc.keepalive_time_ms", PING_EVERY_MS),
        ("grpc.keepalive_timeout_ms", PONG_WITHIN_MS),
        ("grpc.http2.ping_timeout_ms", PONG_WITHIN_MS),  # a minute, which outlasts the one above
        ("grpc.http2.max_pings_without_data", 0),  # as many as it takes: a decode says nothing
    ]


def server_options(max_message_mib: int = 32) -> list[tuple[str, int]]:
    """Returns the options of a server: those of `channel_options`, and pings both ways."""
    return [
        *channel_options(max_message_mib),
        *keepalive_options(),
        ("grpc.http2.min_ping_interval_without_data_ms", PINGS_APART_MS),
    ]


@asynccontextmanager
async def running_server(service: Service, settings: ServerSettings) -> AsyncIterator[Running]:
    """Runs a server: SERVING inside the block, drained and stopped after it.

    Args:
        service: What to serve.
        settings: Where and how.

    Raises:
        ServerError: the port cannot be had.
    """
    calls, endless = CallCount(), EndlessCalls()
    server = grpc.aio.server(
        interceptors=server_interceptors(calls, endless, [MeasuringCalls()]),
        options=server_options(settings.max_message_mib),
    )
    service.register(server)
    states = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(states, server)
    channelz.add_channelz_servicer(server)
    reflection.enable_server_reflection(
        (
            service.full_name,
            health.SERVICE_NAME,
            channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name,
            reflection.SERVICE_NAME,
        ),
        server,
    )
    asked = f"{settings.host}:{settings.port}"
    try:
        port = server.add_insecure_port(asked)
    except RuntimeError as error:
        raise ServerError(
            f"cannot listen on {asked}: is another server there? Name another --port"
        ) from error
    names = ("", service.full_name, READINESS)
    running = Running(f"{settings.host}:{port}", port, states, names)
    await states.set(LIVENESS, SERVING)
    await running.say(NOT_SERVING)
    await server.start()
    following: asyncio.Task[None] | None = None
    unwatch = instruments.watch(service.load) if service.load is not None else None
    try:
        await service.warm_up()
        await running.say(SERVING)
        logger.info("serving", extra={"address": running.address})
        if service.health is not None:
            following = asyncio.create_task(_follow(service.health(), running))
        yield running
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await running.say(NOT_SERVING)
        await _stop(server, calls, endless, settings.grace_s, service.hand_back)
        if unwatch is not None:
            unwatch()
        await service.close()


async def _follow(health: AsyncGenerator[bool, None], running: Running) -> None:
    async with aclosing(health):
        async for works in health:
            await running.say(SERVING if works else NOT_SERVING)
            logger.log(logging.INFO if works else logging.ERROR, "works: %s", works)


async def _stop(
    server: grpc.aio.Server,
    calls: CallCount,
    endless: EndlessCalls,
    grace_s: float,
    hand_back: Callable[[], None] | None,
) -> None:
    stopping = asyncio.create_task(server.stop(grace_s))
    idle = asyncio.create_task(calls.idle())
    if hand_back is not None:
        await asyncio.wait([idle], timeout=grace_s * HAND_BACK_AFTER)
        if calls.running:
            logger.info("handing back what is unfinished", extra={"calls": calls.running})
            hand_back()
    await asyncio.wait([stopping, idle], return_when=asyncio.FIRST_COMPLETED)
    idle.cancel()
    if calls.running:
        logger.warning("calls were cut off", extra={"calls": calls.running, "grace_s": grace_s})
    endless.end()
    await stopping


def run_server(
    build: Callable[[], Awaitable[Service]], settings: ServerSettings, *, name: str
) -> None:
    """Runs a server until SIGTERM or SIGINT, then returns; the whole life of a process.

    With `compile_only` it returns as soon as it could serve.

    Args:
        build: Loads what is served; runs before the port opens.
        settings: Where and how.
        name: Short name, such as "tokenizer".

    Raises:
        SystemExit: with status 1, if it cannot start; one line of log says why.
    """
    configure_logs(f"muse.{name}", settings.log_level)
    try:
        with ExitStack() as ending:
            ending.callback(configure_tracing(f"muse.{name}"))
            ending.callback(_start_metrics(name, settings))
            asyncio.run(_until_signalled(build, settings))
    except (CheckpointError, ServerError, ValueError) as error:
        logger.error("cannot start: %s", error)
        raise SystemExit(1) from None
    logger.info("stopped")


def _start_metrics(stage: str, settings: ServerSettings) -> Callable[[], None]:
    host, asked = settings.host, settings.metrics_port
    try:
        port, end = configure_metrics(stage, host=host, port=asked)
    except OSError as error:
        raise ServerError(
            f"cannot listen on {host}:{asked} for metrics ({error.strerror}): is another server "
            "there? Name another --metrics-port"
        ) from error
    if port is not None:
        logger.info("metrics", extra={"address": f"http://{host}:{port}/metrics"})
    return end


async def _until_signalled(
    build: Callable[[], Awaitable[Service]], settings: ServerSettings
) -> None:
    loop, signalled = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled.set)
    logger.info("loading", extra={"pid": os.getpid()})
    async with AsyncExitStack() as stack:

        async def start() -> None:
            await stack.enter_async_context(running_server(await build(), settings))

        starting, ended = asyncio.create_task(start()), asyncio.create_task(signalled.wait())
        await asyncio.wait((starting, ended), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():  # told to stop before it served anything
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return
        await starting
        if isinstance(settings, StageSettings) and settings.compile_only:
            logger.info("compiled", extra={"folder": str(settings.compilation_cache)})
            ended.cancel()
            return
        await ended


def command_line(name: str, help_text: str) -> App:
    """Returns the command line of a server: flags, or MUSE_ environment variables.

    Args:
        name: The module it is started by, such as "services.tokenizer".
        help_text: One line on what it serves.
    """
    return App(name=f"python -m {name}", help=help_text, config=Env("MUSE_", command=False))


def run_command_line(app: App) -> None:
    """Runs a server's command line; a setting that cannot be is one line and a status of 1."""
    try:
        app()
    except ValueError as error:
        sys.exit(f"error: {error}")
