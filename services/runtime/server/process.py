"""The process around a servicer: health, reflection, channelz, signals, and a graceful end."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, TypeVar

import grpc
from cyclopts import App, Parameter
from cyclopts.config import Env
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from muse_client.addresses import endpoint, reachable

from services.runtime.checkpoints.errors import CheckpointError
from services.runtime.observability import instruments
from services.runtime.observability.logs import configure_logs
from services.runtime.observability.metrics import configure_metrics
from services.runtime.observability.otel_variables import check_variables
from services.runtime.observability.tracing import configure_tracing
from services.runtime.server import reflection_v1
from services.runtime.server.health_port import health_listener
from services.runtime.server.interceptors import Around
from services.runtime.server.listener import Listener
from services.runtime.server.settings import ServerSettings, StageSettings
from services.runtime.version import package_version
from services.stages import generated, service_of

logger = logging.getLogger(__name__)
Settings = TypeVar("Settings", bound=ServerSettings)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
READINESS = "readiness"  # SERVING once warm, until the server drains or its device fails
LIVENESS = "liveness"  # SERVING from the moment the port is open: any answer shows that it lives


class ServerError(Exception):
    """A server cannot start; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """A servicer and the functions that the process around it calls.

    Attributes:
        name: Short name, such as "tokenizer".
        servicer: Implements the gRPC service.
        warm_up: Prepares the servicer; the server reports SERVING afterwards.
        close: Called after the last call has ended.
        preempt: Called shortly before the grace ends: ends open calls with a state that another
            replica can resume from. None where calls have no such state.
        health: Yields whether the servicer works, at each change. None means that it always does.
        load: Returns the load, for the metrics. None means that it has no slots and no queue.
        admit: Runs around every call but health checks, and may refuse it. None admits all.
    """

    name: str
    servicer: object
    warm_up: Callable[[], Awaitable[None]]
    close: Callable[[], Awaitable[None]]
    preempt: Callable[[], None] | None = None
    health: Callable[[], AsyncGenerator[bool, None]] | None = None
    load: Callable[[], instruments.Load] | None = None
    admit: Around | None = None

    @property
    def full_name(self) -> str:
        """Name on the wire, such as "muse.tokenizer.v1.TokenizerService"."""
        return f"muse.{self.name}.v1.{service_of(self.name)}"


@dataclass(frozen=True)
class RunningServer:
    """A running server.

    Attributes:
        address: "host:port" at which this machine connects to it.
        port: Port it listens on.
        health: Health servicer.
        serving: Names that share one health status: the service's, "" and READINESS.
    """

    address: str
    port: int
    health: health.aio.HealthServicer
    serving: tuple[str, ...]

    async def set_status(self, status: int) -> None:
        """Sets the health status to SERVING or NOT_SERVING."""
        for name in self.serving:
            await self.health.set(name, status)


