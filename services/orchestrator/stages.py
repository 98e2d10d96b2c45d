"""The four stages as the orchestrator sees them: channels, and what they say of themselves."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from muse.base.v1 import base_pb2, base_pb2_grpc
from muse.common.v1.decoding_pb2 import Sampling
from muse.orchestrator.v1.orchestrator_pb2 import StageReport
from muse.superres.v1 import superres_pb2, superres_pb2_grpc
from muse.text_encoder.v1 import text_encoder_pb2, text_encoder_pb2_grpc
from muse.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc

from services.runtime.server import channel_options
from services.runtime.telemetry import client_interceptors

STAGES = ("text_encoder", "base", "superres", "tokenizer")  # in the order of the pipeline
STATUS_TIMEOUT_S = 5.0
# gRPC waits up to two minutes before it tries a lost address again; a stage is back sooner.
RECONNECTING = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


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


class Stages:
    """Channels to the four stages."""

    def __init__(self, addresses: Mapping[str, str], *, max_message_mib: int = 32) -> None:
        """Opens the channels; connects at the first call.

        Args:
            addresses: "host:port" of every stage by name.
            max_message_mib: Size of the largest message, in MiB.
        """
        self.addresses = dict(addresses)
        self.channels = {
            name: grpc.aio.insecure_channel(
                addresses[name],
                options=[*channel_options(max_message_mib), *RECONNECTING],
                interceptors=client_interceptors(),
            )
            for name in STAGES
        }
        text_encoder, base, superres, tokenizer = (self.channels[name] for name in STAGES)
        self.text_encoder: Any = text_encoder_pb2_grpc.TextEncoderServiceStub(text_encoder)
        self.base: Any = base_pb2_grpc.BaseServiceStub(base)
        self.superres: Any = superres_pb2_grpc.SuperresServiceStub(superres)
        self.tokenizer: Any = tokenizer_pb2_grpc.TokenizerServiceStub(tokenizer)
        self._status: dict[str, tuple[Any, Any]] = {
            "text_encoder": (self.text_encoder, text_encoder_pb2.GetStatusRequest),
            "base": (self.base, base_pb2.GetStatusRequest),
            "superres": (self.superres, superres_pb2.GetStatusRequest),
            "tokenizer": (self.tokenizer, tokenizer_pb2.GetStatusRequest),
        }

    async def ask(self, timeout_s: float = STATUS_TIMEOUT_S) -> list[Heard]:
        """Asks every stage how it is, all at once, in the order of the pipeline.

        A stage that is away is a report, not an error.

        Args:
            timeout_s: Seconds each may take to answer.
        """
        return list(await asyncio.gather(*(self._ask(name, timeout_s) for name in STAGES)))

    async def _ask(self, name: str, timeout_s: float) -> Heard:
        heard = Heard(
            report=StageReport(stage=name, address=self.addresses[name]), defaults=Sampling()
        )
        stub, request = self._status[name]
        asked: Any = health_pb2_grpc.HealthStub(self.channels[name])
        try:
            health, answer = await asyncio.gather(
                asked.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s),
                stub.GetStatus(request(), timeout=timeout_s),
            )
        except grpc.aio.AioRpcError as error:
            heard.report.problem = f"{error.code().name}: {error.details()}"
            return heard
        heard.report.serving = health.status == health_pb2.HealthCheckResponse.SERVING
        heard.report.status.CopyFrom(answer.status)
        if name in ("base", "superres"):
            heard.defaults.CopyFrom(answer.defaults)
        if name == "tokenizer":
            for role, size in answer.resolutions.items():
                heard.resolutions[role] = Resolution(
                    codebook=answer.status.fingerprints[role], side_px=size.side_px, grid=size.grid
                )
        return heard

    async def close(self) -> None:
        """Closes the channels."""
        await asyncio.gather(*(channel.close() for channel in self.channels.values()))
