"""The gRPC server of a process, which is built again on its port when its accept loop ends.

The accept loop of grpcio ends at an exception: a `:path` that is no UTF-8 raises one, before any
interceptor. What has been accepted goes on, but the port is closed.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from muse_client.addresses import endpoint

from services.runtime.server.certificates import ReloadedCertificates, server_credentials
from services.runtime.server.channels import limit_options, server_options
from services.runtime.server.interceptors import (
    Around,
    CallCount,
    EndlessCalls,
    server_interceptors,
)
from services.runtime.server.metrics_interceptor import measured
from services.runtime.server.peer_identity import AcceptedClients
from services.runtime.server.requests import RequestReader
from services.runtime.server.settings import ServerSettings

logger = logging.getLogger(__name__)
CHECK_EVERY_S = 0.05  # a client that is refused a connection waits a second before it tries again
PREEMPT_AFTER = 0.8  # share of the grace after which unfinished calls are preempted
LAST_STATUS_S = 1.0  # for the last status of a call to reach its caller


@dataclass(frozen=True)
class _Accepting:
    """A gRPC server and the calls that it accepted."""

    server: grpc.aio.Server
    calls: CallCount
    endless: EndlessCalls

    @property
    def accepts(self) -> bool:
        """Whether the accept loop runs.

        `wait_for_termination` would tell only after every call has ended, and the call that ended
        the loop is never answered: its caller decides how long that takes.
        """
        server: Any = self.server
        return bool(server._server.is_running())

    async def stop(self, grace_s: float, preempt: Callable[[], None] | None = None) -> None:
        """Refuses new calls, and closes all connections once the open calls have ended."""
        stopping = asyncio.create_task(self.server.stop(grace_s))
        idle = asyncio.create_task(self.calls.idle())
        if preempt is not None:
            await asyncio.wait([idle], timeout=grace_s * PREEMPT_AFTER)
            if self.calls.running:
                logger.info("preempting unfinished calls", extra={"calls": self.calls.running})
                preempt()
        await asyncio.wait([stopping, idle], return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        if running := self.calls.running:
            logger.warning("calls were cut off", extra={"calls": running, "grace_s": grace_s})
        self.endless.end()
        await asyncio.wait([stopping], timeout=LAST_STATUS_S)
        await self.server.stop(None)  # calls that no handler has
        await stopping


class Listener:
    """Listens on a port as long as the process serves."""

    def __init__(
        self,
        add_servicers: Callable[[grpc.aio.Server], None],
        settings: ServerSettings,
        *,
        admit: Around | None = None,
    ) -> None:
        """Listens nowhere yet.

        Args:
            add_servicers: Registers what a new gRPC server answers.
            settings: Settings of the server.
            admit: Runs around every call but health checks, and may refuse it.

        Raises:
            ValueError: a file of certificates cannot be read, or used.
        """
        self._add_servicers, self._settings, self._admit = add_servicers, settings, admit
        files = settings.certificate_files
        self._certificates = None if files is None else ReloadedCertificates(files)
        self._draining: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Opens the port, and returns its number.

        Raises:
            RuntimeError: the port is not available.
        """
        self._port = self._settings.port
        self._accepting = await self._listen()
        self._keeping = asyncio.create_task(self._keep())
        return self._port

    async def stop(self, preempt: Callable[[], None] | None = None) -> None:
        """Closes the port; open calls have the grace to end, and are preempted before."""
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)
        await self._accepting.stop(self._settings.grace_s, preempt)
        await asyncio.gather(*self._draining)

    async def _listen(self) -> _Accepting:
        settings = self._settings
        calls, endless = CallCount(settings.max_calls), EndlessCalls(settings.max_calls)
        requests = RequestReader(
            timeout_s=settings.receive_timeout_s,
            max_arriving=max(1, settings.max_arriving_mib // settings.max_message_mib),
        )
        clients = AcceptedClients(settings.tls_clients) if settings.tls_clients else None
        server = grpc.aio.server(
            interceptors=server_interceptors(
                calls, endless, requests, measured, clients=clients, admit=self._admit
            ),
            options=[*server_options(settings.max_message_mib), *limit_options(settings)],
        )
        _answer_by_name(server)
        self._add_servicers(server)
        address = endpoint(settings.host, self._port)
        if self._certificates is None:
            self._port = server.add_insecure_port(address)
        else:
            self._port = server.add_secure_port(address, server_credentials(self._certificates))
        await server.start()
        return _Accepting(server, calls, endless)

    async def _keep(self) -> None:
        """Builds a new server whenever the accept loop has ended; the old one ends its calls."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            if self._accepting.accepts:
                continue
            try:
                old, self._accepting = self._accepting, await self._listen()
            except RuntimeError as error:
                logger.error("the accept loop ended, and the port is not available: %s", error)
                continue
            logger.error("the accept loop ended; the server was built again on its port")
            draining = asyncio.create_task(old.stop(self._settings.grace_s))
            self._draining.add(draining)
            draining.add_done_callback(self._draining.discard)


def _answer_by_name(server: Any) -> None:
    """Makes a server look up the handler of every call by name, in its generic handlers.

    Generated code registers each method as well. For a registered method grpcio 1.85.1 waits with
    an `RPCState` whose address gRPC core has. When the accept loop ends by an exception, it frees
    them all, and core still writes a call and a count of metadata there when the server shuts down:
    into whatever the process has put there since. It never frees a generic one that core has.

    Source: grpcio 1.85.1, _cygrpc/aio/server.pyx.pxi, `_server_main_loop`, and core's
    src/core/server/server.cc, `Server::FailCall`.
    """
    server.add_registered_method_handlers = lambda service, handlers: None