@asynccontextmanager
async def running_server(
    service: Service, settings: ServerSettings
) -> AsyncIterator[RunningServer]:
    """Runs a server: SERVING inside the block, drained and stopped after it.

    Raises:
        ServerError: a port is not available.
        ValueError: a file of certificates cannot be read, or used.
    """
    states = health.aio.HealthServicer()
    serving = ("", service.full_name, READINESS)
    await states.set(LIVENESS, SERVING)
    for name in serving:
        await states.set(name, NOT_SERVING)

    def add_servicers(server: grpc.aio.Server) -> None:
        register = generated(service.name, f"add_{service_of(service.name)}Servicer_to_server")
        register(service.servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(states, server)
        if settings.introspects:
            _add_introspection(server, service)

    listener = Listener(add_servicers, settings, admit=service.admit)
    port = await _opened(listener, endpoint(settings.host, settings.port), "--port")
    running = RunningServer(endpoint(reachable(settings.host), port), port, states, serving)
    probed: Listener | None = None
    following: asyncio.Task[None] | None = None
    stop_observing = instruments.observe(service.load) if service.load is not None else None
    try:
        if (health_port := settings.health_port) is not None:
            plain = health_listener(states, settings, health_port)
            await _opened(plain, endpoint(settings.host, health_port), "--health-port")
            probed = plain
        await service.warm_up()
        await running.set_status(SERVING)
        logger.info("serving", extra={"address": running.address, "host": settings.host})
        if service.health is not None:
            following = asyncio.create_task(_follow_health(service.health(), running))
        yield running
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await running.set_status(NOT_SERVING)
        await listener.stop(service.preempt)
        if probed is not None:
            await probed.stop()
        if stop_observing is not None:
            stop_observing()
        await service.close()


async def _opened(listener: Listener, address: str, flag: str) -> int:
    """Opens the port of a listener, and returns its number."""
    try:
        return await listener.start()
    except RuntimeError as error:
        raise ServerError(
            f"cannot listen on {address}: is another server there? Name another {flag}"
        ) from error


def _add_introspection(server: grpc.aio.Server, service: Service) -> None:
    """Registers what describes a server to whoever asks: channelz, and reflection."""
    channelz.add_channelz_servicer(server)
    listed = (
        service.full_name,
        health.SERVICE_NAME,
        channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name,
        reflection_v1.SERVICE_NAME,
        reflection.SERVICE_NAME,
    )
    reflection.enable_server_reflection(listed, server)
    reflection_v1.add_reflection_v1(listed, server)


async def _follow_health(health: AsyncGenerator[bool, None], running: RunningServer) -> None:
    async with aclosing(health):
        async for healthy in health:
            await running.set_status(SERVING if healthy else NOT_SERVING)
            logger.log(logging.INFO if healthy else logging.ERROR, "healthy: %s", healthy)


def run_server(
    build: Callable[[], Awaitable[Service]], settings: ServerSettings, *, name: str
) -> None:
    """Runs a server until SIGTERM or SIGINT; the whole life of a process.

    With `compile_only` it returns as soon as the server is warm. `build` loads the service before
    the port opens.

    Raises:
        SystemExit: with status 1, if the server cannot start; one line of log says why.
    """
    configure_logs(f"muse.{name}", settings.log_level)
    try:
        check_variables()
        _check_transport(settings)
        with ExitStack() as at_end:
            at_end.callback(configure_tracing(f"muse.{name}"))
            at_end.callback(_start_metrics(name, settings))
            asyncio.run(_serve_until_signal(build, settings))
    except (CheckpointError, ServerError, ValueError) as error:
        logger.error("cannot start: %s", error)
        raise SystemExit(1) from None
    logger.info("stopped")


def _check_transport(settings: ServerSettings) -> None:
    """Checks the certificates before anything is loaded; warns of plain text."""
    if (files := settings.certificate_files) is not None:
        files.check(files.content())
    if settings.speaks_plainly_to_others:
        logger.warning(
            "insecure: calls are neither encrypted nor is their caller known: this server speaks "
            "plain text on %s, which other machines reach",
            settings.host,
        )


def _start_metrics(stage: str, settings: ServerSettings) -> Callable[[], None]:
    host = settings.metrics_host or settings.host
    return configure_metrics(stage, host=host, port=settings.metrics_port)[1]


async def _serve_until_signal(
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
        if not starting.done():  # the signal came before the server was warm
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return
        await starting
        if isinstance(settings, StageSettings) and settings.compile_only:
            logger.info("compiled", extra={"folder": str(settings.compilation_cache)})
            ended.cancel()
            return
        await ended


def command_line(
    name: str,
    help_text: str,
    settings_type: type[Settings],
    build: Callable[[Settings], Awaitable[Service]],
    *,
    default: Settings | None = None,
) -> App:
    """Returns the command line of a server: flags, or MUSE_ environment variables.

    `default` is the settings without any flag; None if a flag is required.
    """
    app = App(
        name=f"python -m services.{name}",
        help=help_text,
        version=package_version,
        config=Env("MUSE_", command=False),
    )

    def main(settings: Settings) -> None:
        """Serves until SIGTERM."""
        run_server(lambda: build(settings), settings, name=name)

    main.__annotations__["settings"] = Annotated[settings_type, Parameter(name="*")]
    main.__defaults__ = None if default is None else (default,)
    app.default(main)
    return app


def run_command_line(app: App) -> None:
    """Runs a server's command line; an invalid setting prints one line and exits with status 1."""
    try:
        app()
    except ValueError as error:
        sys.exit(f"error: {error}")
