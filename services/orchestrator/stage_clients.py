"""Clients of the four stages: their replicas, and what each stage says of itself."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from muse.common.v1.decoding_pb2 import Sampling
from muse.orchestrator.v1.orchestrator_pb2 import StageReport

from services.orchestrator.replicas import Budget, Hedging, Replica, ReplicaSet
from services.orchestrator.replicas.addresses import addresses_of, service_of
from services.runtime.wire.errors import RequestError
from services.stages import DECODING, STAGES, StageName

STATUS_TIMEOUT_S = 5.0
Discovery = Literal["dns", "kubernetes"]


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """What one tokenizer takes and makes.

    Attributes:
        codebook: Fingerprint of its codebook.
        side_px: Side of its pictures, in pixels.
        grid: Tokens along a side of its grids.
    """

    codebook: str
    side_px: int
    grid: int


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What a stage says of itself.

    Attributes:
        report: Its health and status, or why there is none.
        defaults: Its default knobs, if it decodes and can be reached.
        resolutions: Of the tokenizers, by the role of their codebook, if it is they.
    """

    report: StageReport
    defaults: Sampling
    resolutions: dict[str, Resolution] = field(default_factory=dict)


class StageClients:
    """The four stages, each a set of replicas that its calls are spread over."""

    def __init__(
        self,
        addresses: Mapping[str, str],
        *,
        max_message_mib: int = 32,
        discovery: Discovery = "dns",
        hedged_share: float = 0.0,
    ) -> None:
        """Begins to connect, in a running event loop.

        Args:
            addresses: Of every stage by name, as `addresses_of` reads them; "dns:///" has gRPC take
                turns between the replicas that DNS names.
            max_message_mib: Size of the largest message, in MiB.
            discovery: "kubernetes" has each address name a Service instead, whose ready pods are
                watched.
            hedged_share: Of the calls of a stage, how many may be sent to a second replica when
                the first one takes unusually long.

        Raises:
            ValueError: an address is none, or nothing says how to reach the API server.
        """
        watched = discovery == "kubernetes"
        services = {name: service_of(addresses[name], name) for name in STAGES if watched}
        replicas = {name: addresses_of(addresses[name], name) for name in STAGES if not watched}
        self.addresses = dict(addresses)
        self.replicas = {
            name: ReplicaSet(
                name,
                replicas.get(name, ()),
                source=f"{addresses[name]} names no pod that is ready",
                max_message_mib=max_message_mib,
                hedging=_hedging(name, hedged_share) if hedged_share else None,
            )
            for name in STAGES
        }
        stubs = {name: stage.stub(self.replicas[name]) for name, stage in STAGES.items()}
        self.text_encoder, self.base = stubs["text_encoder"], stubs["base"]
        self.superres, self.tokenizer = stubs["superres"], stubs["tokenizer"]
        self._watches: list[Any] = []
        if watched:
            from services.orchestrator.replicas.kubernetes_watch import watch_services  # takes 1 s

            self._watches = watch_services(
                {services[name]: self.replicas[name].update for name in STAGES}
            )

    def when_lost(self, react: Callable[[], None]) -> None:
        """Has something called whenever a replica of any stage came, or no longer serves."""
        for replicas in self.replicas.values():
            replicas.lost = react

    async def ask(self, timeout_s: float = STATUS_TIMEOUT_S) -> list[Heard]:
        """Asks every stage how it is, all at once, in the order of the pipeline.

        A stage that is away is a report, not an error.

        Args:
            timeout_s: Seconds each may take to answer.
        """
        return list(await asyncio.gather(*(self._ask(name, timeout_s) for name in STAGES)))

    async def _ask(self, name: StageName, timeout_s: float) -> Heard:
        stage, replicas = STAGES[name], self.replicas[name]
        heard = Heard(
            report=StageReport(stage=name, address=self.addresses[name]), defaults=Sampling()
        )
        try:
            replica = replicas.somebody()
        except RequestError as error:
            heard.report.unavailable_reason = f"{error.code.name}: {error.message}"
            return heard
        heard.report.address = replica.address
        asked: Any = health_pb2_grpc.HealthStub(replica.channel)
        try:
            health, answer = await asyncio.gather(
                asked.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s),
                stage.stub(replica.channel).GetStatus(stage.status_request(), timeout=timeout_s),
            )
        except grpc.aio.AioRpcError as error:
            problem = f"{error.code().name}: {error.details()}"
            heard.report.unavailable_reason = replicas.absence() or problem
            return heard
        heard.report.serving = health.status == health_pb2.HealthCheckResponse.SERVING
        if not heard.report.serving:
            heard.report.unavailable_reason = replicas.absence()
        heard.report.status.CopyFrom(answer.status)
        if name in DECODING:
            heard.defaults.CopyFrom(answer.defaults)
        if name == "tokenizer":
            for role, size in answer.resolutions.items():
                heard.resolutions[role] = Resolution(
                    codebook=answer.status.fingerprints[role], side_px=size.side_px, grid=size.grid
                )
        return heard

    async def close(self) -> None:
        """Closes all channels, and ends what is watched."""
        await asyncio.gather(*(watch.close() for watch in self._watches))
        await asyncio.gather(*(replicas.close() for replicas in self.replicas.values()))


def _hedging(name: StageName, share: float) -> Hedging:
    stage = STAGES[name]

    async def waiting(replica: Replica, timeout_s: float) -> int:
        stub = stage.stub(replica.channel)
        answer = await stub.GetStatus(stage.status_request(), timeout=timeout_s)
        return int(answer.status.queued)

    return Hedging(name, Budget(share), waiting)
