"""Clients of the stages of a system: their replicas, and the status that each stage reports."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from muse.orchestrator.v1.orchestrator_pb2 import StageReport

from services.orchestrator.replicas.addresses import addresses_of, service_of
from services.orchestrator.replicas.hedging import Budget, Hedging
from services.orchestrator.replicas.replica_set import ReplicaSet
from services.runtime.server.certificates import CertificateFiles, ReloadedCertificates
from services.runtime.wire.errors import RequestError
from services.stages import STAGES, StageName

STATUS_TIMEOUT_S = 5.0
RENEW_EVERY_S = 10.0  # far below the time by which certificates are renewed before they expire
Discovery = Literal["dns", "kubernetes"]


class StageAnswer(NamedTuple):
    """Answer of a stage to a status query.

    Attributes:
        report: Health and status of the stage, or the problem of reaching it.
        response: The stage's GetStatusResponse; None if the stage could not be reached.
    """

    report: StageReport
    response: Any = None


class StageClients:
    """Stubs of the stages of a system; each balances its calls over the stage's replicas.

    Attributes:
        addresses: Address of each stage that the system has.
        decoding: Names of those that decode tokens, in pipeline order; the tokens of the last one
            are those of the picture.
    """

    def __init__(
        self,
        addresses: Mapping[StageName, str],
        *,
        max_message_mib: int = 32,
        discovery: Discovery = "dns",
        hedged_share: float = 0.0,
        certificate_files: CertificateFiles | None = None,
    ) -> None:
        """Starts to connect; needs a running event loop.

        `addresses` has those of the stages that the system has. "kubernetes" takes each address as
        the name of a Service and watches its ready pods; otherwise `addresses_of` reads it. At most
        `hedged_share`, 0 to 1, of a stage's calls are hedged. With `certificate_files` all calls
        are encrypted, and the files are read again when they change.

        Raises:
            ValueError: an address is malformed, a file of certificates cannot be used, or there
                are no credentials for the API server.
        """
        in_cluster = discovery == "kubernetes"
        names = [each for each in STAGES if each in addresses]
        services = {name: service_of(addresses[name], name) for name in names if in_cluster}
        replicas = {name: addresses_of(addresses[name], name) for name in names if not in_cluster}
        self.addresses = dict(addresses)
        self._certificates = (
            None if certificate_files is None else ReloadedCertificates(certificate_files)
        )
        self.replicas = {
            name: ReplicaSet(
                name,
                replicas.get(name, ()),
                source=f"{addresses[name]} has no ready pod",
                max_message_mib=max_message_mib,
                hedging=Hedging(name, Budget(hedged_share)) if hedged_share else None,
                certificates=self._certificates,
                server_name=services[name].host if in_cluster else "",
            )
            for name in names
        }
        stubs = {name: STAGES[name].stub(self.replicas[name]) for name in names}
        self.text_encoder, self.base = stubs["text_encoder"], stubs["base"]
        self.superres, self.tokenizer = stubs.get("superres"), stubs["tokenizer"]
        self.decoding = tuple(name for name in names if STAGES[name].decodes)
        self._renewing = asyncio.create_task(self._renew_forever())
        self._watches: list[Any] = []
        if in_cluster:
            from services.orchestrator.replicas.kubernetes_watch import watch_services  # takes 1 s

            self._watches = watch_services(
                {services[name]: self.replicas[name].update for name in names}
            )

    def on_change(self, callback: Callable[[], None]) -> None:
        """Sets a callback for a new replica, or one that stops serving, of any stage."""
        for replicas in self.replicas.values():
            replicas.on_change = callback

    def renew(self) -> None:
        """Connects to every replica anew if the certificates have changed."""
        if self._certificates is not None and self._certificates.changed() is not None:
            for replicas in self.replicas.values():
                replicas.reconnect()

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            self.renew()

    async def query(self, timeout_s: float = STATUS_TIMEOUT_S) -> list[StageAnswer]:
        """Queries health and status of all stages concurrently; returns them in pipeline order.

        A stage that cannot be reached is reported with its problem and raises no error.
        """
        return list(await asyncio.gather(*(self._query(name, timeout_s) for name in self.replicas)))

    async def _query(self, name: StageName, timeout_s: float) -> StageAnswer:
        stage, replicas = STAGES[name], self.replicas[name]
        report = StageReport(stage=name, address=self.addresses[name])
        try:
            replica = replicas.any_replica()
        except RequestError as error:
            report.unavailable_reason = f"{error.code.name}: {error.message}"
            return StageAnswer(report)
        report.address = replica.address
        health_stub: Any = health_pb2_grpc.HealthStub(replica.channel)
        try:
            health, response = await asyncio.gather(
                health_stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s),
                stage.stub(replica.channel).GetStatus(stage.status_request(), timeout=timeout_s),
            )
        except grpc.aio.AioRpcError as error:
            problem = f"{error.code().name}: {error.details()}"
            report.unavailable_reason = replicas.unavailable_reason() or problem
            return StageAnswer(report)
        report.serving = health.status == health_pb2.HealthCheckResponse.SERVING
        if not report.serving:
            report.unavailable_reason = replicas.unavailable_reason()
        report.status.CopyFrom(response.status)
        if stage.decodes:
            report.defaults.CopyFrom(response.defaults)
        return StageAnswer(report, response)

    async def close(self) -> None:
        """Closes all channels and watches."""
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)
        await asyncio.gather(*(watch.close() for watch in self._watches))
        await asyncio.gather(*(replicas.close() for replicas in self.replicas.values()))
